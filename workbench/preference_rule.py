"""The rule by which verdicts become preferences, and its application to one pair.

Owns the vocabulary of the rule (ties, overlap, agreement, criteria, strength, written answers, whose verdicts count)
and its meaning. Invariant: every pair ends as rows or under exactly one cause. A repeat is never merged into a first
verdict: only first showings are votes, and a third voice stands in their place where the rule says so, never beside
them. Refuses to know about files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from workbench.errors import UsageError
from workbench.judgment_lines import Judgment
from workbench.judgments import Fold, Showing, is_first

Ties = Literal["drop", "abstain"]
CAUSES = ("ties", "both_bad", "undecided", "skipped", "unjudged")
"""Why a pair has no row."""
Overlap = Literal["majority", "all", "each"]
Margins = Literal["strength", "none"]
Written = Literal["chosen", "ignore"]
Adjudication = Literal["decides", "ignore"]


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
    """Which question counts. Not with `criteria`."""
    criteria: dict[str, float] = field(default_factory=dict)
    """A combination of questions by weight: each annotator's verdicts become one by the sign of the weighted sum of
    strengths, those for b below 0; who has not answered all of them has said nothing."""
    margins: Margins = "strength"
    """"strength": a row's margin is the mean strength of the verdicts for its chosen answer, where the set has a scale
    with strengths; a three-way set gives none. "none": no row has a margin."""
    written: Written = "chosen"
    """"chosen": an answer that an annotator wrote is chosen, over the answer that lost, or where none did over each of
    the two at half the weight. "ignore": it is as if nobody had written one."""
    adjudication: Adjudication = "decides"
    """"decides": where the votes on a pair differ and a third voice was heard on it, only that voice is a vote.
    "ignore": it is as if nobody had been asked."""
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
        if self.margins not in ("strength", "none"):
            raise UsageError(f"margins = {self.margins!r}: must be strength or none.")
        if self.written not in ("chosen", "ignore"):
            raise UsageError(f"written = {self.written!r}: must be chosen or ignore.")
        if self.adjudication not in ("decides", "ignore"):
            raise UsageError(f"adjudication = {self.adjudication!r}: must be decides or ignore.")
        if any(not weight > 0 or weight == float("inf") for weight in self.criteria.values()):
            raise UsageError("criteria: each weight must be above 0 (helpful:2,honest:1).")
        if self.overlap == "each" and self.min_agreement:
            raise UsageError("min_agreement goes with overlap majority or all; with each, every vote counts by weight.")
        if not 0 <= self.eval_share < 1:
            raise UsageError(f"eval_share = {self.eval_share}: must be at least 0 and below 1 (0.1 holds out a tenth).")

    def to_toml(self) -> dict[str, Any]:
        return {**asdict(self), "annotators": list(self.annotators)}

    @classmethod
    def from_toml(cls, content: Mapping[str, Any]) -> FreezeRule:
        known = {key: content[key] for key in cls.__dataclass_fields__ if key in content}
        known.setdefault("adjudication", "ignore")  # as it was before there was one
        known["criteria"] = dict(known.get("criteria", {}))
        return cls(**{**known, "annotators": tuple(content.get("annotators", ()))})


def criterion_of(written: str) -> dict[str, Any]:
    """`criterion` or `criteria` of a rule, as a command has it: NAME, or NAME:WEIGHT,NAME:WEIGHT; empty for neither."""
    parts = [part.strip() for part in written.split(",") if part.strip()]
    if len(parts) == 1 and ":" not in parts[0]:
        return {"criterion": parts[0]}
    weights: dict[str, float] = {}
    for part in parts:
        name, _, weight = part.partition(":")
        try:
            weights[name.strip()] = float(weight or 1)
        except ValueError as error:
            raise UsageError(
                f"--criterion {part}: {weight!r} is no number; write NAME:WEIGHT, as helpful:2."
            ) from error
    if len(weights) != len(parts):
        raise UsageError(f"--criterion {written}: name each question once.")
    return {"criteria": weights} if weights else {}


@dataclass
class VerdictsOfPair:
    """What counts of all that was said about one pair."""

    votes: Counter[str] = field(default_factory=Counter)
    """a, b, tie, both_bad; skips are no votes."""
    skips: int = 0
    conflicts: int = 0
    origins: list[str] = field(default_factory=list)
    strengths: dict[str, list[float]] = field(default_factory=dict)
    """By verdict, of those that are votes."""
    written: list[str] = field(default_factory=list)
    """Better answers that annotators wrote, each once."""
    is_adjudicated: bool = False
    """Whether the votes are those of a third voice, in place of votes that differed."""

    def add(self, vote: Vote) -> None:
        """Count what one annotator said."""
        if vote.verdict == "skip":
            self.skips += 1
            return
        self.votes[vote.verdict] += 1
        self.origins.append(vote.origin)
        self.strengths.setdefault(vote.verdict, []).append(vote.strength)

    def hear(self, voices: Iterable[Vote]) -> None:
        """Let a third voice stand for votes that differ; one that skipped the pair has said nothing."""
        heard = [vote for vote in voices if vote.verdict != "skip"]
        if len(self.votes) < 2 or not heard:
            return
        self.votes, self.origins, self.strengths, self.is_adjudicated = Counter(), [], {}, True
        for vote in heard:
            self.add(vote)

    def margin(self, winner: str) -> float | None:
        """The mean strength of the votes for an answer; None where there are none."""
        strengths = self.strengths.get(winner)
        return sum(strengths) / len(strengths) if strengths else None


@dataclass(frozen=True)
class Outcome:
    """What becomes of one pair."""

    rows: tuple[tuple[Literal["a", "b"], float], ...] = ()
    """(preferred answer, weight)."""
    cause: str = ""
    """One of CAUSES, where there is no row."""


class Vote(NamedTuple):
    """What one annotator said of one pair, as far as the rule asks."""

    verdict: str
    strength: float
    origin: str


def verdicts_by_pair(said: Fold, rule: FreezeRule) -> dict[str, VerdictsOfPair]:
    """The verdicts that count, by pair; a showing on which one annotator's lines disagree casts no vote."""
    found: dict[str, VerdictsOfPair] = {}
    by_person: dict[tuple[str, str], dict[str, Judgment]] = {}
    third: dict[tuple[str, str], dict[str, Judgment]] = {}
    for showing, judgment in said.current.items():
        if rule.annotators and showing.annotator not in rule.annotators:
            continue
        who = showing.pair, showing.annotator
        if is_first(judgment):
            by_person.setdefault(who, {})[showing.criterion] = judgment
        elif judgment.purpose == "adjudication" and rule.adjudication == "decides":
            third.setdefault(who, {})[showing.criterion] = judgment
    for (pair, _), answers in by_person.items():
        of_pair = found.setdefault(pair, VerdictsOfPair())
        vote = _vote(answers, rule)
        if vote is None:
            continue
        of_pair.add(vote)
        if rule.written == "chosen" and vote.verdict != "skip":
            texts = [one.better for one in answers.values() if one.better]
            of_pair.written += [text for text in dict.fromkeys(texts) if text not in of_pair.written]
    voices: dict[str, list[Vote]] = {}
    for (pair, _), answers in third.items():
        if vote := _vote(answers, rule):
            voices.setdefault(pair, []).append(vote)
    for pair, heard in voices.items():
        if pair in found:
            found[pair].hear(heard)
    for showing in said.conflicts:
        if _counts(showing, rule) and _is_asked(showing.criterion, rule):
            found.setdefault(showing.pair, VerdictsOfPair()).conflicts += 1
    return found


def _counts(showing: Showing, rule: FreezeRule) -> bool:
    return showing.repeat == 0 and (not rule.annotators or showing.annotator in rule.annotators)


def _is_asked(criterion: str, rule: FreezeRule) -> bool:
    return criterion in rule.criteria if rule.criteria else criterion == rule.criterion


def _vote(answers: Mapping[str, Judgment], rule: FreezeRule) -> Vote | None:
    """What one person's answers on one pair come to; None where a question that counts was not answered."""
    if not rule.criteria:
        one = answers.get(rule.criterion)
        return Vote(one.verdict, float(one.strength), one.origin) if one else None
    asked = {name: answers[name] for name in rule.criteria if name in answers}
    if len(asked) < len(rule.criteria):
        return None
    origin = next(iter(asked.values())).origin
    verdicts = {one.verdict for one in asked.values()}
    if "skip" in verdicts:
        return Vote("skip", 0.0, origin)
    sign = {"a": 1, "b": -1}
    total = sum(
        weight * sign.get(asked[name].verdict, 0) * asked[name].strength for name, weight in rule.criteria.items()
    )
    if total == 0:
        return Vote("both_bad" if verdicts == {"both_bad"} else "tie", 1.0, origin)
    return Vote("a" if total > 0 else "b", abs(total) / sum(rule.criteria.values()), origin)


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


class FrozenPair(NamedTuple):
    """One row before it is one: texts are written answers, "a" and "b" the answers of the pair."""

    chosen: str
    rejected: Literal["a", "b"]
    weight: float
    margin: float | None
    written: bool
    """Whether `chosen` is an answer that somebody wrote, and not "a" or "b"."""


def rows_of(outcome: Outcome, said: VerdictsOfPair, *, has_strengths: bool) -> list[FrozenPair]:
    """The rows that an outcome and the written answers make; none where nothing can be learnt from the pair.

    A written answer is better than both: it needs a verdict beside it, but not one that names a winner.
    """
    other: dict[str, Literal["a", "b"]] = {"a": "b", "b": "a"}
    rows = outcome.rows
    if said.written:
        share = 1 / len(said.written)
        losers = [(other[winner], weight) for winner, weight in rows]
        if outcome.cause in ("ties", "both_bad", "undecided"):
            losers = [("a", 0.5), ("b", 0.5)]
        return [FrozenPair(text, loser, w * share, None, True) for text in said.written for loser, w in losers]
    margins = {winner: said.margin(winner) if has_strengths else None for winner, _ in rows}
    return [FrozenPair(winner, other[winner], weight, margins[winner], False) for winner, weight in rows]
