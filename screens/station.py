"""What every screen is made of: a header that says where one is, a body, a message line, and a line of keys.

Owns the keys that hold everywhere (back, help, palette, `[` and `]`, filter), the cover of a terminal that is too
small, work in threads with progress and Esc, and the reading of files at intervals. Invariants: a screen that is
covered by its own smallness takes no key but those that leave it; a screen that nobody looks at reads nothing; what
has not changed is not drawn again. A screen adds `compose_body`, its bindings, and handlers; it decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Resize
from textual.widget import Widget
from textual.widgets import Input

from engine.errors import EngineError
from engine.run.safe_text import safe
from screens.key_line import KeyLine
from screens.leaving import Leavable
from screens.line import Line
from screens.row_list import RowList
from screens.tasks import Cancelled, Task
from workbench.errors import WorkbenchError
from workbench.text_wrapping import cut, cut_head

if TYPE_CHECKING:
    from screens.app import WorkbenchApp
    from workbench.workspace import Workspace

T = TypeVar("T")
LEAST_PLACE = 16
"""Cells of host:path that the header shows at the least, from its end; the rest is for what the screen is about."""
READ_ONLY = " read-only"
"""Behind the place, where the header keeps it however narrow it is; the reason is told once."""
SHOW_PROGRESS_AFTER_S = 0.25
PROGRESS_EVERY_S = 0.3
WAYS_OUT = frozenset({"palette", "neighbour", "suspend_process", "lead_on", "freeze", "report", "pairs"})
"""Actions that lead away from the label screen, which an app of that screen alone has not."""
KNOWN_ERRORS = (WorkbenchError, EngineError, OSError)
"""What may be told to a person as it is; anything else is a fault of this program and is told as one."""


class Station(Leavable[None]):
    """The base of every screen. `subject` is what it is about (a dataset's name, a run's id); empty: its own choice."""

    NAME: ClassVar[str] = ""
    """What `go` calls it."""
    TITLE: ClassVar[str | None] = ""
    LEAST_SIZE: ClassVar[tuple[int, int]] = (60, 16)
    """Columns and lines below which the screen covers itself."""
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012  # of Textual's own type
    HELP: ClassVar[str] = ""
    """What a person does here, for `?`; paragraphs."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape", "back", "back", id="back", tooltip="One screen back; a run is never stopped by it."),
        Binding("question_mark,ctrl+g", "help", "keys", key_display="?", id="help",
                tooltip="What one does here, and how; ctrl+g also while a text is typed."),
        Binding("colon,ctrl+p", "palette", "go to", key_display=":", id="palette", tooltip="Go to anything by name."),
        Binding("left_square_bracket", "neighbour(-1)", "station before", show=False, id="station.before",
                tooltip="The station before this one in the loop."),
        Binding("right_square_bracket", "neighbour(1)", "next station", show=False, id="station.next",
                tooltip="The next station in the loop."),
        Binding("ctrl+n", "lead_on", "guide", show=False, id="guide.next", tooltip="Go where the guide points."),
        Binding("ctrl+c", "cancel", "cancel", show=False, id="cancel", tooltip="Cancel what is going on here."),
        Binding("ctrl+z", "app.suspend_process", "suspend", show=False, id="suspend",
                tooltip="Back to the shell; fg returns."),
    ]  # fmt: skip

    def __init__(self, subject: str = "") -> None:
        super().__init__()
        self.subject = subject
        self._where = ""
        self._job: Task | None = None
        self._wakes: list[asyncio.Event] = []
        self._focus_before: Widget | None = None

    @property
    def help_words(self) -> str:
        """`HELP`, as it is true on this terminal."""
        return self.HELP

    # What a screen uses.

    @property
    def workbench_app(self) -> WorkbenchApp:
        """The app, with its workspace and `go`."""
        return cast("WorkbenchApp", self.app)

    @property
    def workspace(self) -> Workspace:
        """The open workspace."""
        return self.workbench_app.workspace

    def compose_body(self) -> Iterable[Widget]:
        """The screen's own widgets."""
        return ()

    def say_where(self, context: str) -> None:
        """What the header says after the title: the subject and the numbers that matter."""
        if context != self._where:
            self._where = context
            self._show_header()

    def say(self, message: str, tone: str = "") -> None:
        """Write a line above the keys; `tone` is "", "good" or "bad"."""
        style = {"good": "$success", "bad": "$error"}.get(tone, "$text-muted")
        if self.is_mounted:
            message = self.workbench_app.here(message)
            self.query_one("#message", Line).show((cut(message, max(1, self.size.width - 2)), style))

    def complain(self, error: BaseException) -> None:
        """Tell an error: one that a person can act on as it is, another as a fault of this program."""
        self.workbench_app.complain(error)

    def start_task(
        self,
        doing: str,
        work: Callable[[Task], T],
        then: Callable[[T], Any] | None = None,
        *,
        failed: Callable[[BaseException], Any] | None = None,
    ) -> None:
        """Run `work` in a thread and call `then` with what it returned. One task at a time; a second is refused.

        After a moment the message line shows how far it is; Esc and Ctrl+C cancel it. An error goes to `failed`, else
        to `complain`.
        """
        if self._job is not None:
            self.say(f"still {self._job.doing}; esc cancels", "bad")
            return
        task = self._job = Task(doing)
        self.run_worker(self._attend(task, work, then, failed or self.complain), exit_on_error=True)

    def watch_files(self, read: Callable[[], T], show: Callable[[T], Any], *, every_s: float = 1.0) -> None:
        """Call `read` in a thread now and then, and `show` with what it found where that has changed.

        Only while this screen is the one on top. `wake` reads at once.
        """
        wake = asyncio.Event()
        self._wakes.append(wake)
        self.run_worker(self._keep_reading(read, show, every_s, wake), exit_on_error=True)

    def wake(self) -> None:
        """Read what `watch_files` reads now."""
        for event in self._wakes:
            event.set()

    @property
    def too_small(self) -> bool:
        """Whether the terminal is smaller than this screen can be."""
        return self.size.width < self.LEAST_SIZE[0] or self.size.height < self.LEAST_SIZE[1]

    # How it is built and behaves. Textual calls the `on_` handlers of a screen and of this class: none calls `super`.

    def compose(self) -> ComposeResult:
        yield Line(id="header")
        yield Container(*self.compose_body(), id="body")
        yield Line(id="too-small")
        yield Line(id="message")
        yield KeyLine(id="keys")
        if self.workbench_app.guide is not None:
            yield self.workbench_app.guide.panel()

    def on_mount(self) -> None:
        self.set_class(self.workbench_app.guide is not None, "-guided")
        self.workbench_app.guide_looks_at(self.NAME)

    def on_unmount(self) -> None:
        # The app waits for its threads when it ends: what was asked for here is wanted no more.
        if self._job is not None:
            self._job.cancel()

    def on_screen_resume(self) -> None:
        self.workbench_app.guide_looks_at(self.NAME)
        self.wake()

    def on_resize(self, event: Resize) -> None:
        small = self.too_small
        if small and not self.has_class("-too-small"):
            self._focus_before = self.focused  # what is covered loses the focus; it gets it back
        elif not small and self.has_class("-too-small") and self._focus_before is not None:
            self.call_after_refresh(self.set_focus, self._focus_before, scroll_visible=False)
        self.set_class(small, "-too-small")
        if small:
            wide, high = self.LEAST_SIZE
            words = f"{event.size.width}x{event.size.height} is too small; {wide}x{high} is enough. Nothing is lost."
            self.query_one("#too-small", Line).show(words)
        self._show_header()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if self.workbench_app.only and action in WAYS_OUT:
            return False
        if action == "lead_on" and self.workbench_app.guide is None:
            return False
        return action in ("back", "suspend_process", "cancel") if self.too_small else True

    def action_back(self) -> None:
        if isinstance(self.focused, Input) and self.focused.id == "filter":
            self._leave_filter(keep=False)
        elif not self.cancel_task():
            self.workbench_app.back()

    def action_cancel(self) -> None:
        if not self.cancel_task():
            self.say("nothing is going on here; q goes back")

    def cancel_task(self) -> bool:
        """Cancel the task that is running; whether there was one."""
        if self._job is None:
            return False
        self._job.cancel()
        self.say(self._job.line())
        return True

    def action_help(self) -> None:
        self.workbench_app.show_help()

    def action_palette(self) -> None:
        self.workbench_app.show_palette()

    def action_lead_on(self) -> None:
        from screens.guide import lead_on

        lead_on(self.workbench_app)

    def action_neighbour(self, by: int) -> None:
        self.workbench_app.go_to_neighbour(self.NAME, by)

    async def action_filter(self) -> None:
        """Type to keep only matching rows. A screen with a list binds this to `/`."""
        if not self.query("#filter"):
            field = Input(placeholder="filter; enter keeps it, esc ends it", id="filter")
            field.cursor_blink = False
            await self.mount(field, before="#message")
        # At once, so that what is typed on while the field appears is typed into it.
        self.set_focus(self.query_one("#filter", Input))

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        for rows in self.query(RowList).results():
            rows.filter(event.value)

    @on(Input.Submitted, "#filter")
    def _filter_kept(self, event: Input.Submitted) -> None:
        event.stop()
        self._leave_filter(keep=bool(event.value))

    def _leave_filter(self, *, keep: bool) -> None:
        found = self.query_one("#filter", Input)
        if not keep:
            found.value = ""
            for rows in self.query(RowList).results():
                rows.filter("")
            found.remove()
        lists = self.query(RowList)
        if lists:
            lists.first().focus()

    def _show_header(self) -> None:
        if not self.is_mounted:
            return
        width = self.size.width
        title, where = str(self.TITLE or ""), self.workbench_app.place
        if self.workspace.read_only_reason:
            where += READ_ONLY
        context = f" · {safe(self._where)}" if self._where else ""
        right = cut_head(where, max(LEAST_PLACE, width - cell_len(title) - cell_len(context) - 4))
        left = cut(context, max(0, width - cell_len(title) - cell_len(right) - 3))
        gap = " " * max(1, width - cell_len(title) - cell_len(left) - cell_len(right) - 2)
        self.query_one("#header", Line).show(" ", (title, "bold $primary"), left, gap, (right, "$text-muted"))

    async def _attend(
        self,
        task: Task,
        work: Callable[[Task], T],
        then: Callable[[T], Any] | None,
        failed: Callable[[BaseException], Any],
    ) -> None:
        progress = self.set_interval(PROGRESS_EVERY_S, lambda: self._show_progress(task))
        try:
            result = await asyncio.to_thread(work, task)
        except Cancelled:
            self.say(f"cancelled: {task.doing}")
        except Exception as error:
            self.say("")
            failed(error)
        else:
            self.say("")
            self._job = None
            if then is not None:
                self._go_on(then, result)
        finally:
            progress.stop()
            if self._job is task:
                self._job = None

    def _go_on(self, then: Callable[[T], Any], result: T) -> None:
        try:
            then(result)
        except KNOWN_ERRORS as error:  # what the work found or made is gone again
            self.complain(error)

    def _show_progress(self, task: Task) -> None:
        if self._job is task and time.monotonic() - task.started > SHOW_PROGRESS_AFTER_S:
            self.say(task.line())

    async def _keep_reading(
        self, read: Callable[[], T], show: Callable[[T], Any], every_s: float, wake: asyncio.Event
    ) -> None:
        before: object = object()
        complained = ""
        while True:
            wake.clear()
            if self.app.screen is self or self.app.screen.is_modal:
                try:
                    found = await asyncio.to_thread(read)
                except KNOWN_ERRORS as error:
                    if str(error) != complained:
                        complained = str(error)
                        self.say(complained, "bad")
                else:
                    if complained:
                        complained = ""
                        self.say("")
                    if found != before:
                        before = found
                        show(found)
            try:
                await asyncio.wait_for(wake.wait(), every_s)
            except TimeoutError:
                continue
