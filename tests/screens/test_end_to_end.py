"""The whole loop by keys alone, in the real app on a pseudo-terminal: from a file of answers to a win rate."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.screens.pty_terminal import ENTER, ESCAPE, PtyTerminal, app_command
from workbench.comparison import report
from workbench.pair_sets import list_pairs, open_pairs
from workbench.preferences import list_preference_sets
from workbench.run_list import all_runs
from workbench.workspace import Workspace, init

pytestmark = pytest.mark.slow
SAMPLE = Path(__file__).resolve().parents[2] / "sample_data" / "data" / "pairs.jsonl"
ROWS = 40
TO_LABEL = 12
CLEAR = "\x15"
MINUTES = 60.0
SETTINGS = {"train.steps": "20", "train.threads": "1", "learning rate": "0.001"}


class Person:
    """Someone at the terminal, who looks before each key."""

    def __init__(self, terminal: PtyTerminal, workspace: Workspace) -> None:
        self.terminal = terminal
        self.workspace = workspace

    def types(self, *keys: str, sees: str = "", within_s: float = 30.0) -> None:
        """Keys, each after the screen is quiet; then wait for words."""
        for key in keys:
            self.terminal.press(key)
        if sees:
            self.terminal.sees(sees, within_s)
            self.terminal.settle(0.3)

    def add(self, file: Path) -> None:
        """Import a file; its rows are shown."""
        self.types("a", sees="add a dataset")
        self.types(str(file), sees="answers: prompt")
        self.types(ENTER, sees=f"inspect · answers · {ROWS} rows")
        self.types("q", sees="look into")
        self.types("q", sees="next")

    def makes_pairs(self) -> None:
        """Pairs of the dataset under the cursor."""
        self.types("d", sees="answers")
        self.types("p", sees="Its name?")
        self.types(ENTER)
        self.terminal.sees("enter labels it")
        self.types(ENTER, sees="1 left")

    def labels(self, name: str, kind: str, count: int) -> None:
        """Verdicts, one key each; a key within the guard after a new pair does nothing, so each is waited for."""
        pairs = open_pairs(self.workspace, name, kind)  # type: ignore[arg-type]
        for number in range(count):
            self.terminal.settle(0.4)
            before = pairs.status()
            if before.open == 0:
                return
            self.types("1" if number % 3 else "2")
            self.terminal.until(lambda was=before.judged: pairs.status().judged > was, "a verdict")  # type: ignore[misc]

    def freezes(self) -> str:
        """Freeze the pair set; the name of the preference set."""
        self.types("q", sees="pair set")
        self.types("f", sees="?")
        self.types(ENTER)
        self.terminal.until(lambda: len(list_preference_sets(self.workspace)[0]) == 1, "a preference set")
        return list_preference_sets(self.workspace)[0][0].name

    def trains(self) -> str:
        """A tiny DPO run of the sample model, watched to its end; its id."""
        self.types("q", sees="next")
        self.types("t", sees="method")
        self.sets_field("model", "sample")
        self.types("a")
        for name, value in SETTINGS.items():
            self.sets_field(name, value)
        self.types("/", ESCAPE)
        self.terminal.until(
            lambda: f"{SETTINGS['train.steps']} steps on cpu" in self.terminal.text, "what it will cost"
        )
        self.types("w", sees="curves ·")
        self.terminal.sees("✓ done", 5 * MINUTES)
        assert "loss" in self.terminal.text
        assert re.search("[\u2801-\u28ff]", self.terminal.text), "curves are drawn"
        return all_runs(self.workspace)[0].id

    def sets_field(self, name: str, value: str) -> None:
        """Find a field of the form, open it, type its value."""
        self.types("/", CLEAR, name, ENTER, ENTER, CLEAR, value, ENTER)
        self.terminal.until(lambda: f" {value} " in self.terminal.text, f"{name} = {value}")

    def compares(self) -> str:
        """The run beside its base on a few prompts, made an arena; its name."""
        self.types(ENTER, sees="models · 2 picked")
        self.types("w", sees="b blind arena", within_s=3 * MINUTES)
        self.types("b", sees="called?")
        self.types(ENTER)
        self.terminal.until(lambda: len(list_pairs(self.workspace, "arena")[0]) == 1, "an arena")
        return list_pairs(self.workspace, "arena")[0][0].name

    def reads_the_win_rate(self) -> None:
        """Back to the arenas: how often one was better, with its interval."""
        self.types("q", sees="b blind arena")
        self.types("r", sees="interval")

    def leaves(self) -> None:
        """Back to the beginning, and out."""
        while "Leave the workbench?" not in self.terminal.text:
            self.types("q")
        self.types("q")


def test_from_a_file_to_a_win_rate_by_keys_alone(tmp_path: Path) -> None:
    workspace = init(tmp_path / "ws")
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(line + "\n" for line in SAMPLE.read_text("utf-8").splitlines()[:ROWS]), "utf-8")
    with PtyTerminal(app_command(workspace.root), environment={"OMP_NUM_THREADS": "1"}) as terminal:
        terminal.sees("add a dataset")
        terminal.settle()
        person = Person(terminal, workspace)
        person.add(file)
        person.makes_pairs()
        name = list_pairs(workspace)[0][0].name
        person.labels(name, "pairs", TO_LABEL)
        person.freezes()
        run = person.trains()
        arena = person.compares()
        person.labels(arena, "arena", 20)
        person.reads_the_win_rate()
        person.leaves()
        assert terminal.ends() == 0
        assert terminal.foreign == []
    assert next(one for one in all_runs(workspace) if one.id == run).state().state == "done"
    found = report(open_pairs(workspace, arena, "arena"))
    assert found["judged"] == found["pairs"] > 0
    assert found["win_rate"]["rate"] is not None
