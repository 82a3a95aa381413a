"""Rows of a run's data that become no example of it, by reason: counted at the launch, told wherever the run is shown.

Owns the reasons and their words. What the engine drops later, because it does not fit or cannot be rendered, it counts
itself; both are told here. Invariant: no row is lost without a count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

REPEATED = "a prompt that came before"
WITHOUT_PROMPT = "a text, which has no prompt"
UNDESIRABLE = "an answer that is labelled undesirable"
Counts = Mapping[str, int]


class LeftOut:
    """The rows of each source that became no example, by reason."""

    def __init__(self, sources: int) -> None:
        self.each: list[Counter[str]] = [Counter() for _ in range(sources)]

    @property
    def total(self) -> dict[str, int]:
        """Of all sources."""
        return dict(sum(self.each, Counter()))

    def by_source(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """For the run's events; sources that lost nothing are not in it."""
        return {name: dict(counts) for name, counts in zip(names, self.each, strict=True) if counts}


def left_out_words(counts: Counts) -> str:
    """1,160 rows: a prompt that came before: 1,150, …; empty where there are none."""
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counts.items())
    total = sum(counts.values())
    return f"{total:,} {'row' if total == 1 else 'rows'} ({reasons})" if total else ""


def left_out_told(events: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Fields for a run: what its launch left out, and what its last attempt dropped, by its events."""
    launch: Counts = {}
    dropped: Counts = {}
    for event in events:
        if event.get("kind") == "created":
            launch = _added_up(event.get("left_out"))
        if event.get("kind") == "data":
            dropped = _added_up({side: event.get(f"dropped{side}") for side in ("", "_held_out")})
    words = {"left out": left_out_words(launch), "dropped": left_out_words(dropped)}
    return {name: text for name, text in words.items() if text}


def _added_up(by_part: Any) -> Counts:
    """Counts by reason of all parts; what is not of that form (a run of another program's) is passed over."""
    total: Counter[str] = Counter()
    for counts in by_part.values() if isinstance(by_part, Mapping) else ():
        if isinstance(counts, Mapping):
            total.update({str(reason): count for reason, count in counts.items() if isinstance(count, int)})
    return total
