"""Datasets: every dataset and preference set with its shape and counts; the door to inspecting, pairing and adding.

A person looks for a name, sees what shape it has and what was rejected, and opens it. Preference sets share the
namespace of datasets, because a run is trained on either, so they stand in the same list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget

from screens.line import Line
from screens.modals import Choice, Question
from screens.row_list import Column, Row, RowList
from screens.station import Station
from screens.text_view import Block, TextView
from workbench.dataset_list import Listed, list_data
from workbench.dataset_removal import DataRemoval, removal_of_data, remove_data
from workbench.terminal_output import counted

SAID_BELOW = ("columns", "rows", "rejected", "verdicts", "note")
"""Details that the list's own columns do not show."""


class Datasets(Station):
    """The list of datasets and preference sets."""

    NAME = "datasets"
    TITLE = "datasets"
    CSS_PATH = "datasets.tcss"
    AUTO_FOCUS = "#list"
    HELP = (
        "Everything a run can be trained on: datasets as they were added, and preference sets as they were frozen.\n\n"
        "A dataset's file is never changed; rows that cannot be used are counted, with the reason, and kept aside."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "inspect", "look into", id="datasets.inspect", tooltip="Its rows, in a grid."),
        Binding("i", "profile", "profile", show=False, id="datasets.profile", tooltip="What is in it, in numbers."),
        Binding("c", "check", "check", id="datasets.check", tooltip="Lint: what is wrong in it, and in which rows."),
        Binding("a", "add", "add", id="datasets.add", tooltip="Add a file, a folder or a Hub dataset."),
        Binding("p", "pairs", "pairs", id="datasets.pairs", tooltip="Make pairs of it, to label."),
        Binding("t", "train", "train on it", id="datasets.train", tooltip="Start a run on it."),
        Binding("s", "ask", "sql", id="datasets.sql", tooltip="Ask about it, or about anything here, in SQL."),
        Binding("v", "verify", "verify", id="datasets.verify", tooltip="Hash its file again and compare."),
        Binding("D", "delete", "delete", id="datasets.delete", tooltip="Delete it; no verdict and no file elsewhere."),
        Binding("y", "copy", "copy name", show=False, id="datasets.copy", tooltip="Copy its name."),
        Binding("slash", "filter", "filter", id="datasets.filter", tooltip="Keep the rows that contain a text."),
    ]

    def compose_body(self) -> Iterable[Widget]:
        with_details = Horizontal(
            RowList(
                [
                    Column("name", longest=30),
                    Column("kind", longest=20),
                    Column("rows", right=True),
                    Column("rejected", right=True, drop=2),
                    Column("from", flexible=True, drop=1),
                ],
                empty="no datasets yet; a adds one",
                waits=True,
                id="list",
            ),
            TextView(id="details"),
        )
        yield with_details
        yield Line(id="below")

    def on_mount(self) -> None:
        self._listed: dict[str, Listed] = {}
        self.watch_files(lambda: list_data(self.workspace), self._show, every_s=2.0)

    def action_inspect(self) -> None:
        if chosen := self._chosen():
            self.workbench_app.open("inspect", chosen.name)

    @on(RowList.Opened)
    def _opened(self) -> None:
        self.action_inspect()

    def action_check(self) -> None:
        if chosen := self._chosen():
            self.workbench_app.open("lint", chosen.name)

    def action_profile(self) -> None:
        if chosen := self._chosen():
            self.workbench_app.open("profile", chosen.name)

    def action_add(self) -> None:
        self.workbench_app.open("add")

    def action_pairs(self) -> None:
        if chosen := self._chosen():
            self.workbench_app.go("pairs", f"from:{chosen.name}")

    def action_train(self) -> None:
        if chosen := self._chosen():
            self.workbench_app.go("launch", chosen.name)

    def action_ask(self) -> None:
        chosen = self._chosen()
        self.workbench_app.open("sql", chosen.name if chosen else "")

    def action_copy(self) -> None:
        if chosen := self._chosen():
            self.app.copy_to_clipboard(chosen.name)
            self.say(f"copied {chosen.name}")

    def action_verify(self) -> None:
        chosen = self._chosen()
        if chosen is not None:
            name = chosen.name
            self.start_task(
                f"hashing {name}",
                lambda task: chosen.verify(self.workspace, task.report),
                lambda _: self.workbench_app.tell(f"{name} is what was recorded"),
            )

    def action_delete(self) -> None:
        if chosen := self._chosen():
            name = chosen.name
            self.start_task(
                f"looking what {name} holds", lambda task: removal_of_data(self.workspace, name), self._ask_to_delete
            )

    def _ask_to_delete(self, removal: DataRemoval) -> None:
        used = f" {removal.used_words()}." if removal.users else ""
        question = Question(
            f"Delete {removal.what} for good?",
            [Choice("D", "delete it all the same" if used else "delete it")],
            details=removal.words() + used,
        )
        self.app.push_screen(question, lambda answer: self._delete(removal) if answer else None)

    def _delete(self, removal: DataRemoval) -> None:
        self.start_task(
            f"deleting {removal.name}",
            lambda task: remove_data(self.workspace, removal.name, even_if_used=bool(removal.users)),
            self._deleted,
        )

    def _deleted(self, gone: DataRemoval) -> None:
        self.workbench_app.tell(f"deleted {gone.what}, {gone.freed_bytes / 1e6:,.1f} MB")
        self.wake()

    @on(RowList.Moved)
    def _moved(self) -> None:
        self._describe()

    def _chosen(self) -> Listed | None:
        return self._listed.get(self.query_one("#list", RowList).key)

    def _show(self, found: tuple[tuple[Listed, ...], tuple[str, ...]]) -> None:
        listed, problems = found
        self._listed = {one.name: one for one in listed}
        rows = [Row(one.name, (one.name, one.kind, f"{one.rows:,}", one.rejected, one.origin)) for one in listed]
        chooser = self.query_one("#list", RowList)
        first = not chooser.rows
        chooser.show(rows)
        if first and self.subject:
            chooser.move_to(self.subject)
        sets = sum(one.frozen for one in listed)
        self.say_where(f"{counted(len(listed) - sets, 'dataset')}, {counted(sets, 'preference set')}")
        self._describe()
        for problem in problems:
            self.workbench_app.tell(problem, "warning")

    def _describe(self) -> None:
        chosen = self._chosen()
        details, below = self.query_one("#details", TextView), self.query_one("#below", Line)
        if chosen is None:
            details.show([])
            below.show()
            return
        blocks = [Block(chosen.name, "title")]
        for name, value in chosen.details:
            blocks += [Block(""), Block(name, "faint"), Block(value)]
        details.show(blocks)
        below.show(" ", (" · ".join(value for name, value in chosen.details if name in SAID_BELOW), "$text-muted"))
