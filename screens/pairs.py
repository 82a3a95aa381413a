"""Pairs: the pair sets and arenas, how far each is judged, and what becomes of the verdicts.

A person looks which set has open pairs and labels it, makes one of a dataset, freezes what is judged into a preference
set, or lets the sample rule judge what is open, whose verdicts are called synthetic wherever they are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget

from screens.line import Line
from screens.modals import AskText, Choice, Question
from screens.row_list import Column, Row, RowList
from screens.sample_rule import let_rule_judge
from screens.station import Station
from screens.tasks import Task
from screens.text_view import Block, TextView
from workbench.guide_steps import PREFERENCES
from workbench.labeling_subject import pair_set_of
from workbench.pair_list import ListedPairs, PairsReader
from workbench.pair_sets import PairKind, PairSet
from workbench.preference_rule import FreezeRule
from workbench.preferences import PreferenceSet
from workbench.terminal_output import counted
from workbench.workspace import free_name, name_problem

FROM = "from:"
"""A subject that begins so asks for a pair set of that dataset."""
FREEZE = "freeze:"
"""A subject that begins so asks to freeze that pair set."""
QUESTION_KEYS = "123456789bcd"
SAID_BELOW = ("made from", "verdicts", "from", "annotators", "conflicts", "faults", "note")


class Pairs(Station):
    """The list of pair sets and arenas."""

    NAME = "pairs"
    AUTO_FOCUS = "#list"
    TITLE = "pairs"
    CSS_PATH = "pairs.tcss"
    HELP = (
        "A pair is a prompt with two answers. Enter labels the set under the cursor; f freezes its verdicts into a "
        "preference set, which a run trains on and which never changes; verdicts given later go into the next one.\n\n"
        "o shows who labels it: how many, how fast, how alike, how one-sided, and what they disagree on.\n\n"
        "Verdicts of the sample rule are synthetic, and are called so wherever they are counted."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "label", "label", id="pairs.label", tooltip="Judge the pairs that are open."),
        Binding("m", "make", "make pairs", id="pairs.make",
                tooltip="Make a pair set: of a dataset, or of what models answer."),
        Binding("f", "freeze", "freeze", id="pairs.freeze", tooltip="Freeze the verdicts into a preference set."),
        Binding("o", "annotators", "annotators", id="pairs.annotators",
                tooltip="Who labels it: how many, how fast, how alike, and what they disagree on."),
        Binding("R", "rule", "rule judges", id="pairs.rule", tooltip="Let the sample rule judge what is open."),
        Binding("slash", "filter", "filter", id="pairs.filter", tooltip="Keep the rows that contain a text."),
        Binding("t", "train", "train", id="pairs.train", tooltip="Train on the set frozen last."),
    ]  # fmt: skip

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._listed: dict[str, ListedPairs] = {}
        self._frozen = ""
        self._wanted = ""
        """The set that the cursor goes to when it is listed."""
        self._to_freeze = False

    def compose_body(self) -> Iterable[Widget]:
        columns = [
            Column("name", longest=34),
            Column("pairs", right=True),
            Column("by me", right=True),
            Column("judged", right=True),
            Column("open", right=True),
            Column("verdicts", flexible=True, drop=1),
            Column("made from", longest=18, drop=2),
        ]
        empty = "no pair sets yet; m makes one: of a dataset with pairs, or of what models answer"
        yield Horizontal(RowList(columns, empty=empty, waits=True, id="list"), TextView(id="details"))
        yield Line(id="below")

    def on_mount(self) -> None:
        reader = PairsReader(self.workspace, self.workbench_app.settings.annotator_name)
        self.watch_files(reader.read, self._show, every_s=2.0)
        if self.subject.startswith(FROM):
            dataset, self.subject = self.subject.removeprefix(FROM), ""
            self.workbench_app.subjects.pop("pairs", None)
            self._ask_name(dataset)
        elif self.subject.startswith(FREEZE):
            self.subject, self._to_freeze = self.subject.removeprefix(FREEZE), True
            self.workbench_app.subjects["pairs"] = self.subject
        self._wanted = self.subject

    # What is shown.

    def _show(self, found: tuple[ListedPairs, ...]) -> None:
        self._listed = {one.subject: one for one in found}
        chooser = self.query_one("#list", RowList)
        chooser.show([_row(one) for one in found])
        if self._wanted in self._listed:
            chooser.move_to(self._wanted)
            self._wanted = ""
            if self._to_freeze:
                self._to_freeze = False
                self.call_after_refresh(self.action_freeze)
        arenas = sum(one.is_arena for one in found)
        self.say_where(f"{counted(len(found) - arenas, 'pair set')}, {counted(arenas, 'arena')}")
        self._describe()

    @on(RowList.Moved)
    def _describe(self) -> None:
        chosen = self._chosen()
        details, below = self.query_one("#details", TextView), self.query_one("#below", Line)
        if chosen is None:
            details.show([])
            below.show()
            return
        told = (("cannot be opened", chosen.problem),) if chosen.problem else chosen.details
        blocks = [Block(chosen.subject, "title")]
        for name, value in told:
            blocks += [Block(""), Block(name, "faint"), Block(value)]
        details.show(blocks)
        words = " · ".join(value for name, value in told if name in SAID_BELOW or chosen.problem)
        below.show(" ", (words, "$text-muted"))

    def _chosen(self) -> ListedPairs | None:
        return self._listed.get(self.query_one("#list", RowList).key)

    # Label.

    def action_label(self) -> None:
        if chosen := self._chosen():
            self.workbench_app.open("label", chosen.subject)

    @on(RowList.Opened, "#list")
    def _opened(self) -> None:
        self.action_label()

    def action_annotators(self) -> None:
        if chosen := self._chosen():
            self.workbench_app.open("annotators", chosen.subject)

    # Make.

    def action_make(self) -> None:
        self.workbench_app.open("make")

    def _ask_name(self, dataset: str) -> None:
        asked = AskText(
            f"A pair set of the dataset {dataset}. Its name?",
            value=free_name(self.workspace.names("pairs"), dataset),
            check=lambda name: name_problem(self.workspace, "pairs", name),
        )
        self.app.push_screen(asked, lambda name: self._make(dataset, name) if name else None)

    def _make(self, dataset: str, name: str) -> None:
        who = self.workbench_app.settings.annotator_name

        def work(task: Task) -> tuple[PairSet, tuple[ListedPairs, ...]]:
            from workbench.dataset_store import open_dataset
            from workbench.pair_sets import pairs_from_dataset

            data = open_dataset(self.workspace, dataset)
            made = pairs_from_dataset(self.workspace, name, data, progress=task.report)
            return made, PairsReader(self.workspace, who).read()

        self.start_task(f"making pairs of {dataset}", work, self._made)

    def _made(self, result: tuple[PairSet, tuple[ListedPairs, ...]]) -> None:
        made, listed = result
        left_out = made.info.identical_left_out
        more = f"; {left_out:,} with equal answers were left out" if left_out else ""
        self.workbench_app.tell(f"{made.name}: {counted(made.info.rows, 'pair')}{more}")
        self.say(f"made {made.name}; enter labels it", "good")
        self._show(listed)  # before anybody can press enter
        self.query_one("#list", RowList).move_to(made.name)

    # Freeze.

    def action_freeze(self) -> None:
        chosen = self._chosen()
        if chosen is None or chosen.problem:
            return
        if not chosen.judged:
            self.say("nothing is judged here yet; enter labels it", "bad")
            return
        stem = PREFERENCES if self.workbench_app.guide is not None else f"{chosen.subject.rpartition('/')[2]}-prefs"
        taken = [*self.workspace.names("prefs"), *self.workspace.names("datasets")]
        asked = AskText(
            f"Freeze the verdicts on {counted(chosen.judged, 'pair')} of {chosen.subject} into a preference set. Name?",
            value=free_name(taken, stem),
            check=lambda name: name_problem(self.workspace, "prefs", name),
        )
        criteria = [one.name for one in pair_set_of(self.workspace, chosen.subject).form.criteria]

        def named(name: str | None) -> None:
            if name and criteria:
                self.app.push_screen(
                    _which_question(criteria), lambda key: self._freeze_by(chosen, name, criteria, key)
                )
            elif name:
                self._freeze(chosen, name, FreezeRule())

        self.app.push_screen(asked, named)

    def _freeze_by(self, chosen: ListedPairs, name: str, criteria: list[str], key: str | None) -> None:
        if key == "a":
            self._freeze(chosen, name, FreezeRule(criteria=dict.fromkeys(criteria, 1.0)))
        elif key:
            self._freeze(chosen, name, FreezeRule(criterion=criteria[QUESTION_KEYS.index(key)]))

    def _freeze(self, chosen: ListedPairs, name: str, rule: FreezeRule) -> None:
        def work(task: Task) -> PreferenceSet:
            from workbench.preferences import freeze

            bare = chosen.subject.rpartition("/")[2]
            kind: PairKind = "arena" if chosen.is_arena else "pairs"
            return freeze(self.workspace, bare, name, rule, kind=kind, progress=task.report)

        self.start_task(f"freezing {chosen.subject}", work, self._has_frozen)

    def _has_frozen(self, made: PreferenceSet) -> None:
        counts = dict(made.info.counts)
        rows = f"{counts.pop('train', 0):,} rows to train on, {counts.pop('eval', 0):,} held out"
        without = ", ".join(f"{count:,} {cause.replace('_', ' ')}" for cause, count in counts.items() if count)
        self.workbench_app.tell(f"froze {made.name}: {rows}" + (f"; without a row: {without}" if without else ""))
        self._frozen = made.name
        self.say(f"froze {made.name}; t trains on it", "good")
        self.wake()

    def action_train(self) -> None:
        if self._frozen:
            self.workbench_app.go("launch", self._frozen)
        else:
            self.say("freeze a set first: f", "bad")

    # The sample rule.

    def action_rule(self) -> None:
        chosen = self._chosen()
        if chosen is None or chosen.problem:
            return

        let_rule_judge(self, chosen.subject, self.wake)


def _which_question(criteria: list[str]) -> Question:
    """Which of a set's questions its verdicts are frozen by."""
    each = [Choice(key, name) for key, name in zip(QUESTION_KEYS, criteria, strict=False)]
    every = Choice("a", "all of them, by equal weights (workbench prefs freeze --criterion for others)")
    return Question("Freeze the verdicts on which question?", [*each, *([every] if len(criteria) > 1 else [])])


def _row(one: ListedPairs) -> Row:
    if one.problem:
        return Row(one.subject, (one.subject, "", "", "", "", f"✗ {one.problem}", ""), "bad")
    numbers = (f"{one.pairs:,}", f"{one.mine:,}", f"{one.judged:,}", f"{one.open:,}" if one.open else "✓ none")
    return Row(one.subject, (one.subject, *numbers, one.sources, one.made_from))
