"""Text of strangers, encoded so that it cannot forge special tokens.

A message that holds the characters "<|im_end|>" must not end its turn. Two spellings keep both worlds apart:

1. In a message, each special-token text is replaced by a *mark* before the chat template renders it, so that whatever
   the template does (trim, split, join) it does to the rest as usual.
2. In the rendering, the special tokens that the template wrote itself are re-spelled, marks become the text they stand
   for, and the whole is encoded by a twin of the tokenizer that knows special tokens by the new spelling only.

The twin splits, normalises and merges exactly as the original does, so every ordinary stretch gets the tokens that
ordinary text gets there. Marks and spellings hold a random number that no text can foresee; ids do not depend on it.
Texts without a mark never come here: they are encoded by the tokenizer itself.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from engine.errors import ModelError

_OPEN_MARK, _OPEN_SPELLING, _CLOSE = "\U000f0000", "\U000f0001", "\U000f0002"
_ESCAPED_MARK = json.dumps(_OPEN_MARK)[1:-1]


class GuardedEncoding:
    """Marks for a set of special-token texts, and the twin tokenizer that reads marked renderings."""

    def __init__(self, tokenizer: Tokenizer, guarded: Mapping[str, int]) -> None:
        """`guarded` maps the text of each token that no message may forge to its id."""
        self._tokenizer = tokenizer
        self._texts = sorted(guarded, key=lambda text: (-len(text), text))
        self._guarded = dict(guarded)
        self._nonce = str(secrets.randbits(64))
        # Longest first: where two special texts begin at the same place the tokenizer takes the longer one.
        self._special = re.compile("|".join(re.escape(text) for text in self._texts) or "(?!)")
        self._mark = re.compile(f"{_OPEN_MARK}{self._nonce}\\.(\\d+){_CLOSE}")

    def mark(self, text: str) -> str:
        """`text` with each guarded token's text replaced by its mark."""
        return self._special.sub(lambda found: self._spell(_OPEN_MARK, found[0]), text)

    def is_marked(self, text: str) -> bool:
        """True where `text` holds a mark, so that `encode` must read it."""
        return self._mark.search(text) is not None

    def is_escaped(self, text: str) -> bool:
        """True where something wrote a mark as a JSON escape, so that it can be read no more."""
        return f"{_ESCAPED_MARK}{self._nonce}" in text

    def unmark(self, text: str) -> str:
        """`text` with each mark replaced by what it stands for."""
        return self._mark.sub(lambda found: self._texts[int(found[1])], text)

    def encode(self, marked: str) -> list[int]:
        """Token ids: marks as ordinary text, guarded tokens' texts as the special tokens that they are."""
        spelled = self._special.sub(lambda found: self._spell(_OPEN_SPELLING, found[0]), marked)
        ids: list[int] = self._twin.encode(self.unmark(spelled), add_special_tokens=False).ids
        return ids

    def _spell(self, opening: str, text: str) -> str:
        return f"{opening}{self._nonce}.{self._texts.index(text)}{_CLOSE}"

    @cached_property
    def _twin(self) -> Tokenizer:
        spelling = {text: self._spell(_OPEN_SPELLING, text) for text in self._texts}
        described = json.loads(self._tokenizer.to_str())
        # Only adds tokens at the ends of a text, which is never asked for here, and names them by the old spelling.
        described["post_processor"] = None
        for token in described["added_tokens"]:
            if token["content"] in spelling:
                token["content"] = spelling[token["content"]]
                token["normalized"] = False
        _respell_vocabulary(described["model"], spelling)
        twin = Tokenizer.from_str(json.dumps(described))
        for text, token_id in self._guarded.items():
            if twin.token_to_id(spelling[text]) != token_id:
                raise ModelError(
                    f"tokenizer.json: a message holds the text {text!r}, which cannot be encoded as ordinary text "
                    "with this kind of tokenizer: remove that text from the data"
                )
        return twin


def _respell_vocabulary(model: dict[str, Any], spelling: Mapping[str, str]) -> None:
    """Rename guarded tokens in the model's own vocabulary: a list of (text, score) for Unigram, else text -> id."""
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {spelling.get(text, text): token_id for text, token_id in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[spelling.get(text, text), score] for text, score in vocabulary]
    if model.get("unk_token") in spelling:
        model["unk_token"] = spelling[model["unk_token"]]
