"""The app on a terminal: what it sends, what it says where it cannot draw, and what is left when the link dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from engine.run.folder import RunFolder
from screens.stations import LOOP, STATIONS
from tests.engine.run.run_processes import fake_worker
from tests.screens.pty_terminal import DOWN, ESCAPE, ROOT, PtyTerminal, app_command, tokens
from tests.workbench.run_folders import make_run
from workbench.run_control import stop_run
from workbench.run_list import Run
from workbench.workspace import Workspace

MOUSE = ("1000", "1003", "1006", "1015")
QUIET_S = 0.7
"""A station that is at rest sends nothing for so long; while it is read for, it may take its time."""


@contextmanager
def app_on(workspace: Workspace, *arguments: str, **options: object) -> Iterator[PtyTerminal]:
    """The app, when it has drawn itself and is quiet."""
    with PtyTerminal(app_command(workspace.root, *arguments), **options) as terminal:  # type: ignore[arg-type]
        terminal.sees("workbench")
        drawn = "demonstrations", "compare 1124"
        terminal.until(lambda: any(words in terminal.text for words in drawn), "the first screen")
        terminal.settle(QUIET_S)
        yield terminal


def modes_sent(terminal: PtyTerminal) -> set[str]:
    text = terminal.received.decode()
    return {token.found["mode"] for token in tokens(text) if token.found is not None and token.found["mode"]}


def state_of(pid: int) -> str:
    """R, S, T … of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class TestOnePerson:
    """One start, many looks: the app in an ordinary terminal, resized, suspended, gone on with, and left."""

    def test_it_bears_what_a_terminal_does_to_it(self, furnished: Workspace) -> None:
        with app_on(furnished) as terminal:
            self.is_silent_while_nothing_happens(terminal)
            self.has_no_quitting_by_flow_control(terminal)
            self.covers_itself_where_it_is_too_small(terminal)
            self.uses_what_room_there_is(terminal)
            self.is_resized_in_the_middle_of_a_question(terminal)
            self.stops_and_comes_back(terminal)
            terminal.press("q", "q")
            assert terminal.ends() == 0
            self.left_the_terminal_as_it_was(terminal)
            assert terminal.foreign == []

    def is_silent_while_nothing_happens(self, terminal: PtyTerminal) -> None:
        terminal.settle(1.5)

    def has_no_quitting_by_flow_control(self, terminal: PtyTerminal) -> None:
        before = terminal.text
        terminal.press("\x11")
        assert terminal.process.poll() is None
        assert terminal.text == before

    def covers_itself_where_it_is_too_small(self, terminal: PtyTerminal) -> None:
        before = terminal.text
        terminal.resize(40, 10)
        terminal.sees("too small")
        terminal.press(DOWN, "d", "?")
        assert "too small" in terminal.text
        terminal.resize(80, 24)
        terminal.until(lambda: terminal.text == before, "the screen as it was, focus and all")

    def uses_what_room_there_is(self, terminal: PtyTerminal) -> None:
        terminal.resize(160, 48)
        terminal.until(lambda: len(terminal.text.splitlines()) == 48, "all lines")
        terminal.until(lambda: max(map(len, terminal.text.splitlines())) > 80, "the whole width")

    def is_resized_in_the_middle_of_a_question(self, terminal: PtyTerminal) -> None:
        terminal.press("q", sees="Leave the workbench?")
        terminal.resize(60, 16)
        terminal.sees("Leave the workbench?")
        terminal.resize(80, 24)
        terminal.sees("Leave the workbench?")
        terminal.press(ESCAPE)
        terminal.until(lambda: "Leave the workbench?" not in terminal.text and "gpus" in terminal.text, "home again")
        terminal.settle(QUIET_S)

    def stops_and_comes_back(self, terminal: PtyTerminal) -> None:
        before = terminal.text
        terminal.send("\x1a")
        terminal.until(lambda: state_of(terminal.process.pid) == "T", "the process is stopped")
        terminal.read(0.2)
        assert not terminal.drawing.modes["1049"]
        assert terminal.drawing.modes["25"]
        assert not any(terminal.drawing.modes[mode] for mode in MOUSE)
        os.kill(terminal.process.pid, signal.SIGCONT)
        terminal.until(lambda: terminal.text == before, "the same screen again")
        assert terminal.drawing.modes["1049"]

    def left_the_terminal_as_it_was(self, terminal: PtyTerminal) -> None:
        modes = terminal.drawing.modes
        assert not modes["1049"], "the alternate screen is left"
        assert modes["25"], "the cursor is shown"
        assert modes["7"], "long lines wrap again"
        assert not any(modes[mode] for mode in (*MOUSE, "1004", "2004"))


class TestEveryStation:
    def test_is_silent_when_it_has_drawn_itself(self, furnished: Workspace) -> None:
        """Along the whole loop in one go; each station says its name, and then nothing until a key comes."""
        with app_on(furnished) as terminal:
            for name in (*LOOP[1:], "home"):
                terminal.press("]")
                place = STATIONS[name]
                title = str(getattr(import_module(place.module), place.class_name).TITLE)
                terminal.until(lambda t=title: terminal.text.startswith(f" {t}"), f"the station {name}")
                terminal.settle(QUIET_S)
                assert terminal.foreign == [], name


class TestTerminalsOfManyKinds:
    def test_without_utf8_and_mouse_it_draws_ascii_and_asks_for_no_mouse(self, furnished: Workspace) -> None:
        with app_on(furnished, "--no-mouse", environment={"LANG": "C", "PYTHONUTF8": None}) as terminal:
            terminal.press("?", "q", "d", sees="demonstrations")
            assert modes_sent(terminal).isdisjoint(MOUSE)
            assert terminal.foreign == []
            assert max(terminal.received) < 0x80
            assert "?" not in "".join(line for line in terminal.text.splitlines() if "|" in line)

    def test_with_256_colours_it_sends_no_true_colour(self, furnished: Workspace) -> None:
        with app_on(furnished, environment={"TERM": "xterm-256color"}) as terminal:
            assert b"38;5;" in terminal.received
            assert b"38;2;" not in terminal.received

    def test_without_colour_and_answers_it_says_the_same(self, furnished: Workspace) -> None:
        with (
            app_on(furnished, environment={"NO_COLOR": "1"}, answers=False) as plain,
            app_on(furnished, environment={"COLORTERM": "truecolor"}) as full,
        ):
            plain.until(lambda: plain.text == full.text, "the same words")
            plain.press("a", sees="add a dataset")  # the cursor of its field is reversed, and Tab marks what is chosen
            assert attributes(plain.received) == {"0", "1", "7"}
            assert attributes(full.received) > {"38", "48"}
            plain.settle(QUIET_S)


def attributes(sent: bytes) -> set[str]:
    """Every number in an SGR sequence: 0 is off, 1 bold, 4 underlined, 7 reverse; colours have 30 to 49."""
    return {part for found in re.findall(rb"\x1b\[([\d;]*)m", sent) for part in found.decode().split(";") if part} | {
        "0"
    }


class TestNoTerminal:
    def test_a_pipe_gets_a_message_and_exit_code_2(self, furnished: Workspace) -> None:
        done = subprocess.run(
            app_command(furnished.root),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=ROOT,
            timeout=20,
            check=False,
        )
        assert done.returncode == 2
        assert done.stdout == b""
        assert done.stderr.count(b"\n") == 1
        assert b"\x1b" not in done.stderr
        assert b"terminal" in done.stderr

    @pytest.mark.parametrize("name", ["dumb", "unknown"])
    def test_a_terminal_that_cannot_draw_gets_a_message(self, furnished: Workspace, name: str) -> None:
        command = [sys.executable, "-m", "workbench.cli", "--workspace", str(furnished.root)]
        with PtyTerminal(command, environment={"TERM": name}) as terminal:
            assert terminal.ends() == 2
            assert b"\x1b" not in terminal.received
            assert terminal.received.count(b"\n") == 1


class TestTheLinkDies:
    """A run that the app's process started goes on, whatever becomes of the app."""

    @pytest.mark.parametrize("how", ["hang-up signal", "terminal gone"])
    def test_the_app_ends_soon_and_the_run_goes_on(self, workspace: Workspace, how: str) -> None:
        run = make_run(workspace, f"1124-sft-{how.split()[0]}-zz1", phase="queued", step=0)
        with PtyTerminal(app_after_starting(workspace, run)) as terminal:
            terminal.sees("next")
            terminal.settle()
            if how == "terminal gone":
                terminal.close()
            else:
                os.kill(terminal.process.pid, signal.SIGHUP)
            assert terminal.ends() in (128 + signal.SIGHUP, -signal.SIGHUP)
        watched = Run(run, workspace)
        assert watched.state().alive
        stop_run(watched)
        wait_for(lambda: watched.state().state == "stopped")


def app_after_starting(workspace: Workspace, run: RunFolder) -> list[str]:
    """The app in a process that has just started a run with a worker without torch."""
    worker = fake_worker(run, steps=600, step_s=0.1)  # longer than this test: it is stopped
    program = (
        "import sys; from engine.run.detached_start import start_detached; from screens.start import main\n"
        f"start_detached({str(run.path)!r}, worker={worker!r}); sys.exit(main([{str(workspace.root)!r}]))"
    )
    return [sys.executable, "-c", program]


def wait_for(condition: object, patience_s: float = 30.0) -> None:
    end = time.monotonic() + patience_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "never came"
        time.sleep(0.05)
