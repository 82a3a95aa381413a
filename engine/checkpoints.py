"""Checkpoints: written aside, synced, sealed by a manifest, renamed into place.

A folder `checkpoints/step-000200` exists only whole: its MANIFEST.json, written last, lists every file with size and
sha256. What fails that check is moved aside to `bad-step-…` and the one before is used. Safetensors and JSON only.
The weights lie at the top of the folder, in the layout that peft and transformers load; what only a resume needs is
under `trainer/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.errors import CheckpointError
from engine.run.durable_files import fsync_folder

MANIFEST = "MANIFEST.json"
TRAINER = "trainer"
_NAME = re.compile(r"step-(\d{6,})")


def save_checkpoint(
    checkpoints: Path,
    step: int,
    *,
    write_weights: Callable[[Path], None],
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    state: Mapping[str, Any],
) -> Path:
    """Write `step-NNNNNN` and return its folder. An equal checkpoint that is already whole is kept.

    `write_weights` fills the folder; `tensors` become `trainer/NAME.safetensors`; `state` becomes
    `trainer/state.json`. Raises CheckpointError where the disk is full or refuses; the ones before stay as they are.
    """
    final = checkpoints / folder_name(step)
    if final.exists():
        if fault_of(final) is None:
            return final
        quarantine(final)
    aside = checkpoints / f"{folder_name(step)}.tmp-{uuid.uuid4().hex[:8]}"
    try:
        aside.mkdir(mode=0o700, parents=True)
        write_weights(aside)
        trainer = aside / TRAINER
        trainer.mkdir(mode=0o700)
        for name, group in tensors.items():
            save_file(dict(group), trainer / f"{name}.safetensors")
        (trainer / "state.json").write_text(json.dumps({"schema": 1, "step": step, **state}, indent=2) + "\n")
        _seal(aside, step)
        aside.rename(final)
        fsync_folder(checkpoints)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        free = shutil.disk_usage(checkpoints).free // 2**20
        raise CheckpointError(
            f"{final.name} could not be written: {error}. {free} MB are free on that disk; free some space, "
            "then resume the run"
        ) from error
    return final


def _seal(folder: Path, step: int) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    listing = {}
    for file in files:
        os.chmod(file, 0o600)
        _sync(file)
        listing[str(file.relative_to(folder))] = {"size": file.stat().st_size, "sha256": _sha256(file)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"schema": 1, "step": step, "files": listing}, indent=2) + "\n")
    os.chmod(manifest, 0o600)
    _sync(manifest)
    for inner in [p for p in folder.rglob("*") if p.is_dir()]:
        fsync_folder(inner)
    fsync_folder(folder)


def fault_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None where every file is as its manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    for name, wanted in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != wanted["size"]:
            return f"{name} has {file.stat().st_size} bytes, the manifest says {wanted['size']}"
        if _sha256(file) != wanted["sha256"]:
            return f"{name} is not what was written (sha256 differs)"
    return None


def quarantine(folder: Path) -> Path:
    """Move a faulty checkpoint aside, never delete it."""
    moved = folder.with_name(f"bad-{folder.name}-{time.time_ns()}")
    folder.rename(moved)
    return moved


def newest_valid(checkpoints: Path, on_fault: Callable[[str, str], None]) -> Path | None:
    """The newest checkpoint that verifies; faulty ones are moved aside and told to `on_fault(name, what)`."""
    for folder in reversed(_folders(checkpoints)):
        fault = fault_of(folder)
        if fault is None:
            return folder
        quarantine(folder)
        on_fault(folder.name, fault)
    return None


def load_trainer(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """The tensors and the state that a resume needs."""
    trainer = folder / TRAINER
    tensors = {file.stem: load_file(file) for file in sorted(trainer.glob("*.safetensors"))}
    return tensors, json.loads((trainer / "state.json").read_text())


def prune(checkpoints: Path, *, keep: int, best_step: int | None) -> list[int]:
    """Delete all but the newest `keep` checkpoints and the best one; half-written leftovers go too.

    Nothing is deleted before the newest one has been read again and verified. Returns the steps deleted.
    """
    for leftover in checkpoints.glob("step-*.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folders = _folders(checkpoints)
    if not folders or fault_of(folders[-1]) is not None:
        return []
    spared = {f.name for f in folders[-max(1, keep) :]}
    if best_step is not None:
        spared.add(folder_name(best_step))
    gone = [folder for folder in folders if folder.name not in spared]
    for folder in gone:
        # Without its manifest a folder is no checkpoint, so a kill in the middle leaves nothing that looks whole.
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    return [int(folder.name.removeprefix("step-")) for folder in gone]


def folder_name(step: int) -> str:
    """step-000200 for 200."""
    return f"step-{step:06d}"


def _folders(checkpoints: Path) -> list[Path]:
    """Checkpoint folders by step, ascending, whole or not."""
    found = [(int(m[1]), folder) for folder in checkpoints.glob("step-*") if (m := _NAME.fullmatch(folder.name))]
    return [folder for _, folder in sorted(found)]


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
