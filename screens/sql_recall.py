"""Finding a query again: those that were saved, then those that were run, the newest first.

Owns the list and its filter. It returns the query's text, or None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input

from screens.modals import Dialog
from screens.row_list import Column, Row, RowList


class Recall(Dialog[str | None]):
    """Type a part of the query, move with the arrows, Enter."""

    TITLE = "a query of before"
    HELP = (
        "Saved queries with their names, then those that were run here, the newest first. Type a part of one; up and "
        "down move, enter puts it into the editor, where it can be changed before it runs."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "leave", "leave", id="recall.leave", tooltip="Change nothing."),
        Binding("down", "move(1)", "down", show=False, priority=True, id="recall.down", tooltip="The next query."),
        Binding("up", "move(-1)", "up", show=False, priority=True, id="recall.up", tooltip="The query before."),
    ]
    DEFAULT_CSS = """
    Recall RowList { height: 1fr; }
    """

    def __init__(self, saved: Mapping[str, str], past: Sequence[str]) -> None:
        super().__init__()
        named = [(name, query.strip()) for name, query in saved.items()]
        self._queries = [*named, *(("", query) for query in reversed(past))]

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal page"):
            yield Input(placeholder="a part of a query", id="part")
            yield RowList(
                [Column("saved as", longest=20), Column("query", flexible=True)],
                empty="no query was run or saved here yet",
                id="queries",
            )

    def on_mount(self) -> None:
        field = self.query_one(Input)
        field.cursor_blink = False
        field.focus()
        rows = [Row(str(place), (name, " ".join(query.split()))) for place, (name, query) in enumerate(self._queries)]
        self.query_one(RowList).show(rows)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self.query_one(RowList).filter(event.value)

    @on(Input.Submitted)
    def _taken(self, event: Input.Submitted) -> None:
        event.stop()
        self._take()

    @on(RowList.Opened)
    def _opened(self) -> None:
        self._take()

    def _take(self) -> None:
        key = self.query_one(RowList).key
        self.dismiss(self._queries[int(key)][1] if key else None)

    def action_move(self, by: int) -> None:
        self.query_one(RowList).action_move(by)

    def action_leave(self) -> None:
        self.dismiss(None)
