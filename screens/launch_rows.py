"""The rows of the launch form, and the field in which one of them is edited in place.

Owns the keys of both and where the edited value lies on its row. Refuses to know what a field means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Key
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from screens.row_list import GAP, Column, Row, RowList
from screens.typing_ahead import typed_ahead
from workbench.launch_form import Field
from workbench.text_wrapping import cut, fit

LABEL_WIDTH, KEY_WIDTH = 15, 29
VALUE_WIDTH, WIDE_VALUE_WIDTH = 26, 34
COLUMNS = (Column("label", longest=60), Column("value", longest=60), Column("note", flexible=True))


class FormRows(RowList):
    """The fields; left and right go through what there is to choose."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l,right", "turn(1)", "choose", key_display="h l", id="form.next", tooltip="The next thing to choose."),
        Binding("h,left", "turn(-1)", "choice before", show=False, id="form.before", tooltip="The choice before."),
    ]

    class Turned(Message):
        """Another choice is wanted in the field under the cursor."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    def __init__(self, edit: Callable[[], None]) -> None:
        """`edit` opens the field under the cursor, and has taken the focus when it returns."""
        super().__init__(COLUMNS, empty="looking for models and data …", titles=False, id="form")
        self._edit = edit
        self._label_width = LABEL_WIDTH

    def show_fields(self, fields: Sequence[Field], problems: dict[str, str]) -> None:
        """Draw the fields; beside each what is wrong with it, else what its value is or where it comes from."""
        self._label_width = max([LABEL_WIDTH, *(min(KEY_WIDTH, len(field.label)) for field in fields)])
        self.show([self._row(field, problems.get(field.key, "")) for field in fields])

    @property
    def value_width(self) -> int:
        """Cells of the column of values."""
        return WIDE_VALUE_WIDTH if self.size.width >= 90 else VALUE_WIDTH

    def value_place(self) -> tuple[int, int]:
        """Column and line, in this widget, at which the value under the cursor begins."""
        keys = [row.key for row in self.rows]
        return 1 + self._label_width + GAP, keys.index(self.key) - self.scroll_offset.y

    def action_open(self) -> None:
        if self.rows:
            self._edit()

    async def on_key(self, event: Key) -> None:
        """Keys that were typed ahead of an edit lie in this widget's queue: they are passed on to the field."""
        event.stop()
        focused = self.screen.focused
        if self.app.screen is not self.screen:
            await typed_ahead(self.app.screen, event)
            return
        if focused is not self and focused is not None:
            focused.post_message(Key(event.key, event.character))
            return
        await do_at_once(self, event)

    def action_turn(self, by: int) -> None:
        self.post_message(self.Turned(by))

    def _row(self, field: Field, problem: str) -> Row:
        words = next((option.words for option in field.options if option.value == field.value), "")
        # Padded, so that the columns stay where they are whatever is typed.
        label = fit(cut(field.label, self._label_width), self._label_width)
        value = fit(cut(field.value or "–", self.value_width), self.value_width)
        tone = "bad" if problem else "faint" if field.origin.startswith("default") else ""
        return Row(field.key, (label, value, f"▲ {problem}" if problem else words or field.origin), tone)


class FieldInput(Input):
    """The value of one row while it is typed; Tab and the arrows take it and go on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,tab", "leave(1)", "next field", show=False, id="field.down", tooltip="Take it, go on."),
        Binding("up,shift+tab", "leave(-1)", "field before", show=False, id="field.up", tooltip="Take it, go back."),
    ]  # fmt: skip

    class Left(Message):
        """The value is taken, and the cursor is to move."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    async def on_key(self, event: Key) -> None:
        """Backspace and Enter in their place among the letters, as they were typed."""
        if not event.is_printable:
            event.stop()
            await do_at_once(self, event)

    def action_leave(self, by: int) -> None:
        self.post_message(self.Left(by))


async def do_at_once(widget: Widget, event: Key) -> None:
    """Do what a key is bound to before the next key is looked at.

    Textual hands a burst of keys to whatever has the focus when they come, and looks up what they do later: a value
    that is typed ahead after Enter would be lost, or taken for keys of the form, of which one starts a run.
    """
    active = widget.screen.active_bindings.get(event.key)
    if active is not None and active.enabled:
        await widget.app.run_action(active.binding.action, default_namespace=active.node)
