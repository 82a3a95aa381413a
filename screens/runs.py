"""Runs: every run with its state, how far it is and what it says of itself; stop, resume, clone, delete.

A person comes to see whether all goes well, and why something does not: the reason of the run under the cursor is in
view. Everything is read from the run folders once a second; closing this screen changes nothing for a run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Resize
from textual.widget import Widget

from engine.run.folder import RunFolder
from screens.curves_choice import ask_for_runs
from screens.modals import Choice, Question
from screens.row_list import Column, Row, RowList
from screens.run_orders import ask_to_stop, resume
from screens.run_tags import ask_for_tags
from screens.runs_log import LogPage
from screens.station import Station
from screens.text_view import Block, TextView
from workbench.run_board import BoardEntry, BoardReader, describe_entry
from workbench.run_list import STATE_MARKS, STATE_TONES, Run
from workbench.run_removal import Removal, removal_of, remove_run
from workbench.text_wrapping import cut

COLUMNS = (
    Column("state", longest=14),
    Column("run", longest=36),
    Column("method", longest=6, drop=8),  # the ID says it, too
    Column("model", longest=24, drop=6),
    Column("data", longest=18, drop=7),
    Column("step", right=True, longest=18),
    Column("rate", right=True, longest=10, drop=3),
    Column("left", right=True, longest=9, drop=1),
    Column("last value", flexible=True),
)


class Runs(Station):
    """The board of runs."""

    NAME = "runs"
    TITLE = "runs"
    CSS_PATH = "runs.tcss"
    AUTO_FOCUS = "#list"
    HELP = (
        "Every run of this workspace, the newest first, as it is now. ● goes on, … waits in the queue, ✓ reached its "
        "end, ■ was stopped, ✗ failed, ▲ was interrupted; below the list stands why.\n\n"
        "A run lives without this program. Stopping finishes the step and writes a checkpoint; resuming goes on from "
        "the newest one. Cloning opens the launch form with everything that was set for the run."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "watch", "curves", key_display="enter", id="runs.curves", tooltip="Watch its metrics."),
        Binding("S", "stop", "stop", id="runs.stop", tooltip="Finish the step, write a checkpoint, end."),
        Binding("R", "resume", "resume", id="runs.resume", tooltip="Go on from the newest checkpoint."),
        Binding("c", "clone", "clone", id="runs.clone", tooltip="A new run with the same settings, to change some."),
        Binding("l", "log", "log", id="runs.log", tooltip="The end of its log, as it grows."),
        Binding("e", "compare", "compare", id="runs.compare", tooltip="Its answers beside another model's."),
        Binding("space", "mark", "mark", id="runs.mark", tooltip="Mark it, to look at several runs together."),
        Binding("o", "overlay", "overlay", id="runs.overlay",
                tooltip="The marked runs in the same panels; without marks it asks for a pattern."),
        Binding("D", "delete", "delete", id="runs.delete", tooltip="Delete it with its checkpoints; it asks first."),
        Binding("t", "launch", "new run", id="runs.launch", tooltip="The form that starts a run."),
        Binding("number_sign", "tag", "tags", key_display="#", show=False, id="runs.tag",
                tooltip="Words on it, to find it again: in the filter here, and in the pattern of runs to overlay."),
        Binding("y", "copy", "copy id", show=False, id="runs.copy", tooltip="Copy its ID."),
        Binding("slash", "filter", "filter", key_display="/", id="runs.filter", tooltip="Keep runs that hold a text."),
    ]  # fmt: skip

    def compose_body(self) -> Iterable[Widget]:
        yield Container(
            RowList(COLUMNS, empty="no runs yet; t starts one", waits=True, id="list"),
            TextView(id="details"),
            id="board",
        )

    def on_mount(self) -> None:
        self._entries: dict[str, BoardEntry] = {}
        self._marked: dict[str, None] = {}
        """IDs of the marked runs, in the order in which they were marked."""
        self._shown_once = False
        self.watch_files(BoardReader(self.workspace).look, self._show)

    def on_resize(self, event: Resize) -> None:
        if self.is_mounted:
            self.call_after_refresh(self._describe)

    def action_watch(self) -> None:
        if entry := self._chosen():
            self.workbench_app.open("curves", entry.id)

    @on(RowList.Opened)
    def _opened(self) -> None:
        self.action_watch()

    @on(RowList.Moved)
    def _moved(self) -> None:
        self._describe()

    def action_mark(self) -> None:
        if entry := self._chosen():
            if self._marked.pop(entry.id, self) is self:
                self._marked[entry.id] = None
            self._show_rows()
            self.say(f"{len(self._marked)} marked; o shows them in the same panels" if self._marked else "none marked")

    def action_overlay(self) -> None:
        if self._marked:
            self.workbench_app.open("several", ",".join(self._marked))
        elif entry := self._chosen():
            ask_for_runs(self, entry.id)

    def action_clone(self) -> None:
        if entry := self._chosen():
            self.workbench_app.go("launch", f"clone:{entry.id}")

    def action_compare(self) -> None:
        entry = self._chosen()
        if entry is not None and not entry.checkpoints:
            self.say(f"{entry.id} has no checkpoint yet, so there is nothing to compare", "bad")
        elif entry is not None:
            self.workbench_app.go("compare", entry.id)

    def action_launch(self) -> None:
        self.workbench_app.go("launch")

    def action_copy(self) -> None:
        if entry := self._chosen():
            self.app.copy_to_clipboard(entry.id)
            self.say(f"copied {entry.id}")

    def action_tag(self) -> None:
        if entry := self._chosen():
            ask_for_tags(self, self._run(entry), self._done)

    def action_log(self) -> None:
        if entry := self._chosen():
            self.app.push_screen(LogPage(self._run(entry)))

    def action_stop(self) -> None:
        entry = self._chosen()
        if entry is None:
            return
        if not entry.alive:
            self.say(f"{entry.id} is {entry.summary.state}; there is nothing to stop", "bad")
            return
        ask_to_stop(self, self._run(entry), self._done, waits=entry.summary.state == "queued")

    def action_resume(self) -> None:
        if entry := self._chosen():
            resume(self, self._run(entry), self._done)

    def action_delete(self) -> None:
        entry = self._chosen()
        if entry is not None:
            run = self._run(entry)
            self.start_task(f"looking what {entry.id} holds", lambda task: removal_of(run), self._ask_to_delete)

    def _ask_to_delete(self, removal: Removal) -> None:
        question = Question(
            f"Delete {removal.run.id} for good?",
            [Choice("D", "delete it")],
            details=removal.words(),
        )
        self.app.push_screen(question, lambda answer: self._delete(removal) if answer else None)

    def _delete(self, removal: Removal) -> None:
        self.start_task(
            f"deleting {removal.run.id}",
            lambda task: remove_run(removal.run),
            lambda gone: self._done(f"deleted {gone.run.id}, {gone.freed_bytes / 1e6:,.1f} MB"),
        )

    def _done(self, words: str) -> None:
        self.workbench_app.tell(words)
        self.wake()

    def _run(self, entry: BoardEntry) -> Run:
        return Run(RunFolder(self.workspace.runs / entry.id), self.workspace)

    def _chosen(self) -> BoardEntry | None:
        return self._entries.get(self.query_one("#list", RowList).key)

    def _show(self, entries: tuple[BoardEntry, ...]) -> None:
        self._entries = {entry.id: entry for entry in entries}
        self._marked = {name: None for name in self._marked if name in self._entries}
        chooser = self.query_one("#list", RowList)
        self._show_rows()
        if not self._shown_once:
            self._shown_once = True
            chooser.move_to(self.subject)
        alive = sum(entry.alive for entry in entries)
        self.say_where(f"{len(entries):,} in all, {alive} alive" if entries else "none yet")
        self._describe()

    def _show_rows(self) -> None:
        self.query_one("#list", RowList).show([_row(one, one.id in self._marked) for one in self._entries.values()])

    def _describe(self) -> None:
        details, entry = self.query_one("#details", TextView), self._chosen()
        if entry is None:
            details.show([])
        elif self.has_class("-wide"):
            blocks = [Block(entry.id, "title")]
            for name, value in describe_entry(entry):
                blocks += [
                    Block(""),
                    Block(name, "faint"),
                    Block(value, _tone_of(entry) if name in ("state", "alarm") else "plain"),
                ]
            details.show(blocks)
        else:
            details.show(_four_lines(entry, details.scrollable_content_region.width))


def _four_lines(entry: BoardEntry, width: int) -> list[Block]:
    """What matters most of a run where there is little room; the reason comes first, and whole."""
    summary, facts = entry.summary, dict(describe_entry(entry))
    state = f"{summary.state}: {summary.reason}" if summary.reason else summary.state
    if summary.alarm:
        state = f"{state} · alarm: {summary.alarm}"
    tags = " ".join(f"#{tag}" for tag in summary.tags)
    made_of = " · ".join(part for part in (tags, summary.method, entry.model, entry.data, entry.pace) if part)
    result = " · ".join(part for part in (facts.get("best", ""), facts["checkpoints"]) if part)
    others = (made_of, facts.get("last", "no metrics yet"), f"checkpoints: {result}")
    return [Block(state, _tone_of(entry), 1), *(Block(cut(text, width - 2), "faint", 1) for text in others if text)]


def _row(entry: BoardEntry, marked: bool) -> Row:
    summary = entry.summary
    state = (
        f"{STATE_MARKS.get(summary.state, '·')} {summary.state}{' !' if summary.alarm else ''}{' *' if marked else ''}"
    )
    name = " ".join((entry.id, *(f"#{tag}" for tag in summary.tags)))
    cells = (
        state, name, summary.method, entry.model, entry.data, entry.how_far, entry.pace,
        entry.left, entry.main,
    )  # fmt: skip
    return Row(entry.id, cells, "bad" if summary.alarm else STATE_TONES.get(summary.state, ""))


def _tone_of(entry: BoardEntry) -> str:
    if entry.summary.alarm:
        return "bad"
    return {"bad": "bad", "good": "good", "busy": "accent"}.get(STATE_TONES.get(entry.summary.state, ""), "plain")
