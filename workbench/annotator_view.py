"""What the owner of a pair set watches while others label: the report on its annotators, and what they disagree on.

Owns the reading of it again and again: the pairs, which never change, are read once, the journals where they have
grown. Invariants: what stands on a disagreement that nobody has settled is not told here, so that whoever reads the
list can still be its third voice; a report is the one that `workbench pairs status` prints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from workbench.annotator_report import AnnotatorReport, AnswerFacts, facts_of, report_of
from workbench.canonical_rows import last_user_text
from workbench.claims import Claim, living_claims
from workbench.file_signatures import signature_of
from workbench.judgment_lines import Judgment
from workbench.judgments import Fold
from workbench.labeling_course import key_of, showing_by
from workbench.labeling_subject import ARENA, open_subject, pair_set_of
from workbench.others_verdicts import BY_HAND
from workbench.pair_sets import Pair, PairKind, PairSet
from workbench.pair_status import PairStatus, status_of
from workbench.pair_words import WORDS
from workbench.workspace import Workspace

LONGEST_PROMPT = 200


@dataclass(frozen=True)
class Disagreement:
    """One pair on which people differ in more than strength."""

    pair: str
    number: int
    """Its place in the set, from 1."""
    criteria: tuple[str, ...]
    people: tuple[str, ...]
    prompt: str
    """The first characters of what was asked last, one line."""
    settled_by: tuple[str, ...] = ()
    """Third voices with a verdict."""
    said: tuple[str, ...] = ()
    """Who said what, where it is settled; nothing before."""
    before: str = ""
    """The third voice that looks at it now."""

    def state(self, me: str) -> str:
        """What is to be done about it, in a few words."""
        if self.settled_by:
            return f"settled by {', '.join(self.settled_by)}"
        if self.before:
            return f"before {self.before} now"
        return "you judged it" if me in self.people else "open"

    def obstacle(self, me: str) -> str:
        """Why this annotator cannot settle it; empty where they can."""
        if me in self.people:
            return "you judged this pair yourself; somebody else has to be the third voice"
        if self.settled_by and me not in self.settled_by:
            return f"settled by {', '.join(self.settled_by)} already"
        return f"{self.before} is looking at it now" if self.before and self.before != me else ""


@dataclass(frozen=True)
class AnnotatorView:
    """A pair set and the people on it, at one moment."""

    subject: str
    """NAME, or arena/NAME."""
    status: PairStatus
    overlap: int
    full: int
    """Pairs that as many people have judged as the overlap wants; 0 where everyone judges everything."""
    report: AnnotatorReport
    disagreements: tuple[Disagreement, ...]
    """The open ones first, in the order of the set."""

    @property
    def open(self) -> int:
        """Disagreements that nobody has settled."""
        return sum(not one.settled_by for one in self.disagreements)


class AnnotatorReader:
    """Reads the view of one set again and again; what is as it was is not read anew."""

    def __init__(self, workspace: Workspace, subject: str, annotator: str) -> None:
        """`subject` is NAME or arena/NAME; empty: the set that `annotator` would label, decided once."""
        self._workspace, self._subject, self._annotator = workspace, subject, annotator
        self._seen: object = None
        self._view: AnnotatorView | None = None
        self._known: tuple[PairSet, Mapping[str, AnswerFacts], Mapping[str, tuple[int, str]]] | None = None

    def read(self) -> AnnotatorView | None:
        """The view now; None where there is no pair set at all. Raises WorkbenchError for a set that is damaged."""
        self._subject = self._subject or open_subject(self._workspace, self._annotator)
        if not self._subject:
            return None
        kind: PairKind = "arena" if self._subject.startswith(ARENA) else "pairs"
        folder = self._workspace.folder(kind) / self._subject.removeprefix(ARENA)
        claims = living_claims(folder) if folder.is_dir() else []
        toml = signature_of([folder / "pairs.toml"])
        journals = signature_of(sorted((folder / "judgments").glob("*.jsonl")))
        seen = toml, journals, {(one.annotator, one.pair) for one in claims}
        if self._view is None or seen != self._seen:
            if self._known is None or not isinstance(self._seen, tuple) or self._seen[0] != toml:
                self._known = _read_pairs(pair_set_of(self._workspace, self._subject))
            self._view = _view(self._subject, *self._known, claims)
            self._seen = seen
        return self._view


def _read_pairs(
    pair_set: PairSet,
) -> tuple[PairSet, Mapping[str, AnswerFacts], Mapping[str, tuple[int, str]]]:
    facts: dict[str, AnswerFacts] = {}
    heads: dict[str, tuple[int, str]] = {}
    for number, pair in enumerate(pair_set.pairs(), start=1):
        facts[pair.id] = facts_of(pair.a, pair.b)
        heads[pair.id] = number, _head(pair)
    return pair_set, facts, heads


def _head(pair: Pair) -> str:
    return " ".join(last_user_text(pair.prompt)[: 4 * LONGEST_PROMPT].split())[:LONGEST_PROMPT]


def _view(
    subject: str,
    pair_set: PairSet,
    facts: Mapping[str, AnswerFacts],
    heads: Mapping[str, tuple[int, str]],
    claims: list[Claim],
) -> AnnotatorView:
    said = pair_set.judgments()
    report = report_of(pair_set, said, facts=facts)
    overlap = pair_set.sharing.overlap
    judges: defaultdict[str, set[str]] = defaultdict(set)
    for one in said.first:
        if one.verdict != "skip" and one.origin in BY_HAND:
            judges[one.pair].add(one.annotator)
    return AnnotatorView(
        subject,
        status_of(heads.keys(), said),
        overlap,
        sum(len(people) >= overlap for people in judges.values()) if overlap else 0,
        report,
        _disagreements(report, said, heads, claims),
    )


def _disagreements(
    report: AnnotatorReport, said: Fold, heads: Mapping[str, tuple[int, str]], claims: list[Claim]
) -> tuple[Disagreement, ...]:
    criteria: defaultdict[str, list[str]] = defaultdict(list)
    for each in report.criteria:
        for pair in each.disagreements:
            criteria[pair].append(each.criterion)
    lines: defaultdict[str, list[Judgment]] = defaultdict(list)
    for one in said.current.values():
        if one.pair in criteria and one.verdict != "skip":
            lines[one.pair].append(one)
    looking = {showing_by(one.pair, "").pair: one.annotator for one in claims if _settles(one.pair)}
    found = [
        _disagreement(pair, heads[pair], tuple(on), lines[pair], looking.get(pair, "")) for pair, on in criteria.items()
    ]
    return tuple(sorted(found, key=lambda one: (bool(one.settled_by), one.number)))


def _settles(claimed: str) -> bool:
    """Whether what is claimed is a disagreement: those have the key of a later showing, and repeats are not claimed."""
    showing = showing_by(claimed, "")
    return bool(showing.repeat) and key_of(showing) == claimed


def _disagreement(
    pair: str, head: tuple[int, str], criteria: tuple[str, ...], said: list[Judgment], before: str
) -> Disagreement:
    settled = sorted({one.annotator for one in said if one.purpose == "adjudication"})
    voices = [one for one in said if one.purpose != "repeat" and one.criterion in criteria]
    voices.sort(key=lambda one: (one.purpose == "adjudication", one.annotator, one.criterion))
    return Disagreement(
        pair,
        head[0],
        criteria,
        tuple(sorted({one.annotator for one in voices if one.purpose == "label"})),
        head[1],
        tuple(settled),
        tuple(_said(one, len(criteria)) for one in voices) if settled else (),
        before,
    )


def _said(one: Judgment, criteria: int) -> str:
    on = f" on {one.criterion}" if criteria > 1 else ""
    settles = ", settling it" if one.purpose == "adjudication" else ""
    return f"{one.annotator}: {WORDS.get(one.verdict, one.verdict)}{on}{settles}"
