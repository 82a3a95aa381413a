"""The palette: go to anything by a few letters of its name: stations, datasets, pair sets, runs, checkpoints, themes.

Owns what is listed and how it is matched: every word typed must occur, in any order, whatever its case. The list is
made when the palette opens; names are text from strangers and are shown as such.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import Input

from screens.key_line import key_name
from screens.modals import Dialog, Reading
from screens.row_list import Column, Row, RowList
from screens.station import KNOWN_ERRORS
from screens.stations import STATIONS
from screens.text_view import Block
from screens.themes import THEMES
from screens.typing_ahead import Typing
from workbench.palette_entries import things_of
from workbench.user_settings import change_setting

if TYPE_CHECKING:
    from screens.app import WorkbenchApp


COMMON = ("back", "help")
"""Actions of every screen."""


@dataclass(frozen=True)
class Entry:
    """One thing to go to or do."""

    kind: str
    name: str
    words: str
    do: Callable[[WorkbenchApp], None]


class Palette(Dialog[None], Typing):
    """Type, move with the arrows, Enter."""

    TITLE = "go to anything"
    HELP = (
        "Type a few letters of what you want, in any order: a screen, a dataset, a pair set, a run, a checkpoint, a "
        "model that is stored here, a colour theme, the last message, or something that the screen below can do. Up "
        "and down move, enter goes there or does it."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "leave", "leave", id="palette.leave", tooltip="Change nothing."),
        Binding(
            "down,ctrl+n", "move(1)", "down", show=False, priority=True, id="palette.down", tooltip="The next entry."
        ),
        Binding("up,ctrl+p", "move(-1)", "up", show=False, priority=True, id="palette.up", tooltip="The entry before."),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal page", id="palette"):
            field = Input(placeholder="go to or do …", id="wanted")
            field.cursor_blink = False
            yield field
            yield RowList(
                [Column("kind", longest=12), Column("name", longest=36), Column("what", flexible=True)],
                empty="nothing of that name",
                titles=False,
            )

    def on_mount(self) -> None:
        self._below = self.app.screen_stack[-2]
        self._entries: list[Entry] = [*self._actions(), *_stations(), *self._told()]
        self._complete = self._wanted = self._moved = False
        """Whether all entries are there; whether Enter came before they were; whether an entry was chosen by hand."""
        self._list()
        self.set_focus(self.query_one(Input))
        self.take_ahead()
        self.run_worker(self._find_things(), exit_on_error=True)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._wanted = self._moved = False
        self._list()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._complete:
            self._do(self.query_one(RowList).key)
        self._wanted = not self._complete  # a name typed ahead may be one that is still being read

    def on_row_list_opened(self, event: RowList.Opened) -> None:
        event.stop()
        self._do(event.key)

    def action_move(self, by: int) -> None:
        self._moved = True
        self.query_one(RowList).action_move(by)

    def action_leave(self) -> None:
        self.dismiss(None)

    def _do(self, key: str) -> None:
        if key:
            entry = self._entries[int(key)]
            app = cast("WorkbenchApp", self.app)
            self.dismiss(None)
            app.call_later(entry.do, app)

    def _list(self, *, stay: bool = False) -> None:
        """List what matches; the best is under the cursor, or with `stay` what was."""
        words = self.query_one(Input).value.casefold().split()
        found = [
            (_distance(entry, words), place, entry)
            for place, entry in enumerate(self._entries)
            if all(word in f"{entry.kind} {entry.name} {entry.words}".casefold() for word in words)
        ]
        found.sort(key=lambda one: one[:2])
        rows = [Row(str(place), (entry.kind, entry.name, entry.words)) for _, place, entry in found]
        listed = self.query_one(RowList)
        listed.show(rows)
        if not stay:
            listed.action_edge(-1)

    def _actions(self) -> list[Entry]:
        """What the screen below can do, by its keys."""
        found: dict[str, Entry] = {}
        for active in self._below.active_bindings.values():
            binding, node = active.binding, active.node
            if binding.show and binding.id and active.enabled and binding.action not in found:
                words = f"{binding.tooltip}  ({key_name(binding.key)})"
                action = binding.action
                found[action] = Entry("action", binding.description, words, _runs(action, node))
        found.pop("palette", None)
        # To leave and to be helped come last: Enter on an empty line shall do neither.
        return [entry for action, entry in sorted(found.items(), key=lambda one: one[0] in COMMON)]

    def _told(self) -> list[Entry]:
        """The last toast, which may have been cut and is gone."""
        told = cast("WorkbenchApp", self.app).last_told

        def show(app: WorkbenchApp) -> None:
            app.push_screen(Reading([Block(told)]))

        return [Entry("action", "last message", told, show)] if told else []

    async def _find_things(self) -> None:
        app = cast("WorkbenchApp", self.app)
        try:
            things = await asyncio.to_thread(things_of, app.workspace)
        except KNOWN_ERRORS as error:
            app.complain(error)
            things = []
        self._entries += [
            Entry(thing.kind, thing.name, thing.words, _goes(thing.station, thing.subject)) for thing in things
        ]
        self._complete = True
        self._list(stay=self._moved)
        if self._wanted:
            self._do(self.query_one(RowList).key)


def _distance(entry: Entry, words: Sequence[str]) -> int:
    """How far an entry is from what was typed: its name first, then names and kinds that begin so, then the rest."""
    name, kind = entry.name.casefold(), entry.kind
    if name == " ".join(words):
        return 0
    if all(name.startswith(word) or kind.startswith(word) for word in words):
        return 1
    return 2 if all(word in f"{kind} {name}" for word in words) else 3


def _stations() -> list[Entry]:
    places = [Entry("screen", name, place.words, _goes(name)) for name, place in STATIONS.items()]
    return places + [Entry("theme", name, "colours", _wears(name)) for name in THEMES]


def _goes(station: str, subject: str = "") -> Callable[[WorkbenchApp], None]:
    return lambda app: app.go(station, subject)


def _wears(theme: str) -> Callable[[WorkbenchApp], None]:
    def wear(app: WorkbenchApp) -> None:
        app.theme = theme
        try:
            change_setting("theme", theme)
        except Exception as error:  # told, whatever it is: the theme is worn all the same
            app.complain(error)

    return wear


def _runs(action: str, node: object) -> Callable[[WorkbenchApp], None]:
    def run(app: WorkbenchApp) -> None:
        async def later() -> None:
            await app.run_action(action, default_namespace=cast("Screen[object]", node))

        app.run_worker(later(), exit_on_error=True)

    return run
