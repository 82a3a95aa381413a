"""How far a pair set is judged: counts over its pairs and journals.

Owns the counting. Invariant: only first showings count; repeats, calibration pairs and adjudications are no verdicts
more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass

from workbench.judgments import Fold


@dataclass(frozen=True)
class PairStatus:
    """How far a pair set is judged."""

    pairs: int
    judged: int
    """Pairs with at least one verdict other than skip."""
    open: int
    skipped: int
    """Pairs that have only skips."""
    verdicts: dict[str, int]
    """Over all first showings that stand: a, b, tie, both_bad, skip."""
    by_annotator: dict[str, int]
    by_origin: dict[str, int]
    """"rule" is synthetic, and is called so wherever it is shown."""
    undone: int
    conflicts: int
    faults: tuple[str, ...]
    """Lines that could not be used, as FILE:LINE: cause."""
    unknown_pairs: int
    """First showings of pairs that are not in this set."""


def status_of(known: Set[str], said: Fold) -> PairStatus:
    """The counts of a set with these pairs."""
    judged, skipped = said.judged_pairs, said.skipped_pairs
    standing = [judgment for judgment in said.first if judgment.pair in known]
    return PairStatus(
        pairs=len(known),
        judged=len(judged & known),
        open=len(known - judged - skipped),
        skipped=len(skipped & known),
        verdicts=dict(Counter(judgment.verdict for judgment in standing)),
        by_annotator=dict(Counter(judgment.annotator for judgment in standing)),
        by_origin=dict(Counter(judgment.origin for judgment in standing)),
        undone=said.undone,
        conflicts=len(said.conflicts),
        faults=tuple(map(str, said.faults)),
        unknown_pairs=sum(1 for one in said.first if one.pair not in known),
    )
