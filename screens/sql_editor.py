"""Typing a query: enter runs it, tab completes a name, the arrows at its edges go through what was run before.

Owns the text and the place in the history. Completion is `workbench.sql_completion`'s. Invariant: a query that was
begun and not run is there again below the newest of the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Key
from textual.message import Message
from textual.widgets import TextArea

from workbench.sql_completion import complete
from workbench.sql_views import SqlView


class SqlEditor(TextArea):
    """A query."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+up", "history(-1)", "query before", show=False, id="sql.before",
                tooltip="The query that was run before; so does up in the first line."),
        Binding("ctrl+down", "history(1)", "next query", show=False, id="sql.next",
                tooltip="The query that was run after it; so does down in the last line."),
    ]  # fmt: skip
    DEFAULT_CSS = """
    SqlEditor, SqlEditor:focus { border: none; padding: 0 1; height: 1fr; }
    """

    class Wanted(Message):
        """Enter: the query shall run."""

    class Offered(Message):
        """Tab: what the word may become, where that is more than one thing or none."""

        def __init__(self, offers: Sequence[str]) -> None:
            super().__init__()
            self.offers = tuple(offers)

    def __init__(self, text: str, *, id: str | None = None) -> None:
        super().__init__(text, id=id, soft_wrap=True, tab_behavior="focus")
        self.cursor_blink = False
        self.views: tuple[SqlView, ...] = ()
        """What can be named here."""
        self.past: list[str] = []
        """Queries that were run, the oldest first."""
        self._place = 0
        """How far back in the history, from 0: what is being typed."""
        self._begun = text

    def put(self, text: str) -> None:
        """Replace the query; the cursor goes to its end."""
        self.text = text
        self.move_cursor(self.document.end)

    def remember(self, query: str) -> None:
        """Take a query that was run into the history."""
        self.past = [one for one in self.past if one != query] + [query]
        self._place = 0

    def action_history(self, by: int) -> None:
        """Go through the history; -1 is back."""
        place = max(0, min(self._place - by, len(self.past)))
        if place == self._place:
            return
        if self._place == 0:
            self._begun = self.text
        self._place = place
        self.put(self.past[-place] if place else self._begun)

    async def _on_key(self, event: Key) -> None:
        line, last = self.cursor_location[0], self.document.line_count - 1
        if event.key == "enter":
            self.post_message(self.Wanted())
        elif event.key == "ctrl+j":
            self.insert("\n")
        elif event.key == "tab":
            self._complete()
        elif event.key == "up" and line == 0:
            self.action_history(-1)
        elif event.key == "down" and line == last:
            self.action_history(1)
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    def _complete(self) -> None:
        line, cursor = self.cursor_location
        before = sum(len(self.document.get_line(place)) + 1 for place in range(line))
        found = complete(self.text, before + cursor, self.views)
        word = self.text[found.start : before + cursor]
        grown = found.common
        if len(found.offers) == 1 or len(grown) > len(word):
            self.replace(grown, (line, cursor - len(word)), self.cursor_location)
        if len(found.offers) != 1:
            self.post_message(self.Offered(found.offers))
