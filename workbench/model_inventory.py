"""Every model that is stored here and can be named: what it is, its size on the disk, and which runs use it.

Owns the listing of `workbench models`: the sample model, bases that runs were trained over, the runs' checkpoints and
adapters, conversions of GGUF files in the user's cache, and the Hub's own cache (HF_HUB_CACHE, HF_HOME). Invariant:
only names and sizes of files are read, nothing is loaded and nothing connects. A model appears once: a base that lies
in a cache is listed as the base.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import EngineError
from engine.run.config import RunConfig
from engine.run.reward_models import model_folders
from workbench.model_names import cache_folder
from workbench.run_list import Run, all_runs
from workbench.workspace import Workspace


@dataclass(frozen=True)
class StoredModel:
    """One model and where it lies."""

    name: str
    """As --model takes it."""
    kind: str
    """sample, base, run, conversion or hub."""
    what: str
    """In words."""
    origin: str
    """What it was tuned from, or how it is known."""
    path: str
    """The folder; of a run the one of its checkpoints."""
    bytes: int
    """What it takes on the disk; of a run all checkpoints that are kept."""
    used_by: tuple[str, ...] = ()
    """Runs that start from it, lie over it or are judged by it."""


def stored_models(workspace: Workspace | None) -> list[StoredModel]:
    """The sample model, then bases, runs, conversions and Hub entries. Damaged runs are left to `runs ls`."""
    from sample_data import ROOT

    runs = [(run, config) for run in (all_runs(workspace) if workspace else []) if (config := _config_of(run))]
    uses = _uses(workspace, runs)
    sample = ROOT / "model"
    found = [StoredModel("sample", "sample", "the sample model (synthetic domain)", "comes with the program", "", 0)]
    found[0] = replace(found[0], path=str(sample), bytes=_bytes_of(sample), used_by=_users(uses, sample))
    bases: dict[Path, StoredModel] = {}
    for run, config in runs:
        assert workspace is not None
        model = config.model
        base = workspace.resolve(model.path)
        if not model.source.startswith(("run:", "sample")) and base not in bases:
            gone = "" if base.is_dir() else ", which is not there any more"
            bases[base] = StoredModel(
                model.source, "base", f"base{gone}", f"used by {run.id}", str(base), _bytes_of(base), _users(uses, base)
            )
    found += sorted(bases.values(), key=lambda one: one.name)
    found += [_of_run(run, config, steps, uses) for run, config in runs if (steps := run.checkpoint_steps())]
    cached = [*_conversions(), *_hub_entries()]
    return found + [replace(one, used_by=_users(uses, Path(one.path))) for one in cached if Path(one.path) not in bases]


def _config_of(run: Run) -> RunConfig | None:
    try:
        return run.config()
    except EngineError:
        return None


def _uses(workspace: Workspace | None, runs: list[tuple[Run, RunConfig]]) -> dict[str, list[str]]:
    """Folder -> the runs that read it."""
    uses: dict[str, list[str]] = {}
    for run, config in runs:
        assert workspace is not None
        for path in model_folders(config):
            uses.setdefault(str(workspace.resolve(path)), []).append(run.id)
    return uses


def _users(uses: dict[str, list[str]], folder: Path) -> tuple[str, ...]:
    return tuple(uses.get(str(folder), ()))


def _of_run(run: Run, config: RunConfig, steps: list[int], uses: dict[str, list[str]]) -> StoredModel:
    best, model = run.folder.best(), config.model
    kind = "all weights" if config.adapter.kind == "full" else "adapter"
    at = f"best step {best['step']}, last {steps[-1]}" if best else f"step {steps[-1]}"
    checkpoints = run.folder.checkpoint_path(steps[-1]).parent
    users = {user for step in steps for user in uses.get(str(run.folder.checkpoint_path(step)), ())}
    size = sum(_bytes_of(folder) for folder, _, _ in os.walk(checkpoints))
    what = f"{config.run.method}, {kind}, {at}"
    return StoredModel(f"run:{run.id}", "run", what, model.source, str(checkpoints), size, tuple(sorted(users)))


def _conversions() -> Iterator[StoredModel]:
    """Converted GGUF files: each a model folder that can be named by its path."""
    for folder in sorted(cache_folder().glob("gguf-*")):
        if (folder / "config.json").is_file():
            yield StoredModel(
                str(folder), "conversion", "a GGUF file, converted", "may be deleted", str(folder), _bytes_of(folder)
            )


def _hub_entries() -> Iterator[StoredModel]:
    """Snapshots of the Hub's cache that are whole enough to be a model. A newest one needs no revision."""
    for repository in sorted(hub_cache().glob("models--*--*")):
        name = repository.name.removeprefix("models--").replace("--", "/")
        newest = _text_of(repository / "refs" / "main")
        for snapshot in sorted((repository / "snapshots").glob("*")):
            if (snapshot / "config.json").is_file() and any(snapshot.glob("*.safetensors")):
                spelled = f"hf:{name}" if snapshot.name == newest else f"hf:{name}@{snapshot.name}"
                what = f"in the Hub's cache, revision {snapshot.name[:12]}"
                yield StoredModel(spelled, "hub", what, "", str(snapshot), _bytes_of(snapshot))


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it fetched, by its own rules."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    return Path(home).expanduser() / "hub"


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _bytes_of(folder: str | Path) -> int:
    """Of the files right in a folder; a link counts as what it leads to, since the Hub's cache holds links."""
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
    except OSError:
        return 0
