"""The app of an annotator behind an SSH key: the label screen of one pair set, and no way out but the door.

Owns what is taken away: the other stations, the palette, suspending, screenshots, links, and starting any program.
Invariants: whatever a key, a binding of the owner's settings or a message asks for, the only station is the label
screen that was named; after `forbid_programs` this process starts no other, by an audit hook that cannot be removed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from textual.app import SystemCommand
from textual.screen import Screen

from screens.app import BELOW, WorkbenchApp
from screens.station import Station

LABEL = "label"
REFUSED = "this key opens the label screen alone"
_PROGRAMS = ("subprocess.", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.fork", "os.startfile", "pty.")
_REACHING_OUT = ("socket.connect", "socket.bind", "webbrowser.open", "ctypes.dlopen", "sqlite3.connect")


class OnlyLabelApp(WorkbenchApp):
    """The workbench with one screen."""

    only = True

    def go(self, station: str, subject: str = "") -> None:
        self.tell(REFUSED, "warning")

    def open(self, station: str, subject: str = "") -> None:
        self.tell(REFUSED, "warning")

    def go_to_neighbour(self, station: str, by: int) -> None:
        self.tell(REFUSED, "warning")

    def show_palette(self) -> None:
        self.tell(REFUSED, "warning")

    def back(self) -> None:
        if len(self.screen_stack) > BELOW + 1:
            self.pop_screen()
        else:
            self._ask_to_quit()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        return ()

    def action_suspend_process(self) -> None:
        self.tell(REFUSED, "warning")

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        self.tell(REFUSED, "warning")

    def open_url(self, url: str, *, new_tab: bool = True) -> None:
        self.tell(REFUSED, "warning")

    def _made(self, station: str, subject: str) -> Station:
        if station != LABEL:
            raise PermissionError(REFUSED)
        return super()._made(station, subject)


def forbid_programs() -> None:
    """From now on this process starts no program, opens no socket and loads no library by name."""

    def look(event: str, about: tuple[object, ...]) -> None:
        if event == "ctypes.dlopen" and about[0] is None:
            return  # the program itself, which importing ctypes looks at
        if event.startswith(_PROGRAMS) or event in _REACHING_OUT:
            raise PermissionError(f"{REFUSED}: {event} is refused")

    sys.addaudithook(look)
