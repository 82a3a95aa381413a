"""What held-out pairs say of a reward model beyond its loss: accuracy by slice, calibration, and a baseline.

Owns those definitions, on plain numbers. Pairs of one prompt are not independent, so every standard error is over
prompts. A tie counts half, wherever accuracy is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.methods.method import clustered_mean_and_error

BINS = 10
MOST_VALUES = 24
"""A tag with more values than this names rows rather than kinds of rows, and is no slice."""


@dataclass(frozen=True)
class ScoredPair:
    """One held-out pair and its rewards."""

    chosen: float
    """Raw reward of the chosen answer."""
    rejected: float
    chosen_tokens: int
    rejected_tokens: int
    group: str
    """Pairs of one group share their prompt."""
    tags: Mapping[str, Any]
    """What the row says of itself."""


def correct(first: float, second: float) -> float:
    """1 where the first is ahead, 0 where it is behind, 0.5 for a tie."""
    return 1.0 if first > second else 0.5 if first == second else 0.0


def share_and_error(values: Sequence[float], groups: Sequence[str]) -> dict[str, float]:
    """{"accuracy", "standard_error", "pairs"}: the mean of `values` and its standard error over groups; with one group
    there is no standard error."""
    share, error = clustered_mean_and_error(values, groups)
    return {"accuracy": share, "pairs": len(values)} | ({"standard_error": error} if math.isfinite(error) else {})


def calibration(pairs: Sequence[ScoredPair]) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error, and the reliability table it is made of (Guo et al. 2017, arXiv:1706.04599).

    Bradley-Terry says that the answer with the higher reward is the better one with probability sigmoid(|gap|): its
    confidence, between 0.5 and 1. The error is the mean over pairs of |accuracy - confidence| of their bin, with ten
    bins of equal width; empty bins are left out of the table.
    """
    bins: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for pair in pairs:
        confidence = 1.0 / (1.0 + math.exp(-min(abs(pair.chosen - pair.rejected), 700.0)))
        place = min(int((confidence - 0.5) * 2 * BINS), BINS - 1)
        bins[place].append((confidence, correct(pair.chosen, pair.rejected)))
    table = []
    error = 0.0
    for place, found in enumerate(bins):
        if found:
            confidence, accuracy = (math.fsum(column) / len(found) for column in zip(*found, strict=True))
            error += abs(accuracy - confidence) * len(found) / len(pairs)
            low, high = 0.5 + place / (2 * BINS), 0.5 + (place + 1) / (2 * BINS)
            table.append({"from": low, "to": high, "pairs": len(found), "confidence": confidence, "accuracy": accuracy})
    return error, table


def slices(pairs: Sequence[ScoredPair]) -> dict[str, dict[str, dict[str, float]]]:
    """Accuracy by which answer has more tokens, and by each value of each tag that sorts the rows into a few kinds."""
    parts: dict[str, dict[str, list[ScoredPair]]] = {"longer answer": {}}
    for pair in pairs:
        longer = {1.0: "chosen", 0.5: "neither", 0.0: "rejected"}[correct(pair.chosen_tokens, pair.rejected_tokens)]
        parts["longer answer"].setdefault(longer, []).append(pair)
        for tag, value in pair.tags.items():
            if isinstance(value, str | int | bool):
                parts.setdefault(tag, {}).setdefault(str(value), []).append(pair)
    return {
        tag: {value: accuracy_of_pairs(found) for value, found in sorted(values.items())}
        for tag, values in parts.items()
        if tag == "longer answer" or 1 < len(values) <= MOST_VALUES
    }


def accuracy_of_pairs(pairs: Sequence[ScoredPair]) -> dict[str, float]:
    """Share of pairs whose chosen answer has the higher reward."""
    return share_and_error([correct(p.chosen, p.rejected) for p in pairs], [p.group for p in pairs])


def report_on(pairs: Sequence[ScoredPair]) -> dict[str, Any]:
    """All of it, as an event tells it. "always_longer" is what a rule that knows lengths alone would reach."""
    error, table = calibration(pairs)
    longer = [correct(p.chosen_tokens, p.rejected_tokens) for p in pairs]
    return {
        **accuracy_of_pairs(pairs),
        "baselines": {"always_longer": share_and_error(longer, [p.group for p in pairs])},
        "calibration_error": error,
        "reliability": table,
        "slices": slices(pairs),
    }
