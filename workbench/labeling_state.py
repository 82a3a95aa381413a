"""What a sitting says of itself: the pair that is shown, a verdict as it was seen, and how far it is.

Owns these values and their words. Invariant: nothing here says where an answer comes from.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from workbench.errors import WorkbenchError
from workbench.judgments import Order
from workbench.label_form import STRONG

ScreenVerdict = Literal["left", "right", "tie", "both_bad", "skip"]
WORDS: dict[ScreenVerdict, str] = {
    "left": "left better", "right": "right better", "tie": "tie", "both_bad": "both bad", "skip": "skipped",
}  # fmt: skip
"""What a verdict is called where it was seen."""


PACE_OVER = 20
"""Verdicts that the pace is taken over."""
LEAST_FOR_PACE = 3
LONGEST_THOUGHT_S = 600.0
"""A pair that took longer was not thought about all that time, and counts as this much."""


class JudgedElsewhere(WorkbenchError):
    """The present pair was judged meanwhile under the same name in another program; that verdict stands."""


@dataclass(frozen=True)
class ShownPair:
    """One pair as an annotator may see it: no source of an answer, no verdict that came with it."""

    id: str
    prompt: str
    left: str
    right: str
    order: Order
    """Which column stands left: "ab" or "ba"."""


@dataclass(frozen=True)
class Said:
    """A verdict as it was seen on the screen."""

    verdict: ScreenVerdict
    strength: int = 1

    @property
    def words(self) -> str:
        """left better, right much better, tie …"""
        words = WORDS[self.verdict]
        return words.replace("better", "much better") if self.strength >= STRONG else words


@dataclass(frozen=True)
class Saved:
    """One verdict that is on the disk."""

    number: int
    """How many of the set's pairs this annotator has judged with it."""
    said: Said
    took_s: float


@dataclass(frozen=True)
class Counts:
    """How far the sitting is."""

    total: int
    done: int
    """Pairs on which a verdict of this annotator stands, skips among them."""
    by_verdict: dict[ScreenVerdict, int]
    """left and right as they stood on the screen."""
    skipped: int
    per_hour: float
    """Pairs; 0 until there are a few verdicts."""

    @property
    def left(self) -> int:
        """Pairs still open."""
        return self.total - self.done

    @property
    def hours_left(self) -> float:
        """At this pace; 0 where there is none."""
        return self.left / self.per_hour if self.per_hour else 0.0


class Pace:
    """How fast verdicts come, over the last few."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=PACE_OVER)

    def took(self, seconds: float) -> None:
        """A verdict took so long."""
        self._recent.append(min(max(seconds, 0.0), LONGEST_THOUGHT_S))

    def take_back(self) -> None:
        """The last verdict was undone."""
        if self._recent:
            self._recent.pop()

    @property
    def per_hour(self) -> float:
        """Verdicts; 0 until there are a few."""
        total = sum(self._recent)
        return 3600 * len(self._recent) / total if len(self._recent) >= LEAST_FOR_PACE and total > 0 else 0.0
