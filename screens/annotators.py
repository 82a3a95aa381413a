"""Annotators: who labels a set, how many, how fast, how alike and how one-sided, while they do it; and disagreements.

Owns two lists and the words about what is under the cursor. Invariant: what people said on a disagreement that nobody
has settled is not shown, so that whoever watches can be its third voice. What is counted and who may settle what is
`workbench.annotator_view`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.events import Resize
from textual.widget import Widget

from screens.line import Line
from screens.row_list import Column, Row, RowList
from screens.station import Station
from screens.text_view import Block, TextView
from workbench.annotator_report import Habits, Person
from workbench.annotator_view import AnnotatorReader, AnnotatorView, Disagreement
from workbench.annotator_words import between_cells, criterion_lines, drift_words, habit_cells, person_cells
from workbench.labeling_subject import adjudication_of
from workbench.terminal_output import counted

READ_EVERY_S = 1.5
MOST_PEOPLE_SHOWN = 6
"""Rows of people on a narrow screen; more are scrolled."""
PEOPLE = (
    Column("who", longest=24),
    Column("judged", right=True),
    Column("skipped", right=True, drop=2),
    Column("an hour", right=True),
    Column("last seen", longest=16),
    Column("same again", right=True, longest=12, drop=1),
    Column("known right", right=True, longest=12, drop=3),
)
DISAGREEMENTS = (
    Column("pair", right=True),
    Column("state", longest=22),
    Column("between", longest=24, drop=2),
    Column("on", longest=16, drop=1),
    Column("prompt", flexible=True),
)
NOBODY = "nobody yet: enter on Pairs labels it; others: workbench label N --as WHO"
NONE = "none: no pair has verdicts of two people that differ"
NO_SET = "There are no pair sets yet; m on Pairs makes one."
ALONE = (
    "No pair has the verdicts of two people yet, so there is no agreement to tell. A second person labels under a name "
    "of their own: workbench label {name} --as WHO."
)


class Annotators(Station):
    """The people on a pair set, live."""

    NAME = "annotators"
    TITLE = "annotators"
    CSS_PATH = "annotators.tcss"
    AUTO_FOCUS = "#people"
    HELP = (
        "Who labels this set, and what their labels are worth; it follows while they work. same again is how often a "
        "person said the same of a pair that came back swapped; known right, how often they gave the known answer of a "
        "calibration pair. Below stands what their picks have in common: of left it should be half, because which "
        "answer stands left is drawn.\n\n"
        "Tab goes to the disagreements. Enter settles the one under the cursor on the label screen, as a third voice: "
        "blind, so what the others said is hidden until somebody has settled it; a settles all that are open. Two "
        "people who settle at once never get the same pair. Whoever judged a pair cannot settle it.\n\n"
        "alpha is Krippendorff's, with its 95 % interval. Where one verdict is nearly always given, kappa and alpha "
        "are low though people agree: read percent, too."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "settle", "settle", id="annotators.settle", tooltip="Settle the disagreement, blind."),
        Binding("a", "settle_all", "settle all", id="annotators.settle_all", tooltip="Settle all that are open."),
        Binding(
            "tab",
            "app.focus_next",
            "other list",
            id="annotators.tab",
            tooltip="Go to the next list, or to the words.",
        ),
        Binding("slash", "filter", "filter", id="annotators.filter", tooltip="Keep the rows that contain a text."),
    ]

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._view: AnnotatorView | None = None
        self._tells_of_people = True
        """Whether the words are about a person, and not about a disagreement."""

    def compose_body(self) -> Iterable[Widget]:
        yield Line(id="progress")
        yield Container(
            Vertical(
                RowList(PEOPLE, empty=NOBODY, waits=True, id="people"),
                Line(id="disagreements-title"),
                RowList(DISAGREEMENTS, empty=NONE, waits=True, id="disagreements"),
                id="lists",
            ),
            TextView(id="words"),
            id="halves",
        )

    def on_mount(self) -> None:
        reader = AnnotatorReader(self.workspace, self.subject, self._me)
        self.watch_files(reader.read, self._show, every_s=READ_EVERY_S)

    def on_resize(self, event: Resize) -> None:
        self._fit()

    @property
    def _me(self) -> str:
        return self.workbench_app.settings.annotator_name

    # What is shown.

    def _show(self, view: AnnotatorView | None) -> None:
        self._view = view
        if view is None:
            self.query_one("#progress", Line).show(" ", (NO_SET, "$text-muted"))
            self.query_one("#people", RowList).show([])
            self.query_one("#disagreements", RowList).show([])
            return
        self.subject = self.workbench_app.subjects[self.NAME] = view.subject
        here = sum(one.shown_now for one in view.report.people)
        self.say_where(f"{view.subject} · {here} here now" if here else view.subject)
        self.query_one("#progress", Line).show(" ", (_progress(view), "$text-muted"))
        self.query_one("#people", RowList).show(
            [Row(one.annotator, tuple(person_cells(one)), _tone(one)) for one in view.report.people]
        )
        self.query_one("#disagreements", RowList).show([_row(one, self._me) for one in view.disagreements])
        settled = len(view.disagreements) - view.open
        words = f"disagreements · {view.open:,} open, {settled:,} settled" if view.disagreements else "disagreements"
        self.query_one("#disagreements-title", Line).show(" ", (words, "bold"))
        self._fit()
        self._describe()

    @on(RowList.Moved)
    def _describe(self) -> None:
        view = self._view
        if view is None:
            return
        if (chosen := self._disagreement()) and not self._tells_of_people:
            self.query_one("#words", TextView).show(_about_disagreement(chosen, self._me))
        else:
            self.query_one("#words", TextView).show(_about_person(view, self.query_one("#people", RowList).key))

    def on_descendant_focus(self) -> None:
        if isinstance(self.focused, RowList):  # while the words are scrolled they stay what they are
            self._tells_of_people = self.focused.id == "people"
            self._describe()

    def _fit(self) -> None:
        """The people as high as they are many, where the disagreements keep room."""
        people = self.query_one("#people", RowList)
        most = MOST_PEOPLE_SHOWN if self.has_class("-narrow") else max(MOST_PEOPLE_SHOWN, self.size.height // 3)
        people.styles.height = 1 + max(1, min(len(people.rows), most))

    # What one does.

    def _disagreement(self) -> Disagreement | None:
        key = self.query_one("#disagreements", RowList).key
        return next((one for one in self._view.disagreements if one.pair == key), None) if self._view else None

    @on(RowList.Opened)
    def _opened(self, event: RowList.Opened) -> None:
        event.stop()
        self.action_settle()

    def action_settle(self) -> None:
        chosen = self._disagreement()
        if chosen is None or not self.query_one("#disagreements").has_focus:
            self.say("tab goes to the disagreements; enter settles one" if chosen else "there is nothing to settle")
        elif obstacle := chosen.obstacle(self._me):
            self.say(obstacle, "bad")
        else:
            self.workbench_app.open("label", adjudication_of(self.subject, chosen.pair))

    def action_settle_all(self) -> None:
        if self._view is None or not any(not one.obstacle(self._me) for one in self._view.disagreements):
            self.say("there is nothing that you could settle")
        else:
            self.workbench_app.open("label", adjudication_of(self.subject))


def _progress(view: AnnotatorView) -> str:
    status = view.status
    parts = [counted(status.pairs, "pair"), f"{status.judged:,} judged", f"{status.open:,} open"]
    if status.skipped:
        parts.append(f"{status.skipped:,} skipped")
    parts.append(f"overlap {view.overlap}: {view.full:,} full" if view.overlap else "everyone judges all")
    if status.conflicts:
        parts.append(f"{status.conflicts:,} in conflict")
    if status.faults:
        parts.append(f"{counted(len(status.faults), 'line')} of journals cannot be used")
    return " · ".join(parts)


def _tone(one: Person) -> str:
    return "good" if one.shown_now else "" if one.by_hand else "faint"


def _row(one: Disagreement, me: str) -> Row:
    state = one.state(me)
    cells = (f"{one.number:,}", state, ", ".join(one.people), ", ".join(one.criteria), one.prompt)
    return Row(one.pair, cells, "" if state == "open" else "faint")


def _about_disagreement(one: Disagreement, me: str) -> list[Block]:
    blocks = [Block(f"pair {one.number:,} on {', '.join(one.criteria)}: {', '.join(one.people)} differ", "title")]
    blocks.append(Block(one.prompt))
    if one.said:
        return [*blocks, *(Block(words, "faint") for words in one.said)]
    obstacle = one.obstacle(me)
    todo = "enter settles it; what they said is hidden until then"
    return [*blocks, Block(obstacle or todo, "faint" if obstacle else "accent")]


def _about_person(view: AnnotatorView, who: str) -> list[Block]:
    report = view.report
    blocks: list[Block] = []
    for one in report.people:
        if one.annotator == who:
            blocks += _habits(one)
    between = [one for one in report.between if who in (one.first, one.second)]
    for two in between:
        _, on, pairs, percent, kappa = between_cells(two)
        other = two.second if two.first == who else two.first
        blocks.append(Block(f"with {other} on {on}: {pairs} pairs, {percent} alike, kappa {kappa}"))
    for criterion in report.criteria:
        if criterion.nominal.units:
            first, second = criterion_lines(criterion)
            blocks += [
                Block(f"all, {first}", "faint"),
                Block("alpha" + second.partition("alpha")[2], "faint", indent=2),
            ]
    if not between and not any(one.nominal.units for one in report.criteria):
        blocks.append(Block(ALONE.format(name=view.subject), "faint"))
    return blocks


def _habits(one: Person) -> list[Block]:
    """A person's picks; None of them for a rule, which has no habits."""
    if not one.by_hand:
        return [Block(one.annotator, "title"), Block("not by hand: no pace and no habits", "faint")]
    left, longer, bulleted, ties = habit_cells(one)
    words = f"picks left {left}, longer {longer}, a list {bulleted}; ties {ties}"
    blocks = [Block(f"{one.annotator} {words}", "title")]
    if _is_one_sided(one.habits):
        blocks.append(Block("▲ the side decides more than chance would: which answer stands left is drawn", "bad"))
    if one.drift is not None:
        blocks.append(Block(f"in a sitting, first third to last: {drift_words(one)}"))
    return blocks


def _is_one_sided(habits: Habits) -> bool:
    """Whether the 95 % interval of picks of what stood left does not hold one half."""
    left = habits.left
    return left.share is not None and not left.low <= 0.5 <= left.high
