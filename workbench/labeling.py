"""One annotator's sitting on one pair set or arena: which pair is next, which answer stands left, what was said.

Owns the draw of sides, the way from a side to a column, which question of a pair is asked, resuming, undo and the
counts. Invariants: `judge` returns when the verdict is on the disk, and where it raises, it was not saved and the
present pair is the same; the draw of sides depends on the set's seed, the pair, the annotator and the repeat alone, so
a pair that is shown again looks the same. Refuses to know what a screen looks like. A lock holds other threads off
while the disk is written.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress

from workbench.canonical_rows import text_of
from workbench.errors import UsageError, WorkbenchError
from workbench.judgment_lines import Judgment
from workbench.judgments import Journal, Order, Showing, showing_of
from workbench.label_form import Criterion
from workbench.label_notes import NONE, Drafts, Notes, notes_of
from workbench.labeling_course import Course, key_of, showing_by
from workbench.labeling_history import Change, Deed, History, line_of
from workbench.labeling_standing import Standing, column_of
from workbench.labeling_state import Counts, JudgedElsewhere, Pace, Said, Saved, ScreenVerdict, ShownPair
from workbench.labeling_subject import ADJUDICATE, ARENA, prompt_text
from workbench.own_journals import OwnJournals
from workbench.pair_sets import PairSet
from workbench.steps import Progress, Steps
from workbench.workspace import check_name


class Sitting:
    """One annotator on one pair set; a context manager that gives the journal back."""

    def __init__(
        self, pair_set: PairSet, annotator: str, progress: Progress | None = None, *, adjudicates: bool = False
    ) -> None:
        """With `adjudicates`, the pairs that others disagree on are shown, as the third voice hears them: blind."""
        self.pair_set = pair_set
        self.annotator = check_name(annotator, "annotator")
        self._pairs = {pair.id: pair for pair in Steps(pair_set.info.rows, progress).over(pair_set.pairs())}
        pairs = tuple(self._pairs)
        self._course = Course(pair_set, annotator, pairs, adjudicates=adjudicates)
        self._order = self._course.keys if adjudicates else pairs
        self._pairs |= self._course.calibration
        self._place = {pair: place for place, pair in enumerate(self._order)}
        self._questions = pair_set.form.questions
        self._lock = threading.Lock()
        self._journals = OwnJournals(pair_set, annotator, self._pairs, self._course.belongs)
        self._drafts = Drafts(pair_set, annotator)
        self._history = History()
        self._standing = Standing(self._journals, self._course, self._questions, pair_set.info.seed)
        self._again: deque[str] = deque()
        self._pace = Pace()
        self._notes = NONE
        self._present, self._question = "", 0
        self._next_place = 0
        self.missed = ""
        """Why the disagreement that was asked for is not the one that is shown; empty where it is."""
        self._move_on()

    def __enter__(self) -> Sitting:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the journal back; waits for a verdict that is being written."""
        with self._lock:
            self._journals.close()
            self._course.close()

    def open_journal(self) -> None:
        """Open the journal ahead, so that the first verdict does not wait for it."""
        with self._lock:
            self._journals.open()

    # What is there to judge.

    @property
    def name(self) -> str:
        """The subject of this sitting: NAME, or arena/NAME."""
        asked = ADJUDICATE if self._course.adjudicates else ""
        return asked + (ARENA if self.pair_set.kind == "arena" else "") + self.pair_set.name

    @property
    def adjudicates(self) -> bool:
        """Whether disagreements of others are shown."""
        return self._course.adjudicates

    @property
    def notice(self) -> str:
        """What one should be told: another program under the name, claims of this host only, a claim that failed."""
        return self._course.trouble or self.missed or self._course.notice

    @property
    def present(self) -> ShownPair | None:
        """The pair to be judged now; None when all are."""
        return self._shown(self._present) if self._present else None

    @property
    def number(self) -> int:
        """The place of the present pair in the set, or of the disagreement among all, from 1; 0 where it has none."""
        return self._place.get(self._present, -1) + 1

    @property
    def question(self) -> Criterion:
        """What is asked about the present pair."""
        return self._questions[self._question]

    def standing_at(self, number: int) -> dict[str, Judgment]:
        """What stands on the pair at a place of the set, from 1, by criterion."""
        held = self._standing.held(self._order[number - 1])
        return {asked.name: one for asked, one in held if one is not None}

    def prompt_at(self, number: int) -> str:
        """The prompt of the pair at a place of the set."""
        return prompt_text(self._pairs[self._showing(self._order[number - 1]).pair].prompt)

    def drafted(self) -> set[int]:
        """The places of pairs with notes that wait for a verdict."""
        return {self._place[pair] + 1 for pair in self._drafts.pairs() if pair in self._place}

    def place_of(self, pair: str) -> int:
        """The place of a pair, or of the disagreement on it, from 1; 0 where it has none."""
        return next((place for key, place in self._place.items() if self._showing(key).pair == pair), -1) + 1

    @property
    def revises(self) -> bool:
        """Whether the question that is asked was answered before."""
        return bool(self._present) and self._showing(self._present) in self._journals.standing

    @property
    def upcoming(self) -> ShownPair | None:
        """The pair that will most likely be next, for laying it out ahead."""
        done = self._standing.done | {self._present}
        following = self._course.extra(done, len(done)) or next(self._course.open_keys(done, self._next_place), "")
        if not following and self._again:
            following = next((one for one in self._again if one != self._present), "")
        return self._shown(following) if following else None

    @property
    def notes(self) -> Notes:
        """What will go with the present pair's verdict."""
        return self._notes

    @property
    def counts(self) -> Counts:
        """How far it is, and how fast."""
        return Counts(
            total=len(self._standing.done) + self._course.remaining(self._standing.done),
            done=len(self._standing.done),
            by_verdict={verdict: count for verdict, count in self._standing.tally.items() if count},
            skipped=len(self._skipped()),
            per_hour=self._pace.per_hour / len(self._questions),
        )

    def on_screen(self, judgment: Judgment) -> Said:
        """A verdict of this annotator as it was seen."""
        return self._standing.on_screen(judgment)

    # What one says.

    def judge(self, verdict: ScreenVerdict, took_s: float = 0.0, strength: int = 1) -> Saved:
        """Save a verdict on the present question and move on. Raises where it is not on the disk: the pair stays.

        A skip is of all questions of the pair that are not answered. JudgedElsewhere says that the verdict of another
        program stands; then too the next pair is present.
        """
        with self._lock:
            pair, showing = self._require_present(), self._showing(self._present)
            if not 1 <= strength <= self.pair_set.form.most or (strength > 1 and verdict not in ("left", "right")):
                raise UsageError(f"strength {strength} of {verdict!r}: the scale of {self.name} has none such.")
            stood = showing in self._journals.standing
            self._look_at_others()
            if not stood and showing in self._journals.standing and not self._journals.is_unsure(showing):
                said = self._standing.on_screen(self._journals.standing[showing]).words
                self._move_on()
                raise JudgedElsewhere(
                    f"judged meanwhile under the name {self.annotator} in another program ({said}): that stands, and "
                    "this key saved nothing; u takes it back"
                )
            self._do(self._deed(pair, verdict, strength))
            self._drafts.drop(pair)
            self._pace.took(took_s)
            if pair in self._again and (verdict == "skip" or not self._standing.is_skip(pair)):
                self._again.remove(pair)
            self._move_on(after=pair)
            return Saved(len(self._standing.done), Said(verdict, strength), took_s)

    def undo(self) -> Said:
        """Take back what was done last, and show its pair; returns the verdict that was taken back.

        Before what this sitting did lie the verdicts of earlier ones, the latest first.
        """
        with self._lock:
            self._look_at_others()
            if self._history.done:
                deed = self._history.done[-1]
            elif self._journals.history:
                last = next(reversed(self._journals.history))
                deed = (Change(last, None, self._journals.standing[last]),)
            else:
                raise UsageError(f"no verdict of {self.annotator} stands on this set")
            if any(change.before is None for change in deed):
                self._require(key_of(deed[0].showing))
            try:
                self._write(tuple(change.reversed for change in reversed(deed)))
            except BaseException:
                self._course.claim([self._present] if self._present else [])
                raise
            if self._history.done:
                self._history.done.pop()
            self._history.undone.append(deed)
            self._pace.take_back()
            showing, before, taken = deed[0]
            assert taken is not None, "a deed says something"
            self._show(showing)
            if before is None:
                self._next_place = self._course.place.get(self._present, self._next_place)
                self._notes = notes_of(taken)
                with suppress(WorkbenchError, OSError):  # they stand in the journal, too
                    self._drafts.keep(self._present, self._notes)
            return self._standing.on_screen(taken)

    def redo(self) -> Said:
        """Do again what was undone last, and go on behind it; returns the verdict that stands again."""
        with self._lock:
            self._look_at_others()
            if not self._history.undone:
                raise UsageError("nothing was undone that could be done again")
            deed = self._history.undone[-1]
            key, said = key_of(deed[0].showing), deed[0].after
            if key != self._present and key not in self._standing.done:
                self._require(key)
            self._write(deed)
            self._history.done.append(self._history.undone.pop())
            assert said is not None, "a deed says something"
            self._drafts.drop(key)
            self._move_on(after=key)
            return self._standing.on_screen(said)

    def add(self, notes: Notes, *, durable: bool = True) -> None:
        """Put notes on the present pair; they are kept on the disk as a draft, and go with the next verdict."""
        pair = self._require_present()
        self._notes = notes
        self._drafts.keep(pair, notes, durable=durable)

    def amend(self, text: str) -> None:
        """Put a comment on the last verdict: the same verdict again, which supersedes it."""
        with self._lock:
            self._look_at_others()
            if not self._journals.history:
                raise UsageError(f"no verdict of {self.annotator} stands on this set")
            last = next(reversed(self._journals.history))
            before = self._journals.standing[last]
            self._do((Change(last, before, before._replace(comment=text.strip())),))

    def go_to(self, number: int) -> None:
        """Show the pair at a place, from 1, judged or not; what is open behind it comes after it.

        A place is one of the set; for a third voice, of the disagreements.
        """
        if not 1 <= number <= len(self._order):
            raise UsageError(f"there is no pair {number:,}: this set has the pairs 1 to {len(self._order):,}")
        with self._lock:
            pair = self._order[number - 1]
            if pair in self._standing.done:
                self._course.leave()
            elif pair != self._present:
                self._require(pair)
            self._show(self._showing(pair, self._standing.open_question(pair) or self._questions[0]))
            if pair not in self._standing.done:
                self._next_place = self._course.place.get(pair, self._next_place)

    def go_on(self) -> None:
        """Leave a pair that is looked at again, and show the next open one."""
        with self._lock:
            self._move_on()

    def show_skipped_again(self) -> int:
        """Let the skipped pairs come once more; how many there are. A pair keeps its skip until it is judged."""
        with self._lock:
            self._again = deque(self._skipped())
            self._move_on()
            return len(self._again)

    def order_of(self, pair: str, repeat: int = 0) -> Order:
        """Which column stands left in a showing."""
        return self._standing.order_of(pair, repeat)

    # Inside.

    def _skipped(self) -> list[str]:
        """Pairs of the set that were skipped, in its order."""
        if not self._standing.tally["skip"]:
            return []
        return [pair for pair in self._order if pair in self._standing.done and self._standing.is_skip(pair)]

    def _showing(self, key: str, asked: Criterion | None = None) -> Showing:
        return showing_by(key, self.annotator, (asked or self.question).name)

    def _shown(self, key: str) -> ShownPair:
        identity, _, repeat, _ = self._showing(key)
        pair, order = self._pairs[identity], self._standing.order_of(identity, repeat)
        first, second = (pair.a, pair.b) if order == "ab" else (pair.b, pair.a)
        return ShownPair(identity, prompt_text(pair.prompt), text_of(first), text_of(second), order)

    def _require(self, key: str) -> None:
        """Claim a pair in the place of the present one; where it cannot be had, the present one is kept."""
        try:
            self._course.require(key)
        except UsageError:
            self._course.claim([self._present] if self._present else [])
            raise

    def _require_present(self) -> str:
        if not self._present:
            raise UsageError("all pairs of this set are judged")
        return self._present

    def _deed(self, pair: str, verdict: ScreenVerdict, strength: int) -> Deed:
        """What a verdict on the present question changes."""
        shown, standing, asked = self._showing(pair), self._journals.standing, [self.question]
        order = self._standing.order_of(shown.pair, shown.repeat)
        if verdict == "skip":
            others = [one for one in self._questions if one != self.question]
            asked += [one for one in others if self._showing(pair, one) not in standing]
        column, notes = column_of(verdict, order), self._notes
        made = Judgment(
            0, "", None, shown.pair, self.annotator, shown.repeat, "", column, strength, order, "screen", "",
            notes.comment, notes.tags, notes.flagged, notes.better, self._course.purpose_of(pair),
            self._course.picked.get(pair, ""),
        )  # fmt: skip
        showings = [self._showing(pair, one) for one in asked]
        return tuple(Change(one, standing.get(one), made._replace(criterion=one.criterion)) for one in showings)

    def _do(self, deed: Deed) -> None:
        self._history.add(self._write(deed))

    def _write(self, deed: Deed) -> Deed:
        """Put what stands after a deed on the disk, and remember it."""

        def write(journal: Journal) -> list[Judgment]:
            return journal.append_many([line_of(journal, change) for change in deed])

        written = self._journals.write([change.showing for change in deed], write)
        lines = {showing_of(line): line for line in written}
        for change in deed:
            if change.after is None:
                self._journals.forget(change.showing)
            else:
                self._journals.note(change.showing, lines[change.showing])
            self._standing.recount(change)
        return deed

    def _look_at_others(self) -> None:
        if self._journals.look_at_others():
            self._history.clear()
            self._standing.count()
            self._next_place = 0

    def _show(self, showing: Showing) -> None:
        self._present = key_of(showing)
        names = [one.name for one in self._questions]
        self._question = names.index(showing.criterion) if showing.criterion in names else 0
        held = self._journals.standing.get(self._showing(self._present))
        self._notes = self._drafts.read(self._present) or (notes_of(held) if held else NONE)

    def _next(self) -> str:
        """An extra showing that is due, else the first pair that may be shown, else what is left; it is claimed."""
        if due := self._course.extra(self._standing.done, len(self._standing.done)):
            self._course.claim([])
            return due
        if following := self._course.claim(self._course.open_keys(self._standing.done, self._next_place)):
            self._next_place = self._course.place[following]
            return following
        if left := self._course.last_extra(self._standing.done):
            return left
        while self._again:
            if self._standing.is_skip(self._again[0]) and (again := self._course.claim([self._again[0]])):
                return again
            self._again.popleft()
        return ""

    def _move_on(self, after: str = "") -> None:
        """Show what is asked next: a question of the pair `after`, an open pair, or one that was skipped."""
        following = after if after in self._again or (after and not self._standing.is_done(after)) else ""
        if following and following != self._present:
            following = self._course.claim([following])  # else it is claimed already: the next question of a pair
        if following := following or self._next():
            asked = self._standing.open_question(following) or self._standing.skipped_question(following)
            self._show(self._showing(following, asked))
        else:
            self._present, self._question, self._notes = "", 0, NONE
