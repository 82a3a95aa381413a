"""The app: one workspace, a stack of stations, and the things that every station may ask for.

Owns going from station to station, what the palette lists, how errors are told, and the last door before the terminal.
Invariants: nothing here stops a run; a station is imported when it is first gone to, so that Home is there at once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from os import _exit
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual._context import active_message_pump
from textual.actions import ActionParseResult
from textual.app import App
from textual.binding import Binding, BindingType
from textual.events import Key
from textual.filter import LineFilter, Monochrome

from engine.run.safe_text import safe
from screens.stations import LOOP, STATIONS
from screens.terminal_door import TerminalDoor
from screens.themes import DEFAULT, THEMES, WithoutColour
from screens.typing_ahead import ready, typed_ahead
from workbench.ascii_text import lacks_utf8
from workbench.errors import WorkbenchError
from workbench.user_settings import UserSettings, change_panels
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from textual.dom import DOMNode

    from screens.guide import Guide
    from screens.station import Station
    from workbench.rows_ahead import RowsAhead

HUNG_UP = 128 + signal.SIGHUP
TOAST_S = 4.0
ERROR_TOAST_S = 10.0
LONGEST_TOAST = 240
"""Characters, which are five lines on a narrow terminal: the screen below must stay readable."""
MOST_SETTINGS_TOLD = 3
BELOW = 1
"""Screens that lie under Home: Textual's own empty one."""


class WorkbenchApp(App[int]):
    """The workbench on a terminal."""

    CSS_PATH = Path(__file__).with_name("app.tcss")
    ENABLE_COMMAND_PALETTE = False
    TITLE = "workbench"
    only: ClassVar[bool] = False
    """Whether there is one screen and no way to another."""
    BINDINGS: ClassVar[list[BindingType]] = [
        # Textual quits on ctrl+q, which is flow control in many terminals.
        Binding("ctrl+q", "nothing", "", show=False, priority=True),
    ]

    def __init__(
        self,
        workspace: Workspace,
        *,
        settings: UserSettings | None = None,
        station: str = "home",
        subject: str = "",
        guide: Guide | None = None,
        ascii_only: bool | None = None,
        ahead: RowsAhead | None = None,
    ) -> None:
        """`station` and `subject` are where the app begins, `ahead` the rows it begins with; Home lies under it."""
        super().__init__(css_path=[self.CSS_PATH, *_styles_of(station)])
        self.workspace = workspace
        self.settings = settings or UserSettings()
        self.guide = guide
        self._begin = (station, subject)
        self._ahead = ahead
        self.last_told = ""
        """The last toast, whole."""
        self.subjects: dict[str, str] = {}
        """What each station was last about."""
        self._door = TerminalDoor(ascii_only=lacks_utf8() if ascii_only is None else ascii_only)
        # Always the same: lines that were made with them are kept.
        self._colourless = WithoutColour()
        self.animation_level = "none"
        for theme in THEMES.values():
            self.register_theme(theme)
        self.theme = self.settings.theme if self.settings.theme in THEMES else DEFAULT
        if self.settings.keys:
            from screens.key_settings import keymap_of

            self.set_keymap(keymap_of(self.settings.keys))

    @property
    def crash(self) -> BaseException | None:
        """The fault of this program that ended the app, if one did."""
        return self._exception

    @property
    def place(self) -> str:
        """host:path of the workspace, the home folder as ~."""
        root, home = str(self.workspace.root), str(Path.home())
        path = "~" + root[len(home) :] if root == home or root.startswith(home + "/") else root
        return f"{socket.gethostname()}:{path}"

    @property
    def plain(self) -> bool:
        """Whether the terminal has ASCII alone."""
        return self._door.ascii_only

    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = [self._colourless if isinstance(one, Monochrome) else one for one in super().get_line_filters()]
        return [*filters, self._door]

    def on_mount(self) -> None:
        with_loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            with_loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        # Home is made when one comes back to it: what was asked for is there sooner.
        self.push_screen(self._made(*self._begin))
        self.run_worker(self._look_at_settings(), exit_on_error=True)
        if self.workspace.read_only_reason:
            self.tell(f"read-only: {self.workspace.read_only_reason}", "warning")

    async def on_key(self, event: Key) -> None:
        """A key that nothing on its way took: one of a burst may have been on it before its field was there."""
        if await typed_ahead(self.screen, event):
            event.prevent_default()

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """As Textual's, once the screen is ready for it; what a widget asks for itself cannot wait for that widget."""
        if active_message_pump.get() is self:
            await ready(self.screen)
        return await super().run_action(action, default_namespace, namespaces)

    def rows_ahead(self, address: str) -> RowsAhead | None:
        """What reads the first rows already, where they are those of `address`: once, for whoever takes them."""
        if self._ahead is None or self._ahead.address != address:
            return None
        ahead, self._ahead = self._ahead, None
        return ahead

    # Where to go.

    def go(self, station: str, subject: str = "") -> None:
        """Show a station above Home, in the place of the one that is there; `subject` is what it is about.

        One that belongs to another station lies above that, so that back goes where one would look for it.
        """
        self._down_to_home()
        if beside := STATIONS[station].beside:
            self.push_screen(self._made(beside, ""))
        if station != "home":
            self.push_screen(self._made(station, subject))

    def open(self, station: str, subject: str = "") -> None:
        """Show a station above the present one: back returns here."""
        self.push_screen(self._made(station, subject))

    def back(self) -> None:
        """One screen back; at the top it asks before it ends the app."""
        if len(self.screen_stack) > BELOW + 1:
            self.pop_screen()
        elif getattr(self.screen, "NAME", "") != "home":
            self._down_to_home()
        else:
            self._ask_to_quit()

    def go_to_neighbour(self, station: str, by: int) -> None:
        """The station before or after one in the loop."""
        place = LOOP.index(station) if station in LOOP else LOOP.index(STATIONS[station].beside)
        self.go(LOOP[(place + by) % len(LOOP)])

    def show_help(self) -> None:
        """What one does on this screen, and its keys."""
        from screens.help import help_page

        self.push_screen(help_page(self.screen))

    def show_palette(self) -> None:
        """Anything by name."""
        from screens.palette import Palette

        self.push_screen(Palette())

    # What to say.

    def here(self, text: str) -> str:
        """`text` with the paths of this workspace as they are inside it: where it lies stands in every header."""
        return text.replace(f"{self.workspace.root}/", "")

    def tell(self, message: str, severity: str = "information") -> None:
        """A toast; severity is information, warning or error."""
        timeout = TOAST_S if severity == "information" else ERROR_TOAST_S
        self.last_told = message = self.here(message)
        shown = safe(message, LONGEST_TOAST)
        if len(message) > LONGEST_TOAST:
            shown += "  (: last message shows all)"
        self.notify(shown, severity=severity, timeout=timeout, markup=False)  # type: ignore[arg-type]

    def complain(self, error: BaseException) -> None:
        """Tell an error: as it is where a person can act on it, else as a fault of this program."""
        from screens.station import KNOWN_ERRORS

        if isinstance(error, KNOWN_ERRORS):
            self.tell(str(error), "error")
        else:
            self.log.error(repr(error))
            self.tell(f"a fault in this program: {type(error).__name__}: {error}", "error")

    def keep_panels(self, method: str, choice: tuple[str, ...]) -> None:
        """Which panels of Curves a person wants for a method: from now on, and in their config.toml."""
        panels = {name: names for name, names in self.settings.curves.items() if name != method}
        self.settings = replace(self.settings, curves=panels | ({method: choice} if choice else {}))
        try:
            change_panels(method, choice)
        except WorkbenchError as error:
            self.complain(error)

    async def _look_at_settings(self) -> None:
        """Tell what the person's settings name that is not there."""
        problems = list(self.settings.problems)
        if self.settings.theme and self.settings.theme not in THEMES:
            problems.append(f"no theme is called {self.settings.theme!r}; there are: {', '.join(THEMES)}.")
        if self.settings.keys:
            from screens.key_settings import problems_of

            problems += await asyncio.to_thread(problems_of, self.settings.keys)  # it imports every screen
        if more := problems[MOST_SETTINGS_TOLD:]:
            problems = [*problems[:MOST_SETTINGS_TOLD], f"and {len(more)} more like these."]
        if problems:
            self.tell("config.toml: " + " ".join(problems), "warning")

    def _fatal_error(self) -> None:
        """Textual would print a traceback with the values of all variables; ours is told by who opened the app."""
        self._close_messages_no_wait()

    # The guide, where there is one.

    def guide_looks_at(self, station: str) -> None:
        """Tell the guide which station is shown; one that lies under another is not."""
        if self.guide is not None and getattr(self.screen, "NAME", station) == station:
            self.guide.looks_at(station)

    def action_nothing(self) -> None:
        """A key that does nothing here, so that it cannot do what Textual would."""

    def _down_to_home(self) -> None:
        """Leave all stations but Home, which is made where there is none."""
        while len(self.screen_stack) > BELOW + 1:
            self.pop_screen()
        if getattr(self.screen, "NAME", "") != "home":
            self.switch_screen(self._made("home", ""))

    def _made(self, station: str, subject: str) -> Station:
        subject = subject or self.subjects.get(station, "")
        if subject:
            self.subjects[station] = subject
        return _class_of(station)(subject)

    def _ask_to_quit(self) -> None:
        from screens.modals import Choice, Question

        question = Question(
            "Leave the workbench?",
            [Choice("q", "leave"), Choice("y", "", "q")],
            details="Runs go on without it, and every verdict is on the disk.",
        )
        self.push_screen(question, lambda answer: self.exit(0) if answer == "q" else None)

    def _hang_up(self) -> None:
        """The link is gone. Verdicts are on the disk and runs have sessions of their own: just end, surely and soon."""
        last_resort = threading.Timer(2.0, _exit, [HUNG_UP])
        last_resort.daemon = True
        last_resort.start()
        self.exit(HUNG_UP)


def _class_of(station: str) -> type[Station]:
    place = STATIONS[station]
    found: type[Station] = getattr(import_module(place.module), place.class_name)
    return found


def _styles_of(station: str) -> list[Path]:
    """The style files of the first station: those that come with its screen make Textual read all of them again."""
    named = _class_of(station).CSS_PATH
    return [Path(__file__).with_name(str(name)) for name in (named if isinstance(named, list) else [named]) if name]
