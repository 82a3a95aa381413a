"""The pairs of a sitting as a list: what was said of each, and which to look at again.

Owns the list. It returns the number of a pair and does nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input

from screens.line import Line
from screens.modals import Dialog
from screens.row_list import Column, Row, RowList
from workbench.labeling_list import ListedPair


class Browse(Dialog[int | None]):
    """Which pair to look at: its number; None after Esc."""

    TITLE = "the pairs"
    HELP = (
        "Every pair of this set with what you said of it. Enter shows one: a new verdict replaces the old one, esc "
        "there goes on with what is open. / keeps the pairs whose row contains a text: flagged, skipped, a reason."
    )
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012  # of Textual's own type
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "decline", "leave it", id="browse.leave", tooltip="Back to the pair."),
        Binding("slash", "filter", "filter", id="browse.filter", tooltip="Keep the rows that contain a text."),
    ]

    def __init__(self, listed: Sequence[ListedPair], at: int) -> None:
        super().__init__()
        self._listed, self._at = tuple(listed), at

    def compose(self) -> ComposeResult:
        columns = [
            Column("pair", right=True),
            Column("verdict", longest=30),
            Column("notes", longest=24, drop=1),
            Column("prompt", flexible=True),
        ]
        with Vertical(classes="modal page"):
            yield RowList(columns, empty="no pair contains that", id="pairs")
            field = Input(placeholder="filter; enter keeps it", id="filter")
            field.cursor_blink = False
            field.display = False
            yield field
            yield Line(("enter shows one, / filters, esc leaves it", "$text-muted"))

    def on_mount(self) -> None:
        rows = self.query_one(RowList)
        rows.show([Row(str(one.number), (f"{one.number:,}", one.said, one.notes, one.prompt)) for one in self._listed])
        rows.move_to(str(self._at))
        rows.focus()

    @on(RowList.Opened)
    def _taken(self, event: RowList.Opened) -> None:
        event.stop()
        self.dismiss(int(event.key))

    def action_filter(self) -> None:
        field = self.query_one(Input)
        field.display = True
        field.focus()

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        self.query_one(RowList).filter(event.value)

    @on(Input.Submitted)
    def _kept(self, event: Input.Submitted) -> None:
        event.stop()
        self.query_one(RowList).focus()

    def action_decline(self) -> None:
        if self.focused is self.query_one(Input):
            self.query_one(Input).value = ""
            self.query_one(RowList).focus()
        else:
            self.dismiss(None)
