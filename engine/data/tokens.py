"""A tokenised text with its mask: which of its tokens a model should produce. Knows not how either came to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tokens:
    """One tokenised text."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    """Same length as `ids`: True where the token is one that the model should produce."""

    @classmethod
    def answered(cls, prompt: Sequence[int], answer: Sequence[int]) -> Tokens:
        """A prompt that is not trained, followed by an answer that is."""
        return cls((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))

    def all_trained(self) -> Tokens:
        """The same text with every token trained."""
        return Tokens(self.ids, (True,) * len(self.ids))
