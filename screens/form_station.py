"""A station that is a form: rows of fields, one of which is edited in its place, and what is wrong beside each.

Owns the editing: Enter, what is typed ahead, going through choices, Esc. A form says which fields it has, what is wrong
with them and what it does with a value. Refuses to know what a field means.
"""

from __future__ import annotations

from abc import abstractmethod

from textual import on
from textual.containers import Container
from textual.widgets import Input

from screens.launch_options import OptionPage
from screens.launch_rows import FieldInput, FormRows
from screens.line import Line
from screens.row_list import RowList
from screens.station import Station
from workbench.launch_form import Field


class FormStation(Station):
    """The base of the forms."""

    TITLE = "a form"
    HELP = "j and k move, Enter edits, h and l go through the choices; what is wrong stands beside its field."
    AUTO_FOCUS = "#form"
    FORM_ACTIONS: frozenset[str] = frozenset()
    """Actions of the form that do nothing while a field is edited, besides those of every form."""

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._every = False
        """Whether all fields are shown, and not only those that matter."""
        self._problems: dict[str, str] = {}
        """What is drawn: field -> what is wrong with it."""
        self._editing, self._typed = "", ""

    # What a form says of itself.

    @abstractmethod
    def form_fields(self, *, every: bool) -> tuple[Field, ...]:
        """The fields now; none while it is not known what there is."""

    @abstractmethod
    def problems_with(self, key: str, typed: str) -> dict[str, str]:
        """Field -> what is wrong, if `typed` stood in `key`; with an empty key, as it stands."""

    @abstractmethod
    def put_value(self, key: str, value: str) -> None:
        """Take a value; the empty text is the default."""

    def default_value(self, key: str) -> str:
        """What stands for the default of a field."""
        return ""

    def kept(self) -> None:
        """Something was changed that is to be there when one comes back."""

    # What it draws.

    def form_widgets(self) -> Container:
        """The rows and the field over them."""
        edit = FieldInput(id="edit", select_on_focus=False)
        edit.cursor_blink = False
        return Container(FormRows(self.action_edit), edit, id="left")

    def draw_form(self) -> None:
        """Draw the fields, what is wrong with them, and what the one under the cursor means."""
        fields = self.form_fields(every=self._every)
        if fields:
            self._problems = self.problems_with(self._editing, self._typed)
            self.query_one(FormRows).show_fields(fields, self._problems)
            self.explain()

    def explain(self) -> None:
        """Say what the field under the cursor means, or what is wrong with it."""
        field = self.field_here()
        problem = self._problems.get(field.key, "") if field else ""
        words = (f"▲ {problem}", "$error") if problem else (field.explanation if field else "", "$text-muted")
        self.query_one("#explains", Line).show(words)

    def field_here(self) -> Field | None:
        """The field under the cursor."""
        key = self.query_one(FormRows).key
        return next((one for one in self.form_fields(every=True) if one.key == key), None) if key else None

    def go_to_fault(self, key: str, problem: str) -> None:
        """Put the cursor on a field that is wrong, and say what is."""
        if key not in [row.key for row in self.query_one(FormRows).rows] and not self._every:
            self.action_every()
        self.query_one(FormRows).move_to(key)
        self.say(f"{key}: {problem}", "bad")

    @on(RowList.Moved)
    def _moved(self) -> None:
        self.explain()

    # Editing.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a field is edited no key of the form does anything but leave it."""
        if self._editing and action in {"every", "restore", "filter", "edit", *self.FORM_ACTIONS}:
            return False
        return super().check_action(action, parameters)

    def action_edit(self) -> None:
        field = self.field_here()
        if field is None:
            return
        if field.options:
            self.app.push_screen(OptionPage(field), lambda value: self._take(field.key, value))
            return
        self._editing, self._typed = field.key, field.value
        edit = self.query_one("#edit", FieldInput)
        edit.value = field.value
        edit.display = True
        self.place_edit()
        self.set_focus(edit)  # at once: keys that were typed ahead belong to it
        edit.action_end()
        self.say("enter takes it, esc leaves it, empty is the default")

    def place_edit(self) -> None:
        """Put the field that is edited over its row."""
        if not self._editing:
            return
        rows = self.query_one(FormRows)
        edit = self.query_one("#edit", FieldInput)
        edit.styles.offset = rows.value_place()
        edit.styles.width = rows.value_width

    @on(Input.Changed, "#edit")
    def _typing(self, event: Input.Changed) -> None:
        event.stop()
        if self._editing:
            self._typed = event.value
            self.draw_form()

    @on(Input.Submitted, "#edit")
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._end_edit(keep=True)

    @on(FieldInput.Left)
    def _left(self, event: FieldInput.Left) -> None:
        self._end_edit(keep=True)
        self.query_one(FormRows).action_move(event.by)

    def _end_edit(self, *, keep: bool) -> None:
        key, self._editing = self._editing, ""
        self.query_one("#edit", FieldInput).display = False
        self.set_focus(self.query_one(FormRows))
        self.say("")
        if keep and key:
            self._take(key, self._typed)
        else:
            self.draw_form()

    def action_back(self) -> None:
        if self._editing:
            self._end_edit(keep=False)
        elif self.query("#filter"):
            self._leave_filter(keep=False)
        else:
            super().action_back()

    @on(FormRows.Turned)
    def _turned(self, event: FormRows.Turned) -> None:
        field = self.field_here()
        if field is None:
            return
        values = [option.value for option in field.options]
        if not values:
            self.say("nothing to choose here; enter edits it")
        elif field.value in values:
            self._take(field.key, values[(values.index(field.value) + event.by) % len(values)])
        else:
            self._take(field.key, values[0])

    def action_restore(self) -> None:
        if field := self.field_here():
            self._take(field.key, self.default_value(field.key))

    def _take(self, key: str, value: str | None) -> None:
        if value is not None:
            self.put_value(key, value)

    def action_every(self) -> None:
        self._every = not self._every
        self.kept()
        self.draw_form()

    async def action_filter(self) -> None:
        if not self._every:
            self.action_every()
        await super().action_filter()
