"""Make pairs: the form that makes a pair set or an arena, of a dataset that has pairs or of what models answer.

A person chooses, sees at once what is wrong beside its field and what would come of it, and starts it. What models have
answered is kept as it comes: Esc, or leaving, ends it, and w goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from textual.app import App
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Resize
from textual.widget import Widget

from screens.form_station import FormStation
from screens.line import Line
from screens.station import KNOWN_ERRORS
from screens.tasks import Task
from screens.text_view import Block, TextView
from workbench.errors import WorkbenchError
from workbench.labeling_subject import ARENA
from workbench.launch_form import Field
from workbench.pair_form import (
    NEW_ARENA,
    PairDraft,
    PairSurroundings,
    first_pair_draft,
    look_around,
    name_for,
    outlook,
    pair_fields,
    pair_problems,
    pair_request,
)
from workbench.pair_making import make_pair_set
from workbench.pair_sets import PairSet
from workbench.terminal_output import counted

LOOK_EVERY_S = 3.0


@dataclass(frozen=True)
class Kept:
    """What was chosen, while this screen is away."""

    subject: str
    draft: PairDraft
    every: bool


_KEPT: WeakKeyDictionary[App[Any], Kept] = WeakKeyDictionary()


class MakePairs(FormStation):
    """The form."""

    NAME = "make"
    TITLE = "make pairs"
    CSS_PATH = ["form_station.tcss", "make_pairs.tcss"]  # noqa: RUF012  # of Textual's own type
    FORM_ACTIONS = frozenset({"make"})
    HELP = (
        "Choose what the pairs are made of: a dataset whose rows have two answers, or prompts that one or two models "
        "answer; or an arena, in which two models are compared blind and the verdicts become a win rate. j and k move, "
        "Enter edits, h and l go through the choices; what is wrong stands beside its field. a shows the settings that "
        "rarely matter.\n\n"
        "A model may be one of those listed, a folder, a .gguf file, hf:ORG/NAME, or url:http://HOST/v1#NAME, which is "
        "one behind an OpenAI-compatible server.\n\n"
        "w makes the set. Answers are kept as they come: Esc, or leaving this screen, ends it and loses at most the "
        "block that is being answered, and w goes on from there. It is what workbench pairs make and arena make do."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "edit", "edit", key_display="enter", id="make.edit", tooltip="Edit this field."),
        Binding(
            "w", "make", "make it", id="make.make", tooltip="Make the pair set or the arena; models are asked first."
        ),
        Binding("a", "every", "all", id="make.all", tooltip="Show or hide the settings that rarely matter."),
        Binding("backspace", "restore", "default", id="make.default", tooltip="Put the field's default back."),
        Binding("slash", "filter", "find", key_display="/", id="make.filter", tooltip="Find a setting by name."),
    ]

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._around = PairSurroundings((), (), (), (), ())
        self._draft: PairDraft | None = None
        self._failed_with = ""

    def compose_body(self) -> Iterable[Widget]:
        yield Container(self.form_widgets(), TextView(id="outlook"), id="halves")
        yield Line(id="explains")

    def on_mount(self) -> None:
        self.query_one("#outlook", TextView).can_focus = False
        self.run_worker(self._begin(), exit_on_error=True)

    def on_resize(self, event: Resize) -> None:
        if self._draft is not None:
            self.call_after_refresh(self.draw_form)
            self.call_after_refresh(self.place_edit)

    async def _begin(self) -> None:
        kept = _KEPT.get(self.app)
        try:
            self._around = await asyncio.to_thread(look_around, self.workspace)
        except KNOWN_ERRORS as error:
            self.complain(error)
        if kept is not None and kept.subject == self.subject:
            self._every = kept.every
            self._change(kept.draft)
        else:
            self._change(first_pair_draft(self._around, self.subject))
        self.watch_files(lambda: look_around(self.workspace), self._look_again, every_s=LOOK_EVERY_S)

    def _look_again(self, around: PairSurroundings) -> None:
        if around != self._around:
            self._around = around
            self.draw_form()

    def _change(self, draft: PairDraft) -> None:
        self._draft, self._failed_with = draft, ""
        self.kept()
        self.say_where(draft.value("name"))
        self.draw_form()

    # The form.

    def form_fields(self, *, every: bool) -> tuple[Field, ...]:
        return () if self._draft is None else pair_fields(self._draft, self._around, every=every)

    def problems_with(self, key: str, typed: str) -> dict[str, str]:
        if self._draft is None:
            return {}
        return pair_problems(self._as_typed(self._draft, key, typed), self._around, self.workspace)

    @staticmethod
    def _as_typed(draft: PairDraft, key: str, typed: str) -> PairDraft:
        return draft.put(key, typed) if key else draft

    def put_value(self, key: str, value: str) -> None:
        if self._draft is None:
            return
        follows = self._draft.value("name") == name_for(self._draft, self._around)
        changed = self._draft.put(key, value)
        if key != "name" and follows:
            changed = changed.put("name", name_for(changed, self._around))
        self._change(changed)

    def default_value(self, key: str) -> str:
        first = first_pair_draft(self._around, self.subject)
        return first.value(key)

    def kept(self) -> None:
        if self._draft is not None:
            _KEPT[self.app] = Kept(self.subject, self._draft, self._every)

    def draw_form(self) -> None:
        super().draw_form()
        if self._draft is None:
            return
        if self._problems:
            wrong = "is missing or wrong" if len(self._problems) == 1 else "are missing or wrong"
            blocks = [Block(f"▲ {counted(len(self._problems), 'field')} {wrong}", "bad")]
        else:
            blocks = self._outlook(self._as_typed(self._draft, self._editing, self._typed))
        if self._failed_with:
            blocks = [Block(self._failed_with, "bad"), Block(""), *blocks]
        self.query_one("#outlook", TextView).show(blocks)

    def _outlook(self, draft: PairDraft) -> list[Block]:
        """Of the draft whose problems were looked for: with what is being typed, not with what stood there before."""
        try:
            return [Block(words) for words in outlook(draft, self._around)]
        except WorkbenchError as error:  # a file that vanished in between
            return [Block(f"▲ {error}", "bad")]

    # Making it.

    def action_make(self) -> None:
        if self._draft is None:
            return
        if problems := self.problems_with("", ""):
            self.go_to_fault(*next(iter(problems.items())))
            return
        draft = self._draft
        self._failed_with = ""

        def work(task: Task) -> PairSet:
            return make_pair_set(self.workspace, pair_request(draft), quiet=True, progress=task.report)

        self.start_task(f"making {draft.value('name')}", work, self._made, failed=self._failed)

    def _made(self, made: PairSet) -> None:
        _KEPT.pop(self.app, None)
        self.workbench_app.subjects.pop(self.NAME, None)
        told = [counted(made.info.rows, "pair")]
        if made.info.identical_left_out:
            told.append(f"{made.info.identical_left_out:,} with equal answers were left out")
        if too_long := made.info.source.get("prompts", {}).get("too_long"):
            told.append(f"{too_long:,} prompts left a model no room")
        self.workbench_app.tell(f"{made.name}: {'; '.join(told)}")
        if made.kind == "arena":
            self.workbench_app.go("compare" if self.subject == NEW_ARENA else "pairs", ARENA + made.name)
        else:
            self.workbench_app.go("pairs", made.name)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, KNOWN_ERRORS):
            self._failed_with = str(error)
            self.draw_form()
        self.complain(error)
