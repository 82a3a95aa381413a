"""A text encoded stretch by stretch, and a row whose renderings are remembered, give the ids that they gave before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from engine.data.chat import ChatTokenizer
from engine.data.examples import preference_row
from engine.data.renderings import Renderings
from engine.data.sft_examples import sft_row
from engine.data.stretches import Stretches
from tests.engine.data.published_templates import FAMILIES, write_family
from tests.engine.data.test_published_templates import CASES
from tests.engine.run_maker import preference_rows

PARTS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|im_",
    "a",
    "  ",
    " ",
    "\n",
    "\n\n",
    "The cat",
    "'s",
    "é",
    "日",
    "1234",
    "!\n",
    "\t",
]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory, make_tiny_tokenizer: Callable[..., None]) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tiny_tokenizer(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def by_stretches(byte_level: Tokenizer) -> Stretches:
    return Stretches(byte_level)


@contextmanager
def each_alone(stretches: Stretches) -> Iterator[list[str]]:
    """The stretches that are encoded inside the block."""
    seen: list[str] = []
    alone = stretches._alone
    stretches._alone = lambda text: (seen.append(text), alone(text))[1]  # type: ignore[method-assign]
    yield seen
    stretches._alone = alone  # type: ignore[method-assign]


def encoded(stretches: Stretches, text: str) -> list[int]:
    return stretches.encode(text, lambda _, encode: encode())


@given(st.lists(st.sampled_from(PARTS), max_size=14).map("".join))
def test_stretches_add_up_to_the_whole(byte_level: Tokenizer, by_stretches: Stretches, text: str) -> None:
    assert encoded(by_stretches, text) == byte_level.encode(text, add_special_tokens=False).ids


def test_what_two_texts_have_in_common_is_encoded_once(byte_level: Tokenizer) -> None:
    stretches, memory = Stretches(byte_level), Renderings()
    with each_alone(stretches) as seen, memory.of_one_row():
        for text in ("<|im_start|>sea<|im_end|>\n", "<|im_start|>sea<|im_end|>rain"):
            stretches.encode(text, lambda part, encode: memory.once(part, None, encode))
    assert seen == ["sea", "\n", "rain"]


def made(**parts: Any) -> Tokenizer:
    """A tokenizer of single characters whose description has these parts, and the added tokens <a> and <b>."""
    letters = {letter: number for number, letter in enumerate("▁ abcdefgh<>\nĠ")}
    tokenizer = Tokenizer(models.BPE(letters, [], unk_token="<", fuse_unk=True))
    tokenizer.decoder = decoders.Fuse()
    for name, part in parts.items():
        if name != "tokens":
            setattr(tokenizer, name, part)
    tokenizer.add_special_tokens(parts.get("tokens", ["<a>", "<b>"]))
    return tokenizer


@pytest.mark.parametrize(
    "parts",
    [
        {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="first")},
        {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
        {"normalizer": normalizers.Prepend("▁")},
        {"tokens": [AddedToken("<a>", rstrip=True), "<b>"]},
        {"tokens": [AddedToken("<a>", lstrip=True), "<b>"]},
        {"tokens": [AddedToken("<a>", single_word=True), "<b>"]},
        {"tokens": [AddedToken("<a>", normalized=True), "<b>"]},
        {"tokens": ["<a>", "<b><a>"]},
    ],
)
def test_a_tokenizer_that_looks_beyond_a_stretch_gets_the_whole_text(parts: dict[str, Any]) -> None:
    tokenizer = made(**parts)
    stretches = Stretches(tokenizer)
    for text in ("ab <a> cd<b><a>e", "<a>ab", " ab<b>\n<a>"):
        with each_alone(stretches) as seen:
            assert encoded(stretches, text) == tokenizer.encode(text, add_special_tokens=False).ids
        assert seen == [text]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_remembered_of_a_row_changes_no_id(
    tmp_path: Path, make_tiny_tokenizer: Callable[..., None], family: str
) -> None:
    tokenizer = write_family(family, tmp_path, make_tiny_tokenizer)
    tokenizer._stretches = _Whole(tokenizer._tokenizer)
    rows = [{"messages": talk, "tools": tools} for talk, tools in CASES.values()]
    rows.append({"messages": [{"role": "user", "content": "<|im_end|></s><eos>"}, *CASES["plain"][0][1:]]})
    reads: list[tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = [
        (sft_row, row, {"train_on": train_on}) for row in rows for train_on in ("assistant", "last", "all")
    ]
    reads += [(preference_row, row, {}) for row in preference_rows(3)]
    plainly = [_result(read, row, tokenizer, options) for read, row, options in reads]
    tokenizer._stretches = Stretches(tokenizer._tokenizer)
    for (read, row, options), expected in zip(reads, plainly, strict=True):
        with tokenizer.renderings.of_one_row():
            assert _result(read, row, tokenizer, options) == expected
    assert any(isinstance(result, tuple) for result in plainly)


class _Whole(Stretches):
    """Every text whole, as the tokenizer itself does it."""

    def encode(self, text: str, remembered: Any) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _result(read: Callable[..., Any], row: Any, tokenizer: ChatTokenizer, options: dict[str, Any]) -> Any:
    try:
        found = read(row, "a", tokenizer, 256, **options)
    except Exception as error:
        return str(error)
    return found.examples, found.dropped, found.truncated, found.treatment
