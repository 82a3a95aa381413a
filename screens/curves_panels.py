"""Which panels of a method are shown, and in which order: a list to arrange.

Owns the keys of arranging. It returns the arrangement as a person's setting and writes nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from screens.line import Line
from screens.modals import Dialog
from screens.row_list import Column, Row, RowList
from workbench.curve_panels import Panel
from workbench.panel_choice import arranged, choice_of, name_of

LEAST_ROWS, MOST_ROWS = 4, 30


class ArrangePanels(Dialog[tuple[str, ...] | None]):
    """The panels of one method in a list; None after Esc, the empty arrangement for the usual one."""

    TITLE = "panels"
    HELP = (
        "The panels of Curves for runs of this method. Space hides a panel or shows it again, J and K move it down and "
        "up, 0 goes back to the usual order. Enter keeps it: in your own config.toml, for every run of the method, "
        "and never in the run. Esc leaves all as it was."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "decline", "leave it", id="panels.leave", tooltip="Change nothing."),
        Binding("space", "hide_or_show", "hide or show", id="panels.toggle", tooltip="Hide it, or show it again."),
        Binding("J", "shift(1)", "move down", id="panels.down", tooltip="Move the panel down."),
        Binding("K", "shift(-1)", "move up", id="panels.up", tooltip="Move the panel up."),
        Binding("0", "usual", "usual order", id="panels.usual", tooltip="All panels in their usual order."),
    ]

    def __init__(self, method: str, panels: Sequence[Panel], choice: Sequence[str]) -> None:
        super().__init__()
        self._method = method
        self._usual = tuple(panels)
        self._before = tuple(choice)
        self._arrangement = arranged(panels, choice)

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal"):
            yield Line((f"Panels of {self._method or 'such'} runs", "bold"))
            yield RowList((Column("", longest=3), Column("panel", flexible=True)), empty="no panels", titles=False)
            yield Line(("space hides or shows, J K move, 0 usual, enter keeps, esc leaves", "$text-muted"))

    def on_mount(self) -> None:
        rows = self.query_one(RowList)
        rows.styles.height = max(LEAST_ROWS, min(MOST_ROWS, len(self._usual), self.app.size.height - 8))
        rows.focus()
        self._again()

    def action_hide_or_show(self) -> None:
        at = self._at()
        panel, shown = self._arrangement[at]
        self._arrangement[at] = (panel, not shown)
        self._again()

    def action_shift(self, by: int) -> None:
        at = self._at()
        to = at + by
        if 0 <= to < len(self._arrangement):
            self._arrangement[at], self._arrangement[to] = self._arrangement[to], self._arrangement[at]
            key = self.query_one(RowList).key
            self._again()
            self.query_one(RowList).move_to(key)

    def action_usual(self) -> None:
        self._arrangement = [(panel, True) for panel in self._usual]
        self._again()

    def on_row_list_opened(self) -> None:
        usual = [(panel, True) for panel in self._usual]
        self.dismiss(() if self._arrangement == usual else choice_of(self._arrangement, self._before))

    def action_decline(self) -> None:
        self.dismiss(None)

    def _at(self) -> int:
        key = self.query_one(RowList).key
        return next(place for place, (panel, _) in enumerate(self._arrangement) if name_of(panel) == key)

    def _again(self) -> None:
        rows = [
            Row(name_of(panel), ("[x]" if shown else "[ ]", panel.title), "" if shown else "faint")
            for panel, shown in self._arrangement
        ]
        self.query_one(RowList).show(rows)
