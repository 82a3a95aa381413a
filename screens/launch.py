"""Launch: the form that starts a run: what, from what, on what, the few settings that matter, and what it costs.

A person chooses, sees at once what is wrong beside the field it is wrong in, sees what the run would take, and starts
it. What was chosen is kept in the app's memory until the run is started, so that one may leave and come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from textual.app import App
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Resize
from textual.widget import Widget

from engine.run.method_names import ON_ROLLOUTS
from screens.form_station import FormStation
from screens.launch_cost import cost_blocks
from screens.line import Line
from screens.modals import Reading
from screens.station import KNOWN_ERRORS
from screens.tasks import Cancelled, Task
from screens.text_view import Block, TextView
from workbench.launch_draft import Draft
from workbench.launch_form import (
    Field,
    Surroundings,
    change_method,
    estimate,
    fields_of,
    first_draft,
    look_around,
    needs_fetching,
    place_of,
    problems_of,
    with_reward_model,
)
from workbench.run_launch import create_run, plan_run, start_run
from workbench.run_preview import config_with_origins

if TYPE_CHECKING:
    from workbench.run_list import Run

SETTLE_S = 0.3
"""After the last change, before the cost is reckoned."""
LOOK_EVERY_S = 3.0


@dataclass(frozen=True)
class Kept:
    """What was chosen, while this screen is away."""

    subject: str
    draft: Draft
    every: bool


_KEPT: WeakKeyDictionary[App[Any], Kept] = WeakKeyDictionary()


class Launch(FormStation):
    """The form."""

    NAME = "launch"
    TITLE = "launch"
    CSS_PATH = ["form_station.tcss", "launch.tcss"]  # noqa: RUF012  # of Textual's own type
    FORM_ACTIONS = frozenset({"start", "preview"})
    HELP = (
        "Choose what to train and on what: j and k move, Enter edits, h and l go through the choices. What is wrong "
        "stands beside its field as soon as it is typed.\n\n"
        "The few settings that matter for the method come first; a shows all of them, / finds one. What the run would "
        "cost is reckoned while you look; figures of memory and disk are estimates.\n\n"
        "w starts the run; W queues it: it begins by itself when no other run of this workspace has the device, "
        "whether or not this program is open. Runs go on when you leave."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "edit", "edit", key_display="enter", id="launch.edit", tooltip="Edit this field."),
        Binding("w", "start(False)", "start", id="launch.start", tooltip="Start the run and watch it."),
        Binding("W", "start(True)", "queue", id="launch.queue", tooltip="Start it when the device is free."),
        Binding("a", "every", "all", id="launch.all", tooltip="Show or hide all settings."),
        Binding("p", "preview", "run.toml", id="launch.preview", tooltip="The resolved config, with origins."),
        Binding("backspace", "restore", "default", id="launch.default", tooltip="Put the field's default back."),
        Binding("slash", "filter", "find", key_display="/", id="launch.filter", tooltip="Find a setting by name."),
    ]  # fmt: skip

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._around = Surroundings((), (), ())
        self._draft: Draft | None = None
        self._found: dict[str, str] = {}
        """Field -> what planning found wrong with it; the empty key is the whole."""
        self._facts: dict[str, Any] = {}
        self._changes = 0

    def compose_body(self) -> Iterable[Widget]:
        yield Container(self.form_widgets(), TextView(id="cost"), id="halves")
        yield Line(id="explains")

    def on_mount(self) -> None:
        self.run_worker(self._begin(), exit_on_error=True)

    def on_resize(self, event: Resize) -> None:
        if self._draft is not None:
            self.call_after_refresh(self.draw_form)
            self.call_after_refresh(self._show_cost)
            self.call_after_refresh(self.place_edit)

    async def _begin(self) -> None:
        kept = _KEPT.get(self.app)
        self._around = await asyncio.to_thread(look_around, self.workspace)
        if kept is not None and kept.subject == self.subject:
            draft, self._every = kept.draft, kept.every
        else:
            try:
                draft = await asyncio.to_thread(first_draft, self.workspace, self._around, self.subject)
            except KNOWN_ERRORS as error:
                self.complain(error)
                draft = await asyncio.to_thread(first_draft, self.workspace, self._around)
        self._change(draft)
        self.watch_files(lambda: look_around(self.workspace), self._look_again, every_s=LOOK_EVERY_S)

    def _look_again(self, around: Surroundings) -> None:
        if around != self._around:
            self._around = around
            self.draw_form()
            self._reckon_soon()

    def _change(self, draft: Draft) -> None:
        """Another draft is the present one."""
        if draft == self._draft:
            self.draw_form()
            return
        self._draft = draft
        self._found = {}
        self.kept()
        self.say_where(" · ".join(part for part in (draft.method, draft.model, draft.data) if part))
        self.draw_form()
        self._reckon_soon()

    # The form.

    def form_fields(self, *, every: bool) -> tuple[Field, ...]:
        return () if self._draft is None else fields_of(self._draft, self._around, every=every)

    def problems_with(self, key: str, typed: str) -> dict[str, str]:
        if self._draft is None:
            return {}
        return {**self._found, **problems_of(self._draft.put(key, typed) if key else self._draft, self._around)}

    def default_value(self, key: str) -> str:
        return "sft" if key == "method" else ""

    def kept(self) -> None:
        if self._draft is not None:
            _KEPT[self.app] = Kept(self.subject, self._draft, self._every)

    def put_value(self, key: str, value: str) -> None:
        if self._draft is None:
            return
        if key != "method":
            self._change(self._draft.put(key, value))
            return
        changed = change_method(self._draft, value, self._around)
        self._change(changed)
        if value in ON_ROLLOUTS:
            self.run_worker(self._find_reward_model(changed), exit_on_error=True)

    async def _find_reward_model(self, draft: Draft) -> None:
        found = await asyncio.to_thread(with_reward_model, self.workspace, self._around, draft)
        if self._draft == draft:
            self._change(found)

    # What it costs.

    def _reckon_soon(self) -> None:
        self._changes += 1
        self.run_worker(self._reckon(self._changes), exit_on_error=True)

    async def _reckon(self, change: int) -> None:
        await asyncio.sleep(SETTLE_S)
        draft = self._draft
        if change != self._changes or draft is None:
            return
        self._facts = {}
        if problems_of(draft, self._around) or needs_fetching(draft.model):
            self._show_cost()
            return

        def go_on() -> None:
            if change != self._changes:
                raise Cancelled("another cost is reckoned")

        try:
            facts = await asyncio.to_thread(estimate, self.workspace, draft, go_on)
        except Cancelled:
            return
        except KNOWN_ERRORS as error:
            if change == self._changes:
                self._find_fault(error, draft)
            return
        if change == self._changes:
            self._facts = facts
            self._show_cost()

    def _find_fault(self, error: BaseException, draft: Draft) -> None:
        self._found = {place_of(error, draft): str(error)}
        self.draw_form()
        self._show_cost()

    def _show_cost(self) -> None:
        if self._draft is not None:
            problems = {**self._found, **problems_of(self._draft, self._around)}
            fetched = needs_fetching(self._draft.model)
            narrow = not self.has_class("-wide")
            self.query_one("#cost", TextView).show(cost_blocks(self._facts, problems, fetched=fetched, narrow=narrow))

    # Looking at it whole, and starting it.

    def action_preview(self) -> None:
        if (draft := self._sound_draft()) is None:
            return

        def work(task: Task) -> str:
            return config_with_origins(plan_run(self.workspace, draft.request(), quiet=True).resolved)

        self.start_task(
            "resolving the config",
            work,
            lambda text: self.app.push_screen(Reading([Block(text)])),
            failed=lambda error: self._failed(error, draft),
        )

    def action_start(self, queued: bool) -> None:
        if (draft := self._sound_draft()) is None:
            return

        def work(task: Task) -> Run:
            self.workspace.require_writable()
            plan = plan_run(self.workspace, draft.request(), quiet=True)
            task.check()
            run = create_run(plan, progress=lambda done, total: task.report(done, words="examples"))
            start_run(run, queued=queued)
            return run

        self.start_task(
            f"{'queueing' if queued else 'starting'} {draft.method}",
            work,
            lambda run: self._started(run, queued),
            failed=lambda error: self._failed(error, draft),
        )

    def _started(self, run: Run, queued: bool) -> None:
        _KEPT.pop(self.app, None)
        self.workbench_app.subjects.pop(self.NAME, None)
        self.workbench_app.tell(f"{run.id} is in the queue" if queued else f"{run.id} has started")
        self.workbench_app.go("runs" if queued else "curves", run.id)

    def _failed(self, error: BaseException, draft: Draft) -> None:
        if isinstance(error, KNOWN_ERRORS):
            self._find_fault(error, draft)
            self.say(str(error), "bad")
        self.complain(error)

    def _sound_draft(self) -> Draft | None:
        """The draft, where nothing is wrong with it at a glance; else the cursor goes to the first fault."""
        if self._draft is None:
            return None
        problems = problems_of(self._draft, self._around)
        if not problems:
            return self._draft
        self.go_to_fault(*next(iter(problems.items())))
        return None
