"""A text encoded stretch by stretch: what lies between two added tokens gets the ids that it would get alone.

A tokenizer cuts a text at its added tokens first and works on each stretch by itself, so a stretch that several texts
have in common need be encoded once only. Owns for which tokenizers that is so: those whose description holds nothing
that looks beyond a stretch (a space put before the first one, added tokens that swallow white space around them or hold
one another). For all others a text is one stretch. Invariant: the ids are those of the tokenizer for the whole text.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

# Rows are shared out to processes, and a pool of threads in each would only be in the way of forks.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD")
_PRE_TOKENIZERS = ("Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "BertPreTokenizer")


class Stretches:
    """The stretches of a tokenizer's texts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, remembered: Callable[[str, Callable[[], list[int]]], list[int]]) -> list[int]:
        """The ids of `text`; `remembered(stretch, encode)` gives those of one stretch, from a memory or by `encode`."""
        if not self._added:
            return [*remembered(text, lambda: self._alone(text))]
        ids: list[int] = []
        for number, part in enumerate(self._between.split(text)):
            if number % 2:
                ids.append(self._added[part])
            elif part:
                ids += remembered(part, lambda part=part: self._alone(part))  # type: ignore[misc]
        return ids

    def _alone(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    @cached_property
    def _added(self) -> dict[str, int]:
        """Ids of the added tokens; none where a stretch is not encoded by itself."""
        described = json.loads(self._tokenizer.to_str())
        added = {token["content"]: token["id"] for token in described["added_tokens"]}
        apart = all(_stands_alone(token) for token in described["added_tokens"]) and not any(
            one != other and one in other for one in added for other in added
        )
        local = _is_local(described["normalizer"], described["pre_tokenizer"]) and described["model"]["type"] == "BPE"
        return added if apart and local and not described["model"].get("dropout") else {}

    @cached_property
    def _between(self) -> re.Pattern[str]:
        return re.compile(f"({'|'.join(re.escape(text) for text in self._added)})")


def _stands_alone(token: dict[str, Any]) -> bool:
    return bool(token["content"]) and not any(token[key] for key in ("single_word", "lstrip", "rstrip", "normalized"))


def _is_local(normalizer: dict[str, Any] | None, pre_tokenizer: dict[str, Any] | None) -> bool:
    """Whether what a stretch is made into depends on the stretch alone."""
    if normalizer is not None:
        steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
        if any(step["type"] not in _NORMALIZERS for step in steps):
            return False
    if pre_tokenizer is None:
        return True
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    return all(
        step["type"] in _PRE_TOKENIZERS or (step["type"] == "ByteLevel" and not step["add_prefix_space"])
        for step in steps
    )
