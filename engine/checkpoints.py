"""Checkpoints: written aside, synced, sealed by a manifest, renamed into place.

A folder `checkpoints/step-000200` exists only whole: its MANIFEST.json, written last, lists every file with size and
sha256. What fails that check is moved aside to `bad-step-…` and the one before is used. Safetensors and JSON only.
The weights lie at the top of the folder, in the layout that peft and transformers load; what only a resume needs is
under `trainer/`. An older checkpoint that is kept for its weights loses `trainer/`: first its manifest is replaced by
one that lists the weights alone, so that it is whole at every moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.errors import CheckpointError
from engine.run.durable_files import fsync_folder, write_atomically

MANIFEST = "MANIFEST.json"
TRAINER = "trainer"
TRAINER_STATE = f"{TRAINER}/state.json"
FREE_SPACE_FACTOR = 2
"""Of the last checkpoint's size: free space that must be there before the next one is begun."""
_NAME = re.compile(r"step-(\d{6,})")


def save_checkpoint(
    checkpoints: Path,
    step: int,
    *,
    write_weights: Callable[[Path], None],
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    state: Mapping[str, Any],
    margin: bool = True,
) -> Path:
    """Write `step-NNNNNN` and return its folder. An equal checkpoint that is already whole is kept.

    `write_weights` fills the folder; `tensors` become `trainer/NAME.safetensors`; `state` becomes
    `trainer/state.json`. With `margin` nothing is begun unless twice the size of the last checkpoint is free. Raises
    CheckpointError where the disk is full or refuses; the ones before stay as they are.
    """
    final = checkpoints / folder_name(step)
    if final.exists():
        if (fault := fault_of(final)) is None and can_resume(final):
            return final
        if fault is not None:
            quarantine(final)
    if margin:
        _require_space(checkpoints, final.name)
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
        if final.exists():
            # Weights alone, kept as a run's best: the whole checkpoint of the same step takes their place.
            final.rename(checkpoints / f"{folder_name(step)}.tmp-{uuid.uuid4().hex[:8]}")
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


def _require_space(checkpoints: Path, name: str) -> None:
    folders = _folders(checkpoints)
    needed = FREE_SPACE_FACTOR * _size(folders[-1]) if folders else 0
    free = shutil.disk_usage(checkpoints).free
    if free < needed:
        raise CheckpointError(
            f"{name} was not written: {free // 2**20} MB are free on that disk, and {needed // 2**20} MB are wanted, "
            f"{FREE_SPACE_FACTOR} times the last checkpoint. Free some space, or lower checkpoint.keep"
        )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _seal(folder: Path, step: int) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    listing = {}
    for file in files:
        os.chmod(file, 0o600)
        _sync(file)
        listing[str(file.relative_to(folder))] = {"size": file.stat().st_size, "sha256": _sha256(file)}
    _write_manifest(folder, {"schema": 1, "step": step, "files": listing})
    for inner in [p for p in folder.rglob("*") if p.is_dir()]:
        fsync_folder(inner)
    fsync_folder(folder)


def _write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    write_atomically(folder / MANIFEST, json.dumps(content, indent=2).encode() + b"\n", durable=True)


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


def can_resume(folder: Path) -> bool:
    """Whether a whole checkpoint holds what a run needs to go on, and not its weights alone."""
    return TRAINER_STATE in json.loads((folder / MANIFEST).read_text())["files"]


def newest_valid(checkpoints: Path, on_fault: Callable[[str, str], None]) -> Path | None:
    """The newest checkpoint that verifies and that a run can go on from; faulty ones are moved aside and told to
    `on_fault(name, what)`, weights that are kept alone are passed over."""
    for folder in reversed(_folders(checkpoints)):
        fault = fault_of(folder)
        if fault is not None:
            quarantine(folder)
            on_fault(folder.name, fault)
        elif can_resume(folder):
            return folder
    return None


def load_trainer(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """The tensors and the state that a resume needs."""
    trainer = folder / TRAINER
    tensors = {file.stem: load_file(file) for file in sorted(trainer.glob("*.safetensors"))}
    return tensors, json.loads((trainer / "state.json").read_text())


def prune(
    checkpoints: Path, *, keep: int, best_step: int | None, keep_every: int = 0, spare_before: Sequence[int] = ()
) -> list[int]:
    """Keep the newest `keep` checkpoints whole, of the best, of multiples of `keep_every` and of the newest before each
    step of `spare_before` the weights, and no more.

    Weights that are marked as needed (`RunFolder.needed_path`) are kept, too. Half-written leftovers go. Nothing is
    deleted before the newest one has been read again and verified. Returns the steps deleted.
    """
    for leftover in checkpoints.glob("step-*.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folders = _folders(checkpoints)
    # Weights alone are no checkpoint to go on from, however new: a run that fell back may have some ahead of it.
    whole = [folder for folder in folders if (folder / TRAINER_STATE).is_file()]
    if not whole or fault_of(whole[-1]) is not None:
        return []
    gone = []
    steps = [_step(folder) for folder in folders]
    spared = {max((step for step in steps if step < before), default=-1) for before in spare_before}
    for folder in folders:
        step = _step(folder)
        if folder in whole[-max(1, keep) :]:
            continue
        needed = (checkpoints / f"needed-{step:06d}").exists()
        if step == best_step or step in spared or needed or (keep_every > 0 and step % keep_every == 0):
            _keep_weights_alone(folder)
            continue
        gone.append(step)
        # Without its manifest a folder is no checkpoint, so a kill in the middle leaves nothing that looks whole.
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    return gone


def _keep_weights_alone(folder: Path) -> None:
    """Take `trainer/` out of a checkpoint. One that is not whole is left for `newest_valid` to find."""
    if not (folder / TRAINER).is_dir() or fault_of(folder) is not None:
        return
    manifest = json.loads((folder / MANIFEST).read_text())
    weights = {name: entry for name, entry in manifest["files"].items() if not name.startswith(f"{TRAINER}/")}
    try:
        _write_manifest(folder, {**manifest, "files": weights})
    except OSError:
        return  # it stays whole, which costs space and nothing else
    shutil.rmtree(folder / TRAINER, ignore_errors=True)


def folder_name(step: int) -> str:
    """step-000200 for 200."""
    return f"step-{step:06d}"


def _folders(checkpoints: Path) -> list[Path]:
    """Checkpoint folders by step, ascending, whole or not."""
    return sorted((folder for folder in checkpoints.glob("step-*") if _NAME.fullmatch(folder.name)), key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
