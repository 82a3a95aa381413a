"""Answers to be scored are rendered as a pair's answers are, and cut by the same rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data.answer_examples import read_answers
from engine.data.chat import ChatTokenizer
from engine.data.examples import PROMPT_TOO_LONG, read_preferences
from engine.data.reading import EMPTY
from engine.errors import DataError
from tests.engine.run_maker import answer, preference_rows, user, write_rows


@pytest.fixture
def tokenizer(tmp_path: Path, make_tiny_tokenizer: Callable[..., None]) -> ChatTokenizer:
    make_tiny_tokenizer(tmp_path / "tokenizer")
    return ChatTokenizer.from_folder(tmp_path / "tokenizer")


@pytest.mark.parametrize("max_length", [1024, 25])
def test_an_answer_is_what_it_is_in_a_pair(tmp_path: Path, tokenizer: ChatTokenizer, max_length: int) -> None:
    rows = preference_rows(5)
    write_rows(tmp_path / "pairs.jsonl", rows)
    asked = [{"id": r["id"], "prompt": r["prompt"], "completion": r["chosen"]} for r in rows]
    write_rows(tmp_path / "answers.jsonl", asked)
    pairs, _ = read_preferences(tmp_path / "pairs.jsonl", tokenizer, max_length)
    answers, counts = read_answers(tmp_path / "answers.jsonl", tokenizer, max_length)
    found = {a.id: (a.prompt, a.answer) for a in answers}
    assert pairs
    assert all(found[p.id] == (p.prompt, p.chosen) for p in pairs)
    assert counts.truncated == (0 if max_length == 1024 else sum(len(a.prompt + a.answer) == 25 for a in answers))


def test_what_cannot_be_scored_is_counted(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    rows = [
        {"prompt": user("Say sea."), "completion": answer("The sea.")},
        {"prompt": user("Say sea."), "completion": answer("  ")},
        {"prompt": user("Say sea. " * 100), "completion": answer("The sea.")},
    ]
    write_rows(tmp_path / "answers.jsonl", rows)
    answers, counts = read_answers(tmp_path / "answers.jsonl", tokenizer, 64)
    assert len(answers) == 1
    assert counts.dropped == {EMPTY: 1, PROMPT_TOO_LONG: 1}
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": user("Say sea.")}])
    with pytest.raises(DataError, match='line 1: no "completion"'):
        read_answers(tmp_path / "prompts.jsonl", tokenizer, 64)
