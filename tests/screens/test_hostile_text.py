"""No text of a stranger reaches the terminal raw: every widget and screen, by the bytes a pseudo-terminal received."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.screens.furnished_workspace import PAIRS, RUN_DONE, furnish
from tests.screens.hostile_corpus import CANARY, SHOWN, Corpus, check_unharmed
from tests.screens.pty_terminal import ENTER, ESCAPE, TAB, PtyTerminal, app_command
from tests.screens.widget_show import CORPUS, WIDGETS
from workbench.workspace import Workspace

MEGABYTE = 1_000_000
QUIET_S = 0.15
"""After a key; what comes later than that is looked at with the bytes of the keys that follow."""


@pytest.fixture(scope="module")
def show(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PtyTerminal]:
    """The program that shows each widget."""
    workspace = furnish(tmp_path_factory.mktemp("show"))
    program = str(Path(__file__).with_name("widget_show.py"))
    with PtyTerminal([sys.executable, program, str(workspace.root)], size=(110, 40)) as terminal:
        terminal.sees("show")
        terminal.settle()
        yield terminal


class TestWidgets:
    """A widget of ours makes a payload visible; Textual's own field leaves it out at the last door."""

    @pytest.mark.parametrize("name", list(WIDGETS))
    def test_shows_what_would_do_harm(self, show: PtyTerminal, name: str) -> None:
        show.send(WIDGETS[name])
        mark = f"Zq{CORPUS.places[name]:02d}"
        if name == "too small":
            show.settle(QUIET_S)
            show.resize(40, 10)
            show.sees("too small")
            show.resize(110, 40)
            show.until(lambda: "too small" not in show.text, "the widget again")
        elif name in ("field", "ask text"):
            show.sees(mark)
        else:
            made_visible = f"{mark} and what makes its payload visible"
            show.until(lambda: any(found[0].startswith(mark) for found in SHOWN.finditer(show.text)), made_visible)
        if name == "task":
            show.sees("esc cancels")
        show.settle(QUIET_S)
        show.press(ESCAPE if name in ("question", "ask text", "reading") else "x")
        if name == "task":
            show.until(lambda: "esc cancels" not in show.text, "the task's end")
        check_unharmed(show, name)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Corpus]:
    """A workspace in which every text does harm, the name of its own folder too."""
    corpus = Corpus()
    # A backslash before a bracket in a path is beyond what DuckDB can be told.
    folder = (
        corpus.said("folder")
        .replace("/", "|")
        .replace("\0", "")
        .replace("\\", "|")
        .encode()[:200]
        .decode("utf-8", "ignore")
    )
    root = tmp_path_factory.mktemp("hostile") / folder
    root.mkdir()
    workspace = furnish(root, corpus.said, long_cell=MEGABYTE)
    (workspace.runs / "evil\x1b]0;9753\x07").mkdir()
    (workspace.datasets / "evil\x1b[2J").mkdir()
    return workspace, corpus


SCRIPTS: dict[str, tuple[str, list[str]]] = {
    "home": ("", [TAB, "?", "q", ":", "Zq", ESCAPE]),
    "datasets": ("", ["j", "?", "q", "/", "Zq", ENTER, ESCAPE]),
    "inspect": ("demonstrations", ["j", "j", "l", ENTER, "n", "r", "m", ESCAPE, "/", "Zq", ENTER]),
    "sql": ("demonstrations", [ENTER, "j", "l", ENTER, "n", ESCAPE, "e", TAB, "\x12", ESCAPE, "?"]),
    "add": ("FILE", [TAB, "\x07", "q", TAB, ESCAPE]),
    "pairs": ("", ["j", ENTER, "q"]),
    "label": (PAIRS, ["2", "3", "u", "c", "Zq", ESCAPE]),
    "launch": ("", ["j", "p", "q", "a"]),
    "runs": ("", ["j", "l", "q", "k", "?", "q"]),
    "curves": (RUN_DONE, ["s", "n", "l", "m", "c", "j", "."]),
    "compare": ("", ["r", "j", ENTER, "a", "p"]),
}
"""Station → (subject, keys that show all it has)."""


class TestScreens:
    @pytest.mark.parametrize("station", list(SCRIPTS))
    def test_shows_a_workspace_full_of_harm(self, hostile: tuple[Workspace, Corpus], station: str) -> None:
        workspace, corpus = hostile
        subject, keys = SCRIPTS[station]
        if subject == "FILE":
            subject = str(
                next(path for path in workspace.root.parent.iterdir() if path.name.startswith("demonstrations"))
            )
        arguments = ["--station", station, *(["--subject", subject] if subject else [])]
        with PtyTerminal(app_command(workspace.root, *arguments), size=(100, 40)) as terminal:
            terminal.until(lambda: bool(CANARY.search(terminal.text) or "9753" in terminal.text), "hostile text")
            terminal.settle()
            # A line may break inside a canary; what stands in the payloads is seen then.
            seen = corpus.shown_places(terminal.text) or {"9753"}
            for key in keys:
                terminal.send(key)
                terminal.settle(QUIET_S)
                assert terminal.foreign == [], f"{station} after {key!r}"
                seen |= corpus.shown_places(terminal.text)
            terminal.settle()
            check_unharmed(terminal, station)  # of every byte since the start
            assert seen, terminal.text
