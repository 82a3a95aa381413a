"""Format, lint, types and import contracts are part of the suite: one command is the whole gate."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("engine", "workbench", "screens", "sample_data")


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--no-cache", "."],
        ["ruff", "format", "--no-cache", "--check", "."],
        pytest.param(["mypy"], marks=pytest.mark.slow),
        ["importlinter.cli", "lint", "--no-cache"],
    ],
    ids=["ruff check", "ruff format", "mypy --strict", "import contracts"],
)
def test_gate(command: list[str], tmp_path: Path) -> None:
    module, *arguments = command
    if module == "mypy":
        arguments += ["--cache-dir", str(tmp_path)]
    call = [sys.executable, "-m", module, *arguments]
    if module == "importlinter.cli":
        call = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_constraints_pin_every_requirement_without_a_local_version() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert all("+" not in version for version in pins.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    wanted = [re.match(r"[A-Za-z0-9_-]+", requirement)[0] for requirement in named]  # type: ignore[index]
    canonical = {name.lower().replace("_", "-") for name in pins}
    missing = {name for name in wanted if name.lower().replace("_", "-") not in canonical}
    assert missing == set()
    for name, version in {
        "torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0", "peft": "0.21.2", "accelerate": "1.15.0",
        "datasets": "5.2.0", "duckdb": "2.0.0", "textual": "8.2.8",
    }.items():  # fmt: skip
        assert pins[name] == version


def test_functions_and_files_stay_small() -> None:
    """A function over 60 lines or a module over 400 wants rooms of its own."""
    import ast

    large = []
    for part in PARTS:
        for file in sorted((ROOT / part).rglob("*.py")):
            text = file.read_text()
            if text.count("\n") > 400:
                large.append(f"{file.relative_to(ROOT)}: {text.count(chr(10))} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    if length > 60:
                        large.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert large == []
