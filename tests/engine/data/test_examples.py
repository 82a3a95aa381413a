"""Reading frozen examples: shapes, the truncation rule, what is dropped and counted, what stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data.chat import ChatTokenizer
from engine.data.examples import read_preferences, read_prompts, readable
from engine.data.sft_examples import read_sft
from engine.errors import DataError

IM_END = 2
ASK = [{"role": "user", "content": "What is the colour of the sea?"}]
BLUE = [{"role": "assistant", "content": "The sea is blue."}]
RED = [{"role": "assistant", "content": "The sea is red."}]


@pytest.fixture
def tokenizer(tmp_path: Path, make_tiny_tokenizer: Callable[..., None]) -> ChatTokenizer:
    make_tiny_tokenizer(tmp_path / "tokenizer")
    return ChatTokenizer.from_folder(tmp_path / "tokenizer")


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


class TestPreferences:
    """Two answers behind the same prompt ids."""

    def test_fields(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        row = {"id": "x", "prompt": ASK, "chosen": BLUE, "rejected": RED}
        file = write(tmp_path, {**row, "weight": 0.5, "margin": 1, "group": "g"}, {**row, "margin": None})
        (first, second), _ = read_preferences(file, tokenizer, 128)
        assert first.prompt == tuple(tokenizer.prompt_ids(ASK))
        assert first.chosen == tuple(tokenizer.completion_ids(ASK, BLUE))
        assert first.rejected == tuple(tokenizer.completion_ids(ASK, RED))
        assert (first.weight, first.margin, first.group) == (0.5, 1.0, "g")
        assert (second.weight, second.margin) == (1.0, None)
        assert len(second.group) == 64

    def test_dropped(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        prompt = len(tokenizer.prompt_ids(ASK))
        long = [{"role": "user", "content": "The cat sat on the mat. " * 9}]
        file = write(
            tmp_path,
            {"prompt": ASK, "chosen": BLUE, "rejected": RED},
            {"prompt": ASK, "chosen": BLUE, "rejected": BLUE},
            {"prompt": ASK, "chosen": BLUE, "rejected": ""},
            {"prompt": long, "chosen": BLUE, "rejected": RED},
            {"prompt": ASK, "chosen": "Bread is warm.", "rejected": RED},
        )
        examples, counts = read_preferences(file, tokenizer, prompt + 2)
        assert [example.id for example in examples] == ["5"]
        assert all(len(e.prompt) + len(a) <= prompt + 2 for e in examples for a in (e.chosen, e.rejected))
        assert counts.truncated == 1
        assert counts.dropped == {
            "chosen equals rejected after truncation": 1,
            "chosen equals rejected": 1,
            "empty completion": 1,
            "too long: the prompt leaves no room for an answer": 1,
        }

    def test_no_usable_row(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        file = write(tmp_path, {"prompt": ASK, "chosen": BLUE, "rejected": RED})
        with pytest.raises(DataError, match=r"0 usable rows \(too long.*: 1; data.max_length is 5\)"):
            read_preferences(file, tokenizer, 5)
        (tmp_path / "empty").touch()
        with pytest.raises(DataError, match="the file is empty"):
            read_preferences(tmp_path / "empty", tokenizer, 5)


class TestPrompts:
    """Anything with a prompt can be answered."""

    def test_of_every_kind_of_row(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        system = {"role": "system", "content": "Be brief."}
        file = write(
            tmp_path,
            {"id": "a", "prompt": ASK, "tags": {"colour": "sea"}},
            {"id": "b", "messages": [system, *ASK, *BLUE]},
            {"id": "c", "prompt": "The cat"},
            {"id": "d", "text": "The cat sat."},
        )
        examples, counts = read_prompts(file, tokenizer, 128)
        assert [e.id for e in examples] == ["a", "b", "c"]
        assert examples[0].text == ASK[0]["content"]
        assert examples[1].prompt == tuple(tokenizer.prompt_ids([system, *ASK]))
        assert examples[1].text == readable([system, *ASK]) == f"system: Be brief.\nuser: {ASK[0]['content']}"
        assert examples[2].text == "The cat"
        assert counts.dropped == {"a text without a prompt": 1}

    def test_not_required(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        file = write(tmp_path, {"text": "The cat sat."})
        assert read_prompts(file, tokenizer, 128, required=False)[0] == []
        with pytest.raises(DataError, match="0 usable rows"):
            read_prompts(file, tokenizer, 128)

    def test_too_long(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        length = len(tokenizer.prompt_ids(ASK))
        file = write(tmp_path, {"prompt": ASK})
        assert len(read_prompts(file, tokenizer, length + 1)[0]) == 1
        assert read_prompts(file, tokenizer, length, required=False)[0] == []


class TestBrokenFiles:
    """A file of another kind stops the reading, with its line."""

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (b'{"prompt": ', "line 2: not JSON"),
            (b'{"text": "\xff"}', "line 2: not JSON"),
            (b"[1]", "line 2: a list"),
            (b'{"question": "x"}', 'line 2: no "chosen": the fields are question'),
            (b'{"prompt": 3, "completion": "x"}', 'line 2: "prompt" is a int'),
            (b'{"prompt": "x", "completion": []}', 'line 2: "completion" is a list'),
            (b'{"messages": "x"}', 'line 2: "messages" is a text'),
            (b'{"messages": [{"role": "user"}]}', 'line 2: "messages" holds something'),
            (b'{"text": 3}', 'line 2: "text" is a int'),
        ],
    )
    def test_line_is_named(self, line: bytes, reason: str, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        file = tmp_path / "rows.jsonl"
        file.write_bytes(b'{"text": "The cat"}\n' + line + b"\n")
        with pytest.raises(DataError, match=reason):
            read_sft(file, tokenizer, 128)

    def test_number_that_is_none(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        file = write(tmp_path, {"prompt": ASK, "chosen": BLUE, "rejected": RED, "weight": "heavy"})
        with pytest.raises(DataError, match="\"weight\" is 'heavy': expected a number"):
            read_preferences(file, tokenizer, 128)

    def test_missing_file(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        with pytest.raises(DataError, match="cannot be read"):
            read_sft(tmp_path / "none", tokenizer, 128)

    def test_all_refused_by_the_template_says_why(
        self, tmp_path: Path, make_tiny_tokenizer: Callable[..., None]
    ) -> None:
        make_tiny_tokenizer(tmp_path / "t", chat_template="{{ raise_exception('system role not supported') }}")
        tokenizer = ChatTokenizer.from_folder(tmp_path / "t")
        file = write(tmp_path, {"prompt": ASK, "completion": BLUE})
        with pytest.raises(DataError, match=r"the first at line 1.*system role not supported"):
            read_sft(file, tokenizer, 128)
