"""Text whose first key opens the field that it is meant for, and which was on its way when there was no field yet.

A slow link delivers `/`, a word and Enter at once: Textual hands all of them to what has the focus then, and they come
back up to the app one by one. Owns where such a key goes. Invariants: it is typed into the field that has the focus by
now, in the order of the keys, and is never a command; a field that selects its text at its first focus has it replaced.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from textual.events import Key
from textual.screen import Screen
from textual.widgets import Input

ENTER = "\n"
WIDGETS_WAIT_S = 0.001
"""Between two looks whether a screen that was just opened has its widgets."""
LONGEST_NEWS_S = 1.0
"""For a field that never hears of it, as one that is taken apart."""


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
            field.call_later(type_into, field, text)
        if entered:
            field.call_later(field.action_submit)


async def typed_ahead(screen: Screen[Any], event: Key) -> bool:
    """Give a key that nothing took to the field that `screen` has, or will have; whether it was one to type."""
    text = event.character if event.is_printable else None
    field = screen.focused
    if isinstance(screen, Typing) and not screen.takes_keys:
        text = text or (ENTER if event.key == "enter" else None)
        if text:
            screen.type_ahead(text)
    elif text and isinstance(field, Input) and not field.disabled:  # it takes such keys itself, where they reach it
        await heard(field)
        if screen.focused is field:  # Enter before it may have left the field
            type_into(field, text)
    else:
        return False
    return bool(text)


async def ready(screen: Screen[Any]) -> None:
    """Until a screen has its widgets, and its field the text before: all may come in one burst. For the app alone."""
    while not screen.is_mounted and screen in screen.app.screen_stack:
        await asyncio.sleep(WIDGETS_WAIT_S)
    if isinstance(screen.focused, Input):
        await heard(screen.focused)


async def heard(field: Input) -> None:
    """Until a field has dealt with what is on its way to it: that it has the focus, which selects, or a text before."""
    done = asyncio.Event()
    if field.call_later(done.set):
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), LONGEST_NEWS_S)


def type_into(field: Input, text: str) -> None:
    """Type a text in the place of what is selected."""
    field.delete_selection()
    field.insert_text_at_cursor(text)
