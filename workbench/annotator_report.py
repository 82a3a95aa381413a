"""What the owner of a pair set sees of its annotators: who, how much, how fast, how alike, and how one-sided.

Owns the reading of judgments as ratings. Invariants: agreement is of first showings alone; a repeat counts only for its
person's agreement with themselves, a calibration pair only for its known answer; a share without cases is None, and
every share says of how many. Verdicts of rules and of the data are compared like anyone's, but have no pace and no
habits. Times are for showing: nothing is decided by the clock, and one that was set back only loses a gap.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import combinations, pairwise
from statistics import median
from typing import Any, NamedTuple

from workbench.agreement import Agreement, agreement, cohen_kappa, percent_agreement
from workbench.canonical_rows import Completion, text_of
from workbench.claims import living_claims
from workbench.judgment_lines import Judgment
from workbench.judgments import Fold, is_first
from workbench.others_verdicts import BY_HAND
from workbench.pair_sets import PairSet
from workbench.statistics import wilson_interval

PAUSE_S = 1800
"""A longer gap between two verdicts ends a sitting."""
LONGEST_THOUGHT_S = 600
LEAST_FOR_DRIFT = 9
"""Verdicts that a sitting needs before its first and last third are compared."""
_BULLETS = re.compile(r"^[ \t]*(?:[-*+•‣]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_SIGN = {"a": -1, "tie": 0, "both_bad": 0, "b": 1}
_NOMINAL = {"a": 0, "b": 1, "tie": 2, "both_bad": 3}


class Share(NamedTuple):
    """How many of how many."""

    of: int
    share: float | None
    """None where there are no cases."""
    low: float
    high: float
    """Wilson's 95 % interval."""


class AnswerFacts(NamedTuple):
    """What is asked of a pair's answers: -1 for a, 1 for b, 0 for neither."""

    longer: int
    bulleted: int


class Drift(NamedTuple):
    """The first and the last third of a person's sittings, taken together."""

    sittings: int
    """Sittings that were long enough."""
    seconds_first: float
    seconds_last: float
    """Median seconds between verdicts; NaN where there is no gap."""
    left_first: Share
    left_last: Share


@dataclass(frozen=True)
class Habits:
    """What a person's picks have in common; half of each is what chance gives."""

    left: Share
    """Picks of what stood left (or above)."""
    longer: Share
    """Picks of the longer answer, of pairs whose answers differ in length."""
    bulleted: Share
    """Picks of the answer with a list, of pairs in which exactly one has one."""
    ties: Share


@dataclass(frozen=True)
class Person:
    """One annotator."""

    annotator: str
    judged: int
    """Pairs with a verdict of theirs, skips not among them."""
    skipped: int
    shown_now: bool
    """Whether they have the set open now, on this host."""
    last_seen: str
    """ISO 8601; empty where they never wrote."""
    per_hour: float
    """Of the median gap between verdicts; 0 where there are too few."""
    self_agreement: Share
    """Repeats on which they said the same as before."""
    calibration: Share
    """Calibration pairs answered as the key says."""
    habits: Habits
    drift: Drift | None
    by_hand: bool
    """Whether this is a person, and not a rule or what came with the data."""


@dataclass(frozen=True)
class PairOfPeople:
    """Two annotators on one criterion."""

    first: str
    second: str
    criterion: str
    pairs: int
    percent: float
    kappa: float
    """Cohen's, nominal over a, b, tie and both bad."""


@dataclass(frozen=True)
class OnCriterion:
    """Everyone together on one criterion."""

    criterion: str
    nominal: Agreement
    """Over a, b, tie and both bad."""
    ordinal: Agreement
    """Over b against a by strength, tie (and both bad) between."""
    disagreements: tuple[str, ...]
    """Pairs on which people differ in more than strength."""


@dataclass(frozen=True)
class AnnotatorReport:
    """All of it."""

    people: tuple[Person, ...]
    criteria: tuple[OnCriterion, ...]
    between: tuple[PairOfPeople, ...]
    adjudicated: int
    """Disagreements that a third voice has settled."""

    def as_json(self) -> dict[str, Any]:
        """Plain values; what is not a number is null where it is written."""
        return {
            "people": [_plain(one) for one in self.people],
            "criteria": [asdict(one) for one in self.criteria],
            "between": [asdict(one) for one in self.between],
            "adjudicated": self.adjudicated,
        }


def report_of(
    pair_set: PairSet,
    said: Fold | None = None,
    *,
    draws: int = 1000,
    facts: Mapping[str, AnswerFacts] | None = None,
) -> AnnotatorReport:
    """Reads a pair set and its journals into the report; what is given of either is not read."""
    said = said or pair_set.judgments()
    facts = facts if facts is not None else {pair.id: facts_of(pair.a, pair.b) for pair in pair_set.pairs()}
    known = {pair.id: pair.imported for pair in pair_set.calibration()}
    by_person: defaultdict[str, list[Judgment]] = defaultdict(list)
    for judgment in said.current.values():
        by_person[judgment.annotator].append(judgment)
    here = {claim.annotator for claim in living_claims(pair_set.folder)}
    first = [one for one in said.first if one.pair in facts and one.verdict in _SIGN]
    criteria = criteria_of(first)
    people = [_person(who, by_person.get(who, []), facts, known, who in here) for who in sorted({*by_person, *here})]
    return AnnotatorReport(
        people=tuple(people),
        criteria=tuple(_on_criterion(name, criteria[name], draws) for name in sorted(criteria)),
        between=tuple(one for name in sorted(criteria) for one in _between(name, criteria[name])),
        adjudicated=len({one.pair for one in said.current.values() if one.purpose == "adjudication"}),
    )


def criteria_of(judgments: Iterable[Judgment]) -> dict[str, dict[str, dict[str, Judgment]]]:
    """criterion → pair → annotator → verdict, of judgments that are verdicts."""
    found: dict[str, dict[str, dict[str, Judgment]]] = {}
    for one in judgments:
        found.setdefault(one.criterion, {}).setdefault(one.pair, {})[one.annotator] = one
    return found


def _on_criterion(name: str, pairs: Mapping[str, Mapping[str, Judgment]], draws: int) -> OnCriterion:
    nominal = [{who: _NOMINAL[one.verdict] for who, one in said.items()} for said in pairs.values()]
    ordinal = [{who: _SIGN[one.verdict] * one.strength for who, one in said.items()} for said in pairs.values()]
    return OnCriterion(
        name,
        agreement(nominal, "nominal", draws=draws),
        agreement(ordinal, "ordinal", draws=draws),
        tuple(pair for pair, said in pairs.items() if len({one.verdict for one in said.values()}) > 1),
    )


def _between(criterion: str, pairs: Mapping[str, Mapping[str, Judgment]]) -> list[PairOfPeople]:
    people = sorted({who for said in pairs.values() for who in said})
    found = []
    for first, second in combinations(people, 2):
        both = [
            (said[first].verdict, said[second].verdict) for said in pairs.values() if {first, second} <= said.keys()
        ]
        if both:
            units = [{first: _NOMINAL[a], second: _NOMINAL[b]} for a, b in both]
            kappa = cohen_kappa([a for a, _ in both], [b for _, b in both])
            found.append(PairOfPeople(first, second, criterion, len(both), percent_agreement(units), kappa))
    return found


def facts_of(a: Completion, b: Completion) -> AnswerFacts:
    """Which answer is longer, and which has a list."""
    first, second = text_of(a), text_of(b)
    lists = [bool(_BULLETS.search(text)) for text in (first, second)]
    return AnswerFacts((len(second) > len(first)) - (len(second) < len(first)), lists[1] - lists[0])


def _person(
    who: str, said: Sequence[Judgment], facts: Mapping[str, AnswerFacts], known: Mapping[str, str], here: bool
) -> Person:
    first = [one for one in said if is_first(one) and one.pair in facts]
    verdicts = [one for one in first if one.verdict in _SIGN]
    hand = [one for one in said if one.origin in BY_HAND and one.verdict in _SIGN]
    sittings = list(_sittings(hand))
    gaps = [gap for sitting in sittings for gap in _gaps(sitting)]
    typical = median(gaps) if len(gaps) >= 3 else 0.0
    calibration = [one for one in said if one.purpose == "calibration" and one.pair in known and one.verdict in _SIGN]
    return Person(
        annotator=who,
        judged=len({one.pair for one in verdicts}),
        skipped=len({one.pair for one in first} - {one.pair for one in verdicts}),
        shown_now=here,
        last_seen=max((one.time for one in said), default=""),
        per_hour=3600 / typical if typical > 0 else 0.0,
        self_agreement=_share(_repeats(said)),
        calibration=_share(one.verdict == known[one.pair] for one in calibration),
        habits=_habits(verdicts, facts),
        drift=_drift(sittings),
        by_hand=here or any(one.origin in BY_HAND for one in said),
    )


def _repeats(said: Sequence[Judgment]) -> list[bool]:
    """For each repeat of a pair whose first verdict stands: whether it said the same."""
    first = {(one.pair, one.criterion): one.verdict for one in said if is_first(one)}
    return [
        first[one.pair, one.criterion] == one.verdict
        for one in said
        if one.purpose == "repeat" and one.verdict in _SIGN and first.get((one.pair, one.criterion)) in _SIGN
    ]


def _habits(verdicts: Sequence[Judgment], facts: Mapping[str, AnswerFacts]) -> Habits:
    picks = [one for one in verdicts if one.verdict in ("a", "b")]
    longer = [(facts[one.pair].longer, _SIGN[one.verdict]) for one in picks if facts[one.pair].longer]
    bulleted = [(facts[one.pair].bulleted, _SIGN[one.verdict]) for one in picks if facts[one.pair].bulleted]
    return Habits(
        left=_left(picks),
        longer=_share(fact == pick for fact, pick in longer),
        bulleted=_share(fact == pick for fact, pick in bulleted),
        ties=_share(one.verdict not in ("a", "b") for one in verdicts),
    )


def _left(said: Iterable[Judgment]) -> Share:
    return _share(one.verdict == one.order[0] for one in said if one.order and one.verdict in ("a", "b"))


def _share(cases: Iterable[bool]) -> Share:
    found = list(cases)
    low, high = wilson_interval(sum(found), len(found))
    return Share(len(found), sum(found) / len(found) if found else None, low, high)


def _sittings(said: Sequence[Judgment]) -> Iterable[list[Judgment]]:
    """Verdicts by hand in the order of their times, cut where a pause was long."""
    ordered = sorted(said, key=lambda one: one.time)
    sitting: list[Judgment] = []
    for one in ordered:
        if sitting and _seconds(sitting[-1], one) > PAUSE_S:
            yield sitting
            sitting = []
        sitting.append(one)
    if sitting:
        yield sitting


def _gaps(sitting: Sequence[Judgment]) -> list[float]:
    return [min(_seconds(one, other), LONGEST_THOUGHT_S) for one, other in pairwise(sitting)]


def _seconds(earlier: Judgment, later: Judgment) -> float:
    """Between two lines; 0 where a clock says nothing that can be read."""
    try:
        return (datetime.fromisoformat(later.time) - datetime.fromisoformat(earlier.time)).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _drift(sittings: Sequence[Sequence[Judgment]]) -> Drift | None:
    long = [one for one in sittings if len(one) >= LEAST_FOR_DRIFT]
    if not long:
        return None
    begun = [one[: len(one) // 3] for one in long]
    ended = [one[-(len(one) // 3) :] for one in long]
    halves = [[gap for sitting in part for gap in _gaps(sitting)] for part in (begun, ended)]
    seconds = [median(gaps) if gaps else float("nan") for gaps in halves]
    lefts = [_left(one for sitting in part for one in sitting) for part in (begun, ended)]
    return Drift(len(long), seconds[0], seconds[1], lefts[0], lefts[1])


def _plain(person: Person) -> dict[str, Any]:
    """NamedTuples by name, not as lists."""
    plain = asdict(person)
    for name in ("self_agreement", "calibration"):
        plain[name] = getattr(person, name)._asdict()
    plain["habits"] = {name: getattr(person.habits, name)._asdict() for name in plain["habits"]}
    if person.drift is not None:
        drift = person.drift._asdict()
        plain["drift"] = {key: one._asdict() if isinstance(one, Share) else one for key, one in drift.items()}
    return plain
