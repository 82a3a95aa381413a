"""How a pair set is shared out among annotators: overlap, repeats, calibration, and which pair comes next.

Owns the vocabulary (the table [sharing] of pairs.toml), what is allowed, and the draws: which pairs return to the same
person, when a calibration pair is mixed in, and the order of first showings. Invariant: every draw is a hash of the
set's seed and of what it is about, so that a program that starts again draws the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from workbench.errors import UsageError

NextPair = Literal["order", "random", "active"]
NEXT_PAIRS: tuple[NextPair, ...] = get_args(NextPair)
REPEAT_AFTER = 20
"""Showings after which a pair may return to the same person, so that it is judged and not remembered."""
LEAST_CALIBRATION_RATE = 0.05


@dataclass(frozen=True)
class Sharing:
    """How one pair set is shared out."""

    overlap: int = 0
    """People who judge each pair; 0: everyone judges every pair."""
    repeat_share: float = 0.0
    """Share of pairs that return once, swapped, to who judged them; 0 to 1."""
    next_pair: NextPair = "order"
    """"order": as the set lies. "random": a seeded shuffle. "active": the smallest margins first."""
    random_share: float = 0.2
    """With "active": share of places that a random pair takes, so that a sample without bias remains."""
    calibration_pairs: int = 0
    calibration_sha256: str = ""
    """Of calibration.parquet, the pairs with known answers."""

    def __post_init__(self) -> None:
        if self.overlap < 0:
            raise UsageError(f"overlap = {self.overlap}: must be 1 or more people for each pair, or 0 for everyone.")
        if not 0 <= self.repeat_share <= 1:
            raise UsageError(f"repeat_share = {self.repeat_share}: must be from 0 to 1 (0.05 repeats one in twenty).")
        if self.next_pair not in NEXT_PAIRS:
            raise UsageError(f"next_pair = {self.next_pair!r}: must be one of {', '.join(NEXT_PAIRS)}.")
        if not 0 < self.random_share <= 1:
            raise UsageError(
                f"random_share = {self.random_share}: must be above 0 and up to 1: without random pairs nothing "
                "measured on the verdicts would hold for the other pairs."
            )

    def to_toml(self) -> dict[str, Any]:
        """Every key, as pairs.toml has it."""
        return asdict(self)

    @classmethod
    def from_toml(cls, content: Mapping[str, Any]) -> Sharing:
        """Sharing as it was written; keys of newer programs are left alone."""
        return cls(**{one.name: content[one.name] for one in fields(cls) if one.name in content})


def is_repeated(pair: str, annotator: str, seed: int, share: float) -> bool:
    """Whether this pair returns to this person."""
    return share > 0 and drawn_number("repeat", seed, pair, annotator) < share


def calibration_order(pairs: Iterable[str], annotator: str, seed: int) -> list[str]:
    """The calibration pairs in the order in which this person meets them."""
    return sorted(pairs, key=lambda pair: drawn_number("calibration", seed, pair, annotator))


def is_calibration_due(showing: int, annotator: str, seed: int, rate: float) -> bool:
    """Whether this person's showing of that number (from 0) is a calibration pair, if one is left."""
    return drawn_number("calibrate", seed, str(showing), annotator) < rate


def calibration_rate(calibration_pairs: int, pairs: int) -> float:
    """Share of showings that are calibration pairs while there are some: as many as spread them over the set."""
    return max(LEAST_CALIBRATION_RATE, calibration_pairs / max(calibration_pairs + pairs, 1))


def sequence(
    pairs: Sequence[str], sharing: Sharing, seed: int, margins: Mapping[str, float] | None = None
) -> dict[str, str]:
    """Pair → how it was picked ("order", "random" or "active"), in the order of first showings.

    With "active" and `margins`, each place is drawn: with probability `random_share` the next pair of the shuffle
    stands there, else the pair whose margin is nearest to 0 among those left (pairs without a margin come last).
    """
    if sharing.next_pair == "order":
        return dict.fromkeys(pairs, "order")
    shuffled = sorted(pairs, key=lambda pair: drawn_number("sequence", seed, pair))
    if sharing.next_pair == "random" or not margins:
        return dict.fromkeys(shuffled, "random")
    nearest = sorted(pairs, key=lambda pair: abs(margins.get(pair, float("inf"))))
    queues = {"random": iter(shuffled), "active": iter(nearest)}
    placed: dict[str, str] = {}
    for place in range(len(pairs)):
        picked = "random" if drawn_number("place", seed, str(place)) < sharing.random_share else "active"
        placed[next(pair for pair in queues[picked] if pair not in placed)] = picked
    return placed


def drawn_number(what: str, seed: int, *of: str) -> float:
    """A number from 0 up to, not including, 1: the same for the same words."""
    digest = hashlib.sha256("\x1f".join((what, str(seed), *of)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
