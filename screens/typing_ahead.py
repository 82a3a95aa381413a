"""Text whose first key opens the field that it is meant for, and which was on its way when there was no field yet.

A slow link delivers `/`, a word and Enter at once: Textual hands all of them to what has the focus then, and they come
back up to the app one by one. Owns where such a key goes. Invariants: it is typed into the field that has the focus by
now, in the order of the keys, and is never a command; a field that selects its text at its first focus has it replaced.
"""

from __future__ import annotations

from typing import Any

from textual.events import Key
from textual.screen import Screen
from textual.widgets import Input

ENTER = "\n"


class Typing(Screen[Any]):
    """A screen of which the one field takes what is typed, from the moment that it is opened."""

    _ahead = ""
    """What was typed before there was a field to type into, ENTER included."""

    @property
    def takes_keys(self) -> bool:
        """Whether something of it has the focus, and nothing waits to go into the field before what is typed now."""
        return self.focused is not None and not self._ahead

    def type_ahead(self, text: str) -> None:
        """Put what was typed before the field was there into it, now or when it is."""
        self._ahead += text
        if self.focused is not None:
            self.take_ahead()

    def take_ahead(self) -> None:
        """The field is there, and has the focus. What was typed behind Enter is dropped."""
        (text, entered, _), self._ahead = self._ahead.partition(ENTER), ""
        field = self.query_one(Input)
        if text:
            type_into(field, text)
        if entered:
            field.call_later(field.action_submit)


def typed_ahead(screen: Screen[Any], event: Key) -> bool:
    """Give a key that nothing took to the field that `screen` has, or will have; whether it was one to type."""
    text = event.character if event.is_printable else None
    field = screen.focused
    if isinstance(screen, Typing) and not screen.takes_keys:
        text = text or (ENTER if event.key == "enter" else None)
        if text:
            screen.type_ahead(text)
    elif text and isinstance(field, Input) and not field.disabled:  # it takes such keys itself, where they reach it
        type_into(field, text)
    else:
        return False
    return bool(text)


def type_into(field: Input, text: str) -> None:
    """Type into a field that may not know yet that it has the focus."""
    if field.select_on_focus:
        field.clear()
        field.select_on_focus = False
        # Behind the news of the focus, which is on its way and would select what was typed.
        field.call_later(setattr, field, "select_on_focus", True)
    field.delete_selection()
    field.insert_text_at_cursor(text)
