"""A list to choose a field's value from, with a line to type in: what matches is kept, a free text is taken.

Owns the page alone; returns the value, or None after Esc.
"""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input

from screens.line import Line
from screens.modals import Dialog
from screens.row_list import Column, Row, RowList
from screens.typing_ahead import Typing
from workbench.data_weights import split_written, takes_whole, with_another, word_at_end
from workbench.launch_form import Field


class OptionPage(Dialog[str | None], Typing):
    """Type to find, arrows to move, Enter to take."""

    TITLE = "choose a value"
    HELP = (
        "Type a part of what you look for; the rows that match are kept. Up and down move, enter takes the row. Where "
        "a value of your own is possible, and no row matches, enter takes what was typed.\n\n"
        "Where several are possible, tab puts the row behind what is typed, and a number after a colon is a weight: "
        "A:0.7 B:0.3. Enter then takes the whole line."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "tab",
            "add",
            "add",
            key_display="tab",
            priority=True,
            id="options.add",
            tooltip="Put the row behind what is typed, as one of several.",
        ),
        Binding("escape,ctrl+c", "decline", "leave it", id="options.leave", tooltip="Change nothing."),
        Binding(
            "down,ctrl+n", "move(1)", "down", show=False, priority=True, id="options.down", tooltip="The next one."
        ),
        Binding("up,ctrl+p", "move(-1)", "up", show=False, priority=True, id="options.up", tooltip="The one before."),
    ]

    def __init__(self, field: Field) -> None:
        super().__init__()
        self._of = field

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal page"):
            yield Line((self._of.label, "bold"), ("   " + self._of.explanation, "$text-muted"))
            own = self._own_value()
            typed = Input(
                own, placeholder="type to find" + (", or to name another" if self._of.free else ""),
                select_on_focus=len(split_written(own)) < 2, id="typed",  # several are added to
            )  # fmt: skip
            typed.cursor_blink = False
            yield typed
            yield RowList(
                [Column("value", longest=34), Column("words", flexible=True)],
                empty="nothing here matches" + ("; enter takes what was typed" if self._of.free else ""),
                titles=False,
            )
            yield Line(
                (
                    "enter takes the row"
                    + (", or what was typed" if self._of.free else "")
                    + ("; tab adds the row" if self._of.several else "")
                    + "; ctrl+g helps",
                    "$text-muted",
                )
            )

    def on_mount(self) -> None:
        self._list(self._own_value())
        self.query_one(RowList).move_to(self._of.value)
        typed = self.query_one(Input)
        if not typed.select_on_focus:
            typed.action_end()
        self.set_focus(typed)
        self.take_ahead()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._list(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        key, typed = self.query_one(RowList).key, event.value.strip()
        if (self._of.several and takes_whole(typed)) or typed in [option.value for option in self._of.options]:
            self.dismiss(typed)
        elif key:
            self.dismiss(key)
        elif self._of.free and typed:
            self.dismiss(typed)

    def on_row_list_opened(self, event: RowList.Opened) -> None:
        event.stop()
        self.dismiss(event.key)

    def action_move(self, by: int) -> None:
        self.query_one(RowList).action_move(by)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self._of.several if action == "add" else super().check_action(action, parameters)

    def action_add(self) -> None:
        key = self.query_one(RowList).key
        if key:
            typed = self.query_one(Input)
            typed.value = with_another(typed.value, key)
            typed.action_end()

    def action_decline(self) -> None:
        self.dismiss(None)

    def _own_value(self) -> str:
        """What is edited rather than chosen anew: a value of one's own of which there may be several."""
        return self._of.value if self._of.several and takes_whole(self._of.value) else ""

    def _list(self, typed: str) -> None:
        sought = word_at_end(typed) if self._of.several else typed
        words = sought.casefold().split()
        rows = [
            Row(option.value, (option.value, option.words))
            for option in self._of.options
            if all(word in f"{option.value} {option.words}".casefold() for word in words)
        ]
        # A text with a comma or a slash names something of one's own, whatever it resembles.
        own = self._of.free and any(sign in sought for sign in ",/@")
        self.query_one(RowList).show([] if own else rows)
