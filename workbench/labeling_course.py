"""Which pair one annotator is shown next, and why: first showings, repeats, calibration pairs, adjudications.

Owns the keys by which a sitting names what it shows, and the course of one person through a set. A key is the id of a
pair, or "ID~N" for its N-th showing after the first. Invariants: a first showing is claimed before it is shown, where
the set has an overlap; what is asked of `extra` is the same whenever it is asked with the same verdicts standing, so
that a program that starts again goes on alike. A disagreement is claimed like a pair of overlap 1: it is before one
third voice at a time, and who comes after a verdict is not shown it. Refuses to know verdicts, but for whether one is a
skip.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Set
from itertools import chain

from workbench.claims import Claims
from workbench.errors import UsageError, WorkbenchError
from workbench.judgment_lines import Judgment
from workbench.judgments import Fold, Showing, showing_of
from workbench.label_form import OVERALL
from workbench.others_verdicts import first_showing
from workbench.pair_margins import read_margins
from workbench.pair_sets import Pair, PairSet
from workbench.pair_sharing import (
    REPEAT_AFTER,
    calibration_order,
    calibration_rate,
    is_calibration_due,
    is_repeated,
    sequence,
)

_AGAIN = "~"


def key_of(showing: Showing) -> str:
    """The key of the pair that a showing shows."""
    return f"{showing.pair}{_AGAIN}{showing.repeat}" if showing.repeat else showing.pair


def showing_by(key: str, annotator: str, criterion: str = OVERALL) -> Showing:
    """The showing of a key on one question."""
    pair, _, repeat = key.partition(_AGAIN)
    return Showing(pair, annotator, int(repeat or 0), criterion)


def disagreements(said: Fold) -> list[str]:
    """Pairs on which people differ in more than strength on some question, and which nobody has adjudicated."""
    verdicts: dict[tuple[str, str], set[str]] = {}
    for one in said.first:
        if one.verdict != "skip":
            verdicts.setdefault((one.pair, one.criterion), set()).add(one.verdict)
    settled = {one.pair for one in said.current.values() if one.purpose == "adjudication" and one.verdict != "skip"}
    return list(dict.fromkeys(pair for (pair, _), kinds in verdicts.items() if len(kinds) > 1 and pair not in settled))


class Course:
    """One annotator's way through a pair set."""

    def __init__(self, pair_set: PairSet, annotator: str, pairs: Collection[str], *, adjudicates: bool = False) -> None:
        self._seed, self._annotator, self._sharing = pair_set.info.seed, annotator, pair_set.sharing
        self.adjudicates = adjudicates
        self.calibration: dict[str, Pair] = {}
        if adjudicates:
            self.picked = dict.fromkeys(_to_adjudicate(pair_set, annotator, pairs), "")
        else:
            self.calibration = {pair.id: pair for pair in pair_set.calibration()}
            margins = read_margins(pair_set) if self._sharing.next_pair == "active" else {}
            self.picked = sequence(tuple(pairs), self._sharing, self._seed, margins)
        self.keys = tuple(self.picked)
        self.place = {key: place for place, key in enumerate(self.keys)}
        share = 0.0 if adjudicates else self._sharing.repeat_share
        self._repeated = {key for key in self.keys if is_repeated(key, annotator, self._seed, share)}
        self._keys_of_calibration = calibration_order(self.calibration, annotator, self._seed)
        self._rate = calibration_rate(len(self.calibration), len(self.keys))
        self._waiting: dict[str, int] = {}
        """First showings whose repeat is to come → how many showings were done when they were judged."""
        self._claims = _claims_of(pair_set, annotator, 1 if adjudicates else self._sharing.overlap, adjudicates)
        self.trouble = ""
        """Why the next pair could not be claimed; empty where it could."""

    def close(self) -> None:
        """Let go of what is claimed."""
        if self._claims is not None:
            self._claims.close()

    @property
    def notice(self) -> str:
        """What this annotator should know before the first pair; empty for nothing."""
        if self._claims is None:
            return ""
        told = []
        if self._claims.is_elsewhere:
            told.append(f"{self._annotator} is at work in another program, too")
        if self._claims.overlap and self._claims.this_host_only:
            told.append("claims hold on this host only: let other hosts judge other sets")
        return "; ".join(told)

    def belongs(self, judgment: Judgment) -> bool:
        """Whether a judgment of this annotator is one of this course: adjudications are a course of their own."""
        return (judgment.purpose == "adjudication") == self.adjudicates

    def purpose_of(self, key: str) -> str:
        """Why this is shown, as the journal keeps it."""
        if self.adjudicates:
            return "adjudication"
        if key in self.calibration:
            return "calibration"
        return "repeat" if _AGAIN in key else "label"

    # Which comes next.

    def claim(self, candidates: Iterable[str]) -> str:
        """Let go of what is shown, and claim the first key that may be shown; empty where none may, or none could."""
        self.trouble = ""
        if self._claims is None:
            return next(iter(candidates), "")
        try:
            return self._claims.choose(candidates)
        except (WorkbenchError, OSError) as error:
            self.trouble = str(error)
            return ""

    def require(self, key: str) -> None:
        """Claim one pair that this annotator will judge (again); UsageError where it is with enough others."""
        if key in self.place and not self.claim([key]):
            raise UsageError(self.trouble or "that pair is before others now, or they have judged it meanwhile")

    def leave(self) -> None:
        """Show none of the first showings that could be shown to others."""
        if self._claims is not None:
            self._claims.leave()

    def is_full(self, key: str) -> bool:
        """Whether others have judged the pair as often as the set wants."""
        return self._claims is not None and self._claims.is_full(key)

    def open_keys(self, done: Set[str], start: int) -> Iterator[str]:
        """First showings that are not done, from a place on and then from the front."""
        if len(done) >= len(self.keys) and self.picked.keys() <= done:
            return
        for place in chain(range(start, len(self.keys)), range(start)):
            key = self.keys[place]
            if key not in done and not self.is_full(key):
                yield key

    def extra(self, done: Set[str], number: int) -> str:
        """The repeat or the calibration pair that is due as showing `number` (from 0); empty for none."""
        for key, judged_at in self._waiting.items():
            if number - judged_at < REPEAT_AFTER:
                break
            if again(key) not in done:
                return again(key)
        if self.calibration and is_calibration_due(number, self._annotator, self._seed, self._rate):
            return next((key for key in self._keys_of_calibration if key not in done), "")
        return ""

    def last_extra(self, done: Set[str]) -> str:
        """What is left when no first showing is."""
        left = chain((key for key in map(again, self._waiting) if key not in done), self._keys_of_calibration)
        return next((key for key in left if key not in done), "")

    def remaining(self, done: Set[str]) -> int:
        """Showings that this annotator still has, as far as is known of the others."""
        full = self._claims.full if self._claims is not None else frozenset[str]()
        if not full and not self._repeated and not self.calibration:
            return len(self.keys) - len(done)
        first = len(self.keys) - len((full | done) & self.picked.keys())
        waiting = sum(1 for key in self._waiting if again(key) not in done)
        to_come = sum(1 for key in self._repeated if key not in done and key not in full and again(key) not in done)
        return first + waiting + to_come + sum(1 for key in self._keys_of_calibration if key not in done)

    # What was judged.

    def begin(self, keys: Iterable[str], is_skip: Callable[[str], bool]) -> None:
        """Everything that stands, in the order in which it was judged."""
        self._waiting = {}
        for number, key in enumerate(keys, start=1):
            self.judged(key, number, is_skip(key))

    def judged(self, key: str, number: int, is_skip: bool) -> None:
        """A key was judged as the number-th; a pair that was skipped does not return."""
        if key in self._repeated and not is_skip:
            self._waiting.setdefault(key, number)

    def taken_back(self, key: str) -> None:
        """A key was judged and is not any more."""
        self._waiting.pop(key, None)


def again(key: str) -> str:
    """The key of a pair's repeat."""
    return f"{key}{_AGAIN}1"


def _adjudicated(line: Judgment) -> str:
    """The key of the disagreement that a line settles."""
    return key_of(showing_of(line)) if line.purpose == "adjudication" else ""


def _claims_of(pair_set: PairSet, annotator: str, overlap: int, adjudicates: bool) -> Claims | None:
    """None where nothing may be written, and where a set without overlap cannot say who is at work (a full disk)."""
    if pair_set.workspace.read_only_reason:
        return None
    try:
        return Claims(pair_set.folder, annotator, overlap, _adjudicated if adjudicates else first_showing)
    except (WorkbenchError, OSError):
        if overlap:
            raise
        return None


def _to_adjudicate(pair_set: PairSet, annotator: str, pairs: Collection[str]) -> list[str]:
    """Keys of the pairs that others disagree on and this annotator has at most skipped, in the order of the set."""
    said = pair_set.judgments()
    mine = {one.pair for one in said.first if one.annotator == annotator and one.verdict != "skip"}
    own = {one.pair for one in said.current.values() if one.purpose == "adjudication" and one.annotator == annotator}
    wanted = {*disagreements(said), *own} - mine
    return [again(pair) for pair in pairs if pair in wanted]
