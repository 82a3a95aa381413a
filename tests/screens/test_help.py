"""`?` on every screen, and ctrl+g in its place where a text is typed: the page, and back to what was being done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from screens.app import WorkbenchApp
from screens.modals import AskText, Dialog, Question, Reading
from screens.palette import Palette
from screens.station import Station
from screens.stations import STATIONS
from tests.screens.driving import drive, sees, until
from tests.screens.every_station import SUBJECTS, idle
from tests.screens.pty_terminal import TAB, PtyTerminal, app_command
from workbench.workspace import Workspace


async def help_is_there_and_back(app: WorkbenchApp, pilot: Pilot[int], key: str, words: str) -> None:
    """Open the page by `key`, see `words` of this very screen in it, and be back where one was."""
    below, focused = app.screen, app.focused
    await pilot.press(key)
    await until(pilot, lambda: isinstance(app.screen, Reading), f"help over {below}")
    text = app.screen.query_one("TextView").text  # type: ignore[attr-defined]
    assert words in " ".join(text.split()), text
    assert ("A text is being typed" in text) == isinstance(focused, Input)
    await pilot.press("q")
    await until(pilot, lambda: app.screen is below)
    assert app.focused is focused


def test_every_station_and_every_modal_has_words_and_the_key() -> None:
    for place in STATIONS.values():
        import_module(place.module)
    for screen in (*subclasses(Station), *subclasses(Dialog)):
        assert screen.HELP, screen
        assert screen.TITLE, screen
        keys = {key for key, binding in screen._merge_bindings() if binding.id == "help"}
        assert keys == {"question_mark", "ctrl+g"}, screen


def subclasses(base: type[Any]) -> Iterator[type[Any]]:
    """The classes of the app below a base, wherever in the tree."""
    for found in base.__subclasses__():
        if found.__module__.startswith("screens."):
            yield found
        yield from subclasses(found)


def test_while_a_text_is_typed_and_what_is_typed_stays(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        for station, keys, typed in (
            ("datasets", ["slash", *"froz"], "froz"),
            ("add", [], None),
            ("launch", ["enter"], None),
        ):
            app.go(station, SUBJECTS.get(station, ""))
            await idle(app, pilot)
            if station == "launch":
                await sees(pilot, "method")
                app.screen.query_one("#form").move_to("optim.lr")  # type: ignore[attr-defined]
            await pilot.press(*keys)
            await until(pilot, lambda: isinstance(app.focused, Input), f"typing on {station}")
            before = app.focused.value  # type: ignore[union-attr]
            assert typed is None or before == typed
            await sees(pilot, "ctrl+g keys")
            await pilot.press("question_mark")  # is typed
            assert app.focused.value != before  # type: ignore[union-attr]
            before = app.focused.value  # type: ignore[union-attr]
            await help_is_there_and_back(app, pilot, "ctrl+g", "ctrl+g also while a text is typed")
            assert app.focused.value == before  # type: ignore[union-attr]
            await pilot.press("escape")

    drive(script, workspace)


@pytest.mark.parametrize("plain", [False, True])
def test_the_marks_of_curves_are_named_as_they_are_drawn(workspace: Workspace, plain: bool) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await idle(app, pilot)
        words = app.screen.help_words  # type: ignore[attr-defined]
        assert ("x marks held-out data" in words) is plain
        assert ("◆ marks held-out data" in words) is not plain
        await help_is_there_and_back(app, pilot, "question_mark", "X on the axis" if plain else "× on the axis")

    drive(script, workspace, station="curves", ascii_only=plain)


@pytest.mark.parametrize(
    ("make", "key", "words"),
    [
        (lambda: Question("Sure?", []), "question_mark", "Press the key of what you want"),
        (lambda: AskText("A name?", value="half"), "ctrl+g", "enter takes it"),
        (Palette, "ctrl+g", "a colour theme"),
    ],
    ids=["question", "text", "palette"],
)
def test_on_a_modal(workspace: Workspace, make: Callable[[], Dialog[Any]], key: str, words: str) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        modal = make()
        app.push_screen(modal)
        await until(pilot, lambda: app.screen is modal and bool(modal.query("Line, Input")))
        await help_is_there_and_back(app, pilot, key, words)

    drive(script, workspace)


def test_on_a_real_terminal_the_key_is_named_and_opens_it(workspace: Workspace) -> None:
    """ctrl+g is one byte on any terminal, and neither tmux nor flow control takes it."""
    with PtyTerminal(app_command(workspace.root, "--station", "add")) as terminal:
        terminal.sees("ctrl+g keys")
        terminal.press("no-such", "\x07", sees="Name a file, and see")
        terminal.press("q", TAB, sees="no-such")
        assert "Name a file, and see" not in terminal.text
