"""Short commands start fast: what they import is what they need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workbench.run_folders import make_run
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
