"""A checkpoint as a folder for other programs: the whole model, or its adapter alone.

Owns what the folder holds beside weights: tokenizer, chat template, and `exported.json`, which says what it was made
of. Invariant: the folder appears whole or not at all, and nothing that exists is written over. Merging, which loads
the model, happens in a child.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from engine.model.model_files import read_adapter_config
from engine.run.durable_files import free_megabytes
from engine.run.folder import MANIFEST
from workbench.child_programs import run_program
from workbench.errors import NameTaken, NotFound, UsageError, WorkbenchError, explain_os_errors
from workbench.model_names import ADAPTER_CONFIG, ResolvedModel

NOTES = "exported.json"
SCHEMA = 1


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    what: str
    """Whether it is a whole model or an adapter, in words."""
    dtype: str
    """Of the weights; empty for an adapter, which stays as it is."""
    bytes: int


def export_model(
    model: ResolvedModel, to: Path, *, adapter_alone: bool = False, like: Path | None = None, quiet: bool = False
) -> Exported:
    """Write `model` to the new folder `to`; `like` is the base of a checkpoint of all weights, for its precision.

    Raises UsageError for an adapter where there is none, NameTaken, and WorkbenchError where space is short.
    """
    if adapter_alone and model.adapter is None:
        raise UsageError(f"{model.source} is a whole model, not an adapter: leave --adapter out")
    if model.adapter is not None:
        read_adapter_config(model.adapter, None if adapter_alone else model.path)
    to = to.expanduser().absolute()
    if to.exists():
        raise NameTaken(f"{to} exists already; name a new folder with --to, or delete that one")
    if not to.parent.is_dir():
        raise NotFound(f"{to.parent}: no such folder; make it first, or name another with --to")
    if not adapter_alone:
        _require_space(to.parent, model.path)
    with _appearing_whole(to) as hidden:
        if adapter_alone:
            assert model.adapter is not None
            _copy_adapter(model.adapter, model, hidden)
            dtype = ""
        else:
            dtype = _merge(model, hidden, like, quiet)
        notes = {"schema": SCHEMA, "source": model.source, "sha256": model.sha256, "merged": not adapter_alone}
        (hidden / NOTES).write_text(json.dumps(notes | {"dtype": dtype}, indent=2) + "\n")
    size = sum(file.stat().st_size for file in to.iterdir())
    return Exported(to, "adapter" if adapter_alone else "whole model", dtype, size)


def _merge(model: ResolvedModel, out: Path, like: Path | None, quiet: bool) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        job = Path(scratch) / "job.json"
        job.write_bytes(orjson.dumps({**model.for_job(), "out": str(out), "like": str(like or "")}))
        found = run_program("engine.export", [str(job)], what=f"exporting {model.source}", quiet=quiet)
    return str(found["dtype"])


def _copy_adapter(adapter: Path, model: ResolvedModel, out: Path) -> None:
    """The adapter's files without what only a resume needs; its config names the base so that others find it."""
    for file in sorted(adapter.iterdir()):
        if file.is_file() and file.name != MANIFEST:
            shutil.copyfile(file, out / file.name)
    config = json.loads((out / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": str(model.path), "revision": None} | _on_the_hub(model.path)
    (out / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _on_the_hub(base: Path) -> dict[str, str]:
    """The Hub's name and revision of a base that lies in its cache, as peft reads them; nothing for other folders."""
    folder, snapshots, revision = base.parent.parent, base.parent.name, base.name
    if snapshots != "snapshots" or not folder.name.startswith("models--"):
        return {}
    return {"base_model_name_or_path": folder.name.removeprefix("models--").replace("--", "/"), "revision": revision}


def _require_space(parent: Path, base: Path) -> None:
    needed = sum(file.stat().st_size for file in base.glob("*.safetensors")) // 2**20
    free = free_megabytes(parent)
    if free < needed * 1.05:
        raise WorkbenchError(
            f"{parent}: {free:,.0f} MB are free, and the merged model needs about {needed:,} MB: free some, or name "
            "another place with --to"
        )


@contextmanager
def _appearing_whole(to: Path) -> Iterator[Path]:
    """A hidden folder beside `to` that becomes it, or goes."""
    hidden = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        with explain_os_errors(f"exporting to {to}", to.parent):
            yield hidden
            hidden.chmod(0o755)
            hidden.rename(to)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
