"""How long a run's examples are, as far as memory and time depend on it. Torch-free; no example is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.data.example_store import StoredExamples, taken_from, weighted_lengths

EXAMPLES_READ = 512
"""Of a large set, so many from all over it are looked at."""


@dataclass(frozen=True)
class TokenFacts:
    """Lengths of examples. A pair counts as one example."""

    mean: float
    """Tokens of an example as they go through the model."""
    deviation: float
    """Standard deviation of that."""
    longest: int
    scored_share: float
    """Share of the tokens that are scored, at which the head runs."""


def token_facts(examples: Sequence[Any], *, share_prompts: bool = True) -> TokenFacts | None:
    """The facts of examples of any kind, from a part of them where there are many; None where there are none.

    Without `share_prompts` the prompt of a pair counts twice, as often as it goes through the model.
    """
    if not len(examples):
        return None
    apart = max(1, len(examples) // EXAMPLES_READ)
    some = list(taken_from(examples, range(0, len(examples), apart)))
    lengths = tokens_of(some, share_prompts=share_prompts)
    total = sum(lengths)
    mean = total / len(lengths)
    longest = max(lengths)
    if isinstance(examples, StoredExamples):
        longest = max(tokens_of(examples, share_prompts=share_prompts))
    return TokenFacts(
        mean=mean,
        deviation=math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths)),
        longest=longest,
        scored_share=sum(_scored(e) for e in some) / total,
    )


def tokens_of(examples: Sequence[Any], *, share_prompts: bool = True) -> list[int]:
    """Tokens of each example, which are all of one kind, as they go through the model: a pair's prompt once, or twice
    where answers do not share it."""
    if not len(examples):
        return []
    weights = dict.fromkeys(_token_fields(examples[0]), 1)
    if "rejected" in weights and not share_prompts:
        weights["prompt"] = 2
    return weighted_lengths(examples, weights)


def _token_fields(example: Any) -> tuple[str, ...]:
    return tuple(n for n in ("ids", "prompt", "chosen", "rejected", "completion") if hasattr(example, n))


def _scored(example: Any) -> int:
    if hasattr(example, "trained"):
        return sum(example.trained[1:])
    return sum(len(getattr(example, name)) for name in _token_fields(example) if name != "prompt")
