"""The headless parts load neither torch nor a screen: each of their modules is imported, and sys.modules is looked at.

The import contracts in pyproject.toml say the same of the source text; this says it of what truly happens.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets", "pyarrow"}
ENGINE_FACE = HEAVY | {"textual", "duckdb", "workbench", "screens", "sample_data"}
FORBIDDEN = {
    "engine.run": ENGINE_FACE,
    "engine.data": ENGINE_FACE,
    "engine.rewards": ENGINE_FACE,
    "workbench": HEAVY | {"textual", "screens"},
    "screens": HEAVY | {"workbench.cli"},
    "sample_data": {"workbench", "screens", "textual", "duckdb"},
}
TORCH_SIDE = {"engine.data.packing", "engine.data.host_copies"}
"""Modules of these packages that are torch's by design."""
ALONE = {"engine": ENGINE_FACE, "engine.errors": ENGINE_FACE, "engine.model.fingerprint": ENGINE_FACE}
"""Single headless modules of packages that are otherwise torch's."""

IMPORT_ALL = """
import importlib, json, sys
names, forbidden = json.loads(sys.argv[1])
for name in names:
    importlib.import_module(name)
    loaded = sorted(set(forbidden) & set(sys.modules))
    if loaded:
        sys.exit(f"{name} loads {', '.join(loaded)}")
"""


def modules_of(package: str) -> list[str]:
    """Every module below a package, from its files; a `__main__` is a program and is left out."""
    folder = ROOT.joinpath(*package.split("."))
    files = [file for file in sorted(folder.rglob("*.py")) if file.stem != "__main__"]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [name for name in names if name not in TORCH_SIDE]


def import_all(names: list[str], forbidden: set[str]) -> None:
    command = [sys.executable, "-c", IMPORT_ALL, json.dumps([names, sorted(forbidden)])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr.strip()


@pytest.mark.parametrize("package", ["engine.run", "engine.data", "engine.rewards", "workbench", "screens"])
def test_no_module_of_a_headless_package_loads_what_it_must_not(package: str) -> None:
    names = modules_of(package)
    if not names:
        pytest.skip(f"there is no {package} yet")
    import_all(names, FORBIDDEN[package])


@pytest.mark.parametrize("name", sorted(ALONE))
def test_single_headless_modules(name: str) -> None:
    file = ROOT.joinpath(*name.split("."))
    if not (file.with_suffix(".py").exists() or file.is_dir()):
        pytest.skip(f"there is no {name} yet")
    import_all([name], ALONE[name])


def test_a_list_of_runs_needs_nothing_slow() -> None:
    """`workbench runs ls` has 0.4 s in all, so what it reads runs with stays away from slow imports."""
    slow = {"subprocess", "tomli_w", "hashlib", "asyncio", "importlib.metadata", "multiprocessing", "logging", "shutil"}
    import_all(["engine.run.folder", "engine.run.status", "engine.run.metrics_log", "engine.run.events"], HEAVY | slow)


def test_the_first_screens_wait_for_no_settings_of_runs() -> None:
    """A fifth of what Home and Inspect take to their first rows, on top of Textual."""
    import_all(["screens.app", "screens.home", "screens.inspect"], {"engine.run.config"})


@pytest.mark.parametrize(
    ("sources", "forbidden"),
    [
        ({"engine"}, {"workbench", "screens", "sample_data", "textual", "duckdb"}),
        ({"engine.run", "engine.errors", "engine.data.chat", "engine.data.examples"}, {"torch", "transformers"}),
        ({"workbench"}, {"screens", "textual", "torch", "transformers"}),
        ({"screens"}, {"torch", "transformers", "workbench.cli"}),
    ],
)
def test_the_contracts_are_in_pyproject(sources: set[str], forbidden: set[str]) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert any(
        contract["type"] == "forbidden"
        and sources <= set(contract["source_modules"])
        and forbidden <= set(contract["forbidden_modules"])
        for contract in contracts
    )
