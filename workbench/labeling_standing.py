"""What stands of one annotator's sitting: which keys are done, which are skips, and the counts by verdict.

Owns the draw of sides and the way from a column back to a side. Invariants: a key is done when every question of its
pair is answered; a repeat stands swapped against the showing before it, so that who always picks left disagrees with
themselves. Refuses to know what comes next.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from workbench.judgment_lines import Judgment
from workbench.judgments import Order, Showing, Verdict
from workbench.label_form import Criterion
from workbench.labeling_course import Course, key_of, showing_by
from workbench.labeling_history import Change
from workbench.labeling_state import Said, ScreenVerdict
from workbench.own_journals import OwnJournals


class Standing:
    """The verdicts of one annotator, by key."""

    def __init__(self, journals: OwnJournals, course: Course, questions: Sequence[Criterion], seed: int) -> None:
        self._journals, self._course, self._questions, self._seed = journals, course, questions, seed
        self.done: set[str] = set()
        self.tally: Counter[ScreenVerdict] = Counter()
        self.count()

    def order_of(self, pair: str, repeat: int = 0) -> Order:
        """Which column stands left, drawn by a hash: the same whenever this showing is shown; a repeat is swapped."""
        drawn = f"sides\x1f{self._seed}\x1f{pair}\x1f{self._journals.annotator}\x1f0"
        swapped = hashlib.sha256(drawn.encode()).digest()[0] + repeat & 1
        return "ba" if swapped else "ab"

    def on_screen(self, judgment: Judgment) -> Said:
        """A verdict of this annotator as it was seen."""
        order = judgment.order or self.order_of(judgment.pair, judgment.repeat)
        sides: dict[str, ScreenVerdict] = {order[0]: "left", order[1]: "right"}
        return Said(sides.get(judgment.verdict, judgment.verdict), judgment.strength)  # type: ignore[arg-type]

    def showing(self, key: str, asked: Criterion) -> Showing:
        """The showing of a key on one question."""
        return showing_by(key, self._journals.annotator, asked.name)

    def held(self, key: str) -> list[tuple[Criterion, Judgment | None]]:
        """What stands on each question of a key."""
        return [(one, self._journals.standing.get(self.showing(key, one))) for one in self._questions]

    def open_question(self, key: str) -> Criterion | None:
        """The first question without an answer."""
        return next((asked for asked, one in self.held(key) if one is None), None)

    def skipped_question(self, key: str) -> Criterion | None:
        """The first question that was skipped."""
        return next((asked for asked, one in self.held(key) if one is not None and one.verdict == "skip"), None)

    def is_done(self, key: str) -> bool:
        """Whether every question is answered."""
        return self.open_question(key) is None

    def is_skip(self, key: str) -> bool:
        """Whether a question was skipped."""
        return self.skipped_question(key) is not None

    def count(self) -> None:
        """Count anew what stands."""
        self.tally = Counter(self.on_screen(one).verdict for one in self._journals.standing.values())
        keys = dict.fromkeys(map(key_of, self._journals.history))
        self.done = {key for key in keys if self.is_done(key)}
        self._course.begin((key for key in keys if key in self.done), self.is_skip)

    def recount(self, change: Change) -> None:
        """Count what one change changed."""
        for judgment, by in ((change.before, -1), (change.after, 1)):
            if judgment is not None:
                self.tally[self.on_screen(judgment).verdict] += by
        key = key_of(change.showing)
        if self.is_done(key):
            self.done.add(key)
            self._course.judged(key, len(self.done), self.is_skip(key))
        else:
            self.done.discard(key)
            self._course.taken_back(key)


def column_of(verdict: ScreenVerdict, order: Order) -> Verdict:
    """The verdict as the journal keeps it: by column, whatever stood where."""
    if verdict == "left":
        return "a" if order == "ab" else "b"
    if verdict == "right":
        return "b" if order == "ab" else "a"
    return verdict
