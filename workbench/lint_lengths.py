"""Whether length alone tells which answer is preferred.

Owns the count: the share of prompts whose preferred answer is the longer one, with its interval. Rows of one prompt are
one observation, so that a prompt with many pairs counts once. Refuses to know why people prefer what they prefer.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any

from workbench.canonical_rows import text_of
from workbench.near_duplicates import hash_of
from workbench.statistics import wilson_interval

LEAST_PROMPTS = 20
"""With fewer the interval is told and nothing is made of it."""


class LengthBias:
    """Lengths of preferred and rejected answers, pair by pair; 24 bytes a pair."""

    def __init__(self) -> None:
        self._groups = array("q")
        self._longer = array("d")
        self._differences = array("q")

    @property
    def is_empty(self) -> bool:
        """Whether no pair was seen."""
        return not self._groups

    def add(self, row: Mapping[str, Any]) -> None:
        """One preference row; others are no preference."""
        if "chosen" not in row:
            return
        difference = len(text_of(row["chosen"])) - len(text_of(row["rejected"]))
        self._groups.append(hash_of(str(row["group"]).encode("utf-8", "surrogatepass")))
        self._differences.append(difference)
        self._longer.append(0.5 if difference == 0 else float(difference > 0))

    def measures(self) -> dict[str, Any]:
        """The share of prompts with its 95 % Wilson interval, and the difference in characters; {} without pairs."""
        import numpy as np

        if not self._groups:
            return {}
        longer, differences = np.frombuffer(self._longer), np.frombuffer(self._differences, np.int64)
        _, inverse = np.unique(np.frombuffer(self._groups, np.int64), return_inverse=True)
        prompts = int(inverse.max()) + 1
        each = np.bincount(inverse, longer) / np.bincount(inverse)
        low, high = wilson_interval(float(each.sum()), prompts)
        return {
            "longer_preferred": float(each.mean()),
            "interval": [low, high],
            "pairs": len(longer),
            "prompts": prompts,
            "equal_lengths": int((differences == 0).sum()),
            "mean_difference_characters": float(differences.mean()),
            "difference_standard_error": _standard_error(differences),
        }


def _standard_error(values: Any) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def length_bias_words(measures: Mapping[str, Any]) -> str:
    """What the figures say, in one line."""
    low, high = measures["interval"]
    return (
        f"the longer answer is preferred for {measures['longer_preferred']:.3f} of {measures['prompts']:,} prompts "
        f"(95 % interval {low:.3f} to {high:.3f}); mean difference {measures['mean_difference_characters']:+,.0f} "
        "characters"
    )


def is_biased(measures: Mapping[str, Any]) -> bool:
    """Whether chance is no explanation: one half lies outside the interval."""
    if not measures or measures["prompts"] < LEAST_PROMPTS:
        return False
    low, high = measures["interval"]
    return bool(low > 0.5 or high < 0.5)
