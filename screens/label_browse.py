"""The pairs of a sitting as a list: what was said of each, and which to look at again.

Owns the list, which is there at once and filled when it was read: Esc leaves it also before. It returns the number of a
pair and does nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input

from screens.line import Line
from screens.modals import Dialog
from screens.row_list import Column, Row, RowList
from workbench.labeling_list import ListedPair

if TYPE_CHECKING:
    from screens.app import WorkbenchApp


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

    def __init__(self, read: Callable[[], Sequence[ListedPair]], at: int) -> None:
        """`read` is called in a thread while the list is on the screen; the cursor goes to pair number `at`."""
        super().__init__()
        self._read, self._at = read, at

    def compose(self) -> ComposeResult:
        columns = [
            Column("pair", right=True),
            Column("verdict", longest=30),
            Column("notes", longest=24, drop=1),
            Column("prompt", flexible=True),
        ]
        with Vertical(classes="modal page"):
            yield RowList(columns, empty="no pair contains that", waits=True, id="pairs")
            field = Input(placeholder="filter; enter keeps it", id="filter")
            field.cursor_blink = False
            field.display = False
            yield field
            yield Line(("enter shows one, / filters, esc leaves it", "$text-muted"))

    def on_mount(self) -> None:
        self.set_focus(self.query_one(RowList))
        self.run_worker(self._list(), exit_on_error=True)

    async def _list(self) -> None:
        try:
            listed = await asyncio.to_thread(self._read)
        except Exception as error:  # a list that cannot be read must not take the sitting down
            if not self.gone:
                cast("WorkbenchApp", self.app).complain(error)
                self.dismiss(None)
            return
        rows = self.query_one(RowList)
        rows.show([Row(str(one.number), (f"{one.number:,}", one.said, one.notes, one.prompt)) for one in listed])
        rows.move_to(str(self._at))

    @on(RowList.Opened)
    def _taken(self, event: RowList.Opened) -> None:
        event.stop()
        self.dismiss(int(event.key))

    def action_filter(self) -> None:
        field = self.query_one(Input)
        field.display = True
        self.set_focus(field)  # at once, so that what is typed on is typed into it

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
