"""A row in tokens: the ids and masks of training, the text of each token, and what a limit takes away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.data.chat import ChatTokenizer
from engine.data.examples import preference_row
from engine.data.row_tokens import row_tokens, token_texts
from engine.data.sft_examples import sft_row
from engine.show_tokens import answer_to
from sample_data import ROOT

MODEL = ROOT / "model"
PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße 🚲 <|im_end|> ok?"}]
ANSWER = [{"role": "assistant", "content": "Ja, 🚲🚲."}]
CHAT = {"messages": [*PROMPT, *ANSWER, {"role": "user", "content": "And?"}, {"role": "assistant", "content": "No."}]}


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer.from_folder(MODEL)


@pytest.mark.parametrize("train_on", ["completion", "assistant", "last", "all"])
def test_ids_and_masks_are_those_of_training(tokenizer: ChatTokenizer, train_on: str) -> None:
    for row in ({"prompt": PROMPT, "completion": ANSWER}, CHAT, {"text": "Ein Text, 🚲."}):
        expected = sft_row(row, "", tokenizer, 10_000, train_on, split=True).examples
        found = row_tokens(row, tokenizer, 10_000, train_on).sequences
        assert [tuple(token.id for token in one.tokens) for one in found] == [one.ids for one in expected]
        assert [tuple(token.trained for token in one.tokens) for one in found] == [one.trained for one in expected]


def test_both_answers_of_a_pair_follow_the_same_prompt(tokenizer: ChatTokenizer) -> None:
    row: dict[str, Any] = {"prompt": PROMPT, "chosen": ANSWER, "rejected": [{"role": "assistant", "content": "Nein."}]}
    (pair,) = preference_row(row, "", tokenizer, 10_000).examples
    chosen, rejected = row_tokens(row, tokenizer, 10_000).sequences
    assert [token.id for token in chosen.tokens if token.trained] == list(pair.chosen)
    assert [token.id for token in rejected.tokens if token.trained] == list(pair.rejected)
    assert chosen.tokens[: len(pair.prompt)] == rejected.tokens[: len(pair.prompt)]
    undecided = {"prompt": PROMPT, "a": row["chosen"], "b": row["rejected"]}
    assert [one.name for one in row_tokens(undecided, tokenizer, 10_000).sequences] == ["a", "b"]


def test_the_texts_are_the_text_and_special_tokens_are_told_from_their_text(tokenizer: ChatTokenizer) -> None:
    (one,) = row_tokens({"prompt": PROMPT, "completion": ANSWER}, tokenizer, 10_000).sequences
    whole = "".join(token.text for token in one.tokens)
    assert whole == tokenizer.decode([token.id for token in one.tokens], skip_special=False)
    assert "Grüße 🚲 <|im_end|> ok?" in whole
    assert "" in [token.text for token in one.tokens], "a wheel is several tokens"
    special = [token.text for token in one.tokens if token.special]
    assert special.count("<|im_end|>") == 3, "of three turns, and not the one that a person wrote"
    assert set(special) == {"<|im_start|>", "<|im_end|>"}


def test_a_limit_is_marked_and_what_it_takes_is_counted(tokenizer: ChatTokenizer) -> None:
    row = {"prompt": PROMPT, "completion": ANSWER}
    whole = row_tokens(row, tokenizer, 10_000).sequences[0]
    assert (whole.cut_at, whole.trained_cut) == (whole.total, 0)
    limit = whole.total - 3
    (one,) = row_tokens(row, tokenizer, limit).sequences
    assert (one.cut_at, one.trained_cut, one.total) == (limit, 3, whole.total)
    assert row_tokens(row, tokenizer, whole.total - whole.trained).dropped
    assert not row_tokens(row, tokenizer, limit).dropped


def test_bytes_that_make_no_character_are_shown_all_the_same(tokenizer: ChatTokenizer) -> None:
    ids = tokenizer.encode("🚲")
    assert list(token_texts(ids[:1], tokenizer)) == [""]
    broken = ids[:1] * 12
    assert "".join(token_texts(broken, tokenizer)).count("\ufffd") >= 8


def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    request = {"folder": str(MODEL), "adapter": "", "row": {"completion": "x"}, "max_length": 9, "train_on": "all"}
    assert "prompt" in answer_to(request, {})["error"]
    assert str(tmp_path) in answer_to({**request, "folder": str(tmp_path)}, {})["error"]
