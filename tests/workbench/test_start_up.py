"""Short commands start fast: what they import is what they need; and Ctrl+C is quiet from their first moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workbench.run_folders import make_run
from workbench import command_workspace
from workbench.cli import main
from workbench.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "textual", "duckdb", "datasets", "huggingface_hub", "numpy", "tokenizers", "jinja2")
PROGRAM = """
import sys
from workbench.cli import main
code = main(sys.argv[1:])
print("heavy:", *[name for name in {heavy!r} if name in sys.modules])
sys.exit(code)
"""


@pytest.mark.parametrize("arguments", [["runs", "ls"], ["runs", "watch", "-", "--once"], ["data", "ls"], ["models"]])
def test_no_heavy_module_is_loaded(workspace: Workspace, arguments: list[str]) -> None:
    make_run(workspace, "1124-sft-a-k3f")
    ended = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM.format(heavy=HEAVY), "--workspace", str(workspace.root), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == "heavy:"


INTERRUPTED_AT = """
import importlib.abc, os, signal, sys
class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.modules.pop({name!r}, None)
sys.meta_path.insert(0, Interrupting())
from workbench.__main__ import main
sys.exit(main())
"""
INTERRUPTED_LATE = """
import atexit, os, signal, sys
from workbench.__main__ import main
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
sys.exit(main())
"""
BEGINNING = """
import signal, sys
before = set(sys.modules)
import workbench
print(*sorted(set(sys.modules) - before), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


class TestAnInterrupt:
    """Ctrl+C ends a command with 130 and no traceback, whatever it was about to do."""

    @pytest.mark.parametrize("name", ["argparse", "workbench.cli", "engine.errors", "workbench.command_workspace"])
    def test_while_something_is_imported(self, name: str, tmp_path: Path) -> None:
        ended = run_python(INTERRUPTED_AT.format(name=name), "init", str(tmp_path / "w"))
        assert (ended.returncode, ended.stdout, ended.stderr.strip()) == (130, "", "")
        assert not (tmp_path / "w").exists()

    def test_while_the_interpreter_ends(self) -> None:
        ended = run_python(INTERRUPTED_LATE, "--version")
        assert (ended.returncode, ended.stderr) == (130, "")

    def test_that_is_ignored_stays_ignored(self, tmp_path: Path) -> None:
        ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        ended = run_python(ignoring + INTERRUPTED_AT.format(name="workbench.cli"), "init", str(tmp_path / "w"))
        assert ended.returncode == 0, ended.stderr
        assert (tmp_path / "w").exists()

    def test_that_a_library_made_an_error_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        def action(_: object) -> int:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt as interrupt:
                raise ImportError("initialization failed") from interrupt
            return 0

        monkeypatch.setattr(command_workspace, "run_init", action)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
        try:
            assert main(["init", str(tmp_path / "w")]) == 130
        finally:
            signal.signal(signal.SIGINT, before)
        assert capsys.readouterr().err.strip() == ""


def test_importing_the_package_imports_nothing_else_and_leaves_signals_alone() -> None:
    assert run_python(BEGINNING).stdout.split() == ["workbench", "True"]
