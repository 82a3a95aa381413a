"""The rule by which verdicts become preferences, and its application to one pair.

Owns the vocabulary of the rule (ties, overlap, agreement, whose verdicts count) and its meaning. Invariant: every pair
ends as rows or under exactly one cause. A repeat is never merged into a first verdict: only repeat 0 of one criterion
counts. Refuses to know about files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from workbench.errors import UsageError
from workbench.judgments import Fold

Ties = Literal["drop", "abstain"]
CAUSES = ("ties", "both_bad", "undecided", "skipped", "unjudged")
"""Why a pair has no row."""
Overlap = Literal["majority", "all", "each"]


@dataclass(frozen=True)
class FreezeRule:
    """How verdicts become preferences; written out into prefs.toml."""

    ties: Ties = "drop"
    """"drop": a tie (or "both bad") is a vote, and a pair that it wins is left out. "abstain": it is no vote."""
    overlap: Overlap = "majority"
    """"majority": most votes win. "all": only where everyone agrees. "each": a row for each side that was voted for,
    weighted by its share of the votes for a side."""
    min_agreement: float = 0.0
    """Least share of a pair's votes that the winner must have; 0 to 1. Not for overlap "each"."""
    annotators: tuple[str, ...] = ()
    """Whose verdicts count; empty for everyone's."""
    criterion: str = "overall"
    eval_share: float = 0.1
    """Share of prompts that are held out; 0 to below 1."""
    seed: int = 0
    """Of the split."""

    def __post_init__(self) -> None:
        if self.ties not in ("drop", "abstain"):
            raise UsageError(f"ties = {self.ties!r}: must be drop (a tie is a vote) or abstain (it is none).")
        if self.overlap not in ("majority", "all", "each"):
            raise UsageError(f"overlap = {self.overlap!r}: must be majority, all or each.")
        if not 0 <= self.min_agreement <= 1:
            raise UsageError(f"min_agreement = {self.min_agreement}: must be from 0 to 1.")
        if self.overlap == "each" and self.min_agreement:
            raise UsageError("min_agreement goes with overlap majority or all; with each, every vote counts by weight.")
        if not 0 <= self.eval_share < 1:
            raise UsageError(f"eval_share = {self.eval_share}: must be at least 0 and below 1 (0.1 holds out a tenth).")

    def to_toml(self) -> dict[str, Any]:
        return {**asdict(self), "annotators": list(self.annotators)}

    @classmethod
    def from_toml(cls, content: Mapping[str, Any]) -> FreezeRule:
        known = {key: content[key] for key in cls.__dataclass_fields__ if key in content}
        return cls(**{**known, "annotators": tuple(content.get("annotators", ()))})


@dataclass
class VerdictsOfPair:
    """What counts of all that was said about one pair."""

    votes: Counter[str] = field(default_factory=Counter)
    """a, b, tie, both_bad; skips are no votes."""
    skips: int = 0
    conflicts: int = 0
    origins: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What becomes of one pair."""

    rows: tuple[tuple[Literal["a", "b"], float], ...] = ()
    """(preferred answer, weight)."""
    cause: str = ""
    """One of CAUSES, where there is no row."""


def verdicts_by_pair(said: Fold, rule: FreezeRule) -> dict[str, VerdictsOfPair]:
    """The verdicts that count, by pair; a showing on which one annotator's lines disagree casts no vote."""
    found: dict[str, VerdictsOfPair] = {}
    for showing, judgment in said.current.items():
        if _counts(showing.annotator, showing.repeat, showing.criterion, rule):
            of_pair = found.setdefault(showing.pair, VerdictsOfPair())
            if judgment.verdict == "skip":
                of_pair.skips += 1
            else:
                of_pair.votes[judgment.verdict] += 1
                of_pair.origins.append(judgment.origin)
    for showing in said.conflicts:
        if _counts(showing.annotator, showing.repeat, showing.criterion, rule):
            found.setdefault(showing.pair, VerdictsOfPair()).conflicts += 1
    return found


def _counts(annotator: str, repeat: int, criterion: str, rule: FreezeRule) -> bool:
    return repeat == 0 and criterion == rule.criterion and (not rule.annotators or annotator in rule.annotators)


def decide(said: VerdictsOfPair, rule: FreezeRule) -> Outcome:
    """What becomes of a pair under the rule."""
    votes = dict(said.votes)
    if rule.ties == "abstain":
        sided = {verdict: count for verdict, count in votes.items() if verdict in ("a", "b")}
        if votes and not sided:
            return Outcome(cause="ties" if "tie" in votes else "both_bad")
        votes = sided
    if not votes:
        return Outcome(cause="undecided" if said.conflicts else "skipped" if said.skips else "unjudged")
    total = sum(votes.values())
    if rule.overlap == "each":
        return _each(votes)
    most = max(votes.values())
    leaders = sorted(verdict for verdict, count in votes.items() if count == most)
    if len(leaders) > 1 or (rule.overlap == "all" and len(votes) > 1) or most / total < rule.min_agreement:
        return Outcome(cause="undecided")
    winner = leaders[0]
    if winner in ("a", "b"):
        return Outcome(rows=(("a" if winner == "a" else "b", 1.0),))
    return Outcome(cause="ties" if winner == "tie" else "both_bad")


def _each(votes: Mapping[str, int]) -> Outcome:
    sides = votes.get("a", 0) + votes.get("b", 0)
    if not sides:
        return Outcome(cause="ties" if "tie" in votes else "both_bad")
    rows: list[tuple[Literal["a", "b"], float]] = []
    if votes.get("a"):
        rows.append(("a", votes["a"] / sides))
    if votes.get("b"):
        rows.append(("b", votes["b"] / sides))
    return Outcome(rows=tuple(rows))
