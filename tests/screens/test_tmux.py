"""The real app in tmux: its server is killed while a run goes on; the run ends, and the last verdict is kept."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.screens.furnished_workspace import PAIRS, furnish
from tests.screens.pty_terminal import ROOT, app_command
from workbench.pair_sets import PairSet, open_pairs
from workbench.run_list import Run, all_runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]
PATIENCE_S = 60.0
TRAINING_S = 300.0
SETTINGS = {"train.steps": "60", "train.threads": "1"}


class Tmux:
    """A tmux server of its own socket, with one session."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "tmux"

    def __call__(self, *arguments: str, check: bool = True) -> str:
        command = ["tmux", "-S", str(self.socket), "-f", "/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=check, timeout=20, cwd=ROOT).stdout

    @property
    def text(self) -> str:
        """What the pane shows."""
        return self("capture-pane", "-p")

    def sees(self, words: str) -> None:
        """Wait until `words` are in the pane."""
        wait_for(lambda: words in self.text, lambda: f"{words!r} in\n{self.text}")


def wait_for(condition: Callable[[], bool], what: Callable[[], str], patience_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, f"never came: {what()}"
        time.sleep(0.05)


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    server = Tmux(tmp_path)
    yield server
    server("kill-server", check=False)


def test_a_run_outlives_the_tmux_server_and_the_last_verdict_is_kept(tmp_path: Path, tmux: Tmux) -> None:
    workspace = furnish(tmp_path)
    before = {run.id for run in all_runs(workspace)}
    command = ["env", "LANG=C.UTF-8", "OMP_NUM_THREADS=1", *app_command(workspace.root)]
    tmux("new-session", "-d", "-x", "80", "-y", "24", *command, ";", "set-option", "-g", "escape-time", "0")
    tmux.sees("? keys")
    app = int(tmux("display-message", "-p", "#{pane_pid}"))
    launch(tmux)
    wait_for(lambda: len(all_runs(workspace)) > len(before), lambda: tmux.text)
    run = next(run for run in all_runs(workspace) if run.id not in before)
    wait_for(lambda: steps_of(run) > 0, lambda: f"a step of {run.state()}\n{tmux.text}", TRAINING_S)
    tmux("send-keys", "q")
    tmux.sees("next")
    tmux("send-keys", "l")
    tmux.sees("1 left")
    judged = judge(tmux, open_pairs(workspace, PAIRS))
    tmux("kill-server")
    wait_for(lambda: not Path(f"/proc/{app}").exists(), lambda: "the app's end", 5.0)
    assert run.state().alive, run.state()
    wait_for(lambda: not run.state().alive, lambda: str(run.state()), TRAINING_S)
    assert run.state().state == "done"
    kept = open_pairs(workspace, PAIRS)
    assert verdicts(kept) == judged
    assert kept.status().faults == ()


def launch(tmux: Tmux) -> None:
    """Fill in the form by keys: DPO of the sample model, some steps on one thread; start it."""
    tmux("send-keys", "t")
    tmux.sees("method")
    set_field(tmux, "model", "sample")
    tmux("send-keys", "a")
    for name, value in SETTINGS.items():
        set_field(tmux, name, value)
    tmux("send-keys", "/")
    tmux("send-keys", "Escape")
    time.sleep(0.5)
    tmux("send-keys", "w")


def set_field(tmux: Tmux, name: str, value: str) -> None:
    """Find a field of the form, open it, type its value."""
    for keys in (("/",), ("C-u",), ("-l", name), ("Enter",), ("Enter",), ("C-u",), ("-l", value), ("Enter",)):
        tmux("send-keys", *keys)
        time.sleep(0.25)  # a person's pace; what is typed is checked below
    wait_for(lambda: f"{name} " in tmux.text and f" {value} " in tmux.text, lambda: f"{name} {value} in\n{tmux.text}")


def judge(tmux: Tmux, pairs: PairSet) -> int:
    """Give one verdict; how many there are then. A key that comes within the guard of a new pair does nothing."""
    before = verdicts(pairs)
    time.sleep(0.5)
    tmux("send-keys", "1")
    wait_for(lambda: verdicts(pairs) > before, lambda: tmux.text)
    return verdicts(pairs)


def verdicts(pairs: PairSet) -> int:
    """How many stand, whoever gave them."""
    return sum(pairs.status().by_annotator.values())


def steps_of(run: Run) -> int:
    status = run.status()
    return status.step if status else 0
