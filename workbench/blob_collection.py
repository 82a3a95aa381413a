"""Collecting blobs/: what no run of the workspace uses any more, and its removal.

Owns what counts as used: a store or a file of log-probs that a run has noted (data/blobs.json), and frozen examples to
which a run's own file is a link. Invariants: nothing that a run uses is taken; one that starts in this moment loses no
more than the work of making a store, because it writes its note first, which is read again here under the store's lock
before anything goes, and what it has opened stays open. A store goes in one step, by a rename. What other parts keep in
blobs/ (the answers of Compare) and what is not known is left alone. The files of locks stay: were one removed, one
process could hold the old file and another a new one.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.run.blobs import blobs_used_by
from engine.run.folder import RunFolder
from engine.run.locks import hold
from workbench.errors import explain_os_errors
from workbench.run_removal import bytes_in
from workbench.terminal_output import counted
from workbench.workspace import Workspace

STORE, LOG_PROBS, FROZEN, REST = "tokenised", "log-probs", "frozen", "rest"
_NOUNS = {
    STORE: ("tokenised file", "tokenised files"),
    LOG_PROBS: ("file of reference log-probs", "files of reference log-probs"),
    FROZEN: ("file of frozen examples", "files of frozen examples"),
    REST: ("rest of a process that was killed", "rests of processes that were killed"),
}
LEFT_ALONE_S = 3600.0
"""A hidden file may still be in the making, whatever its name says; after an hour it is not."""
_KEY = r"[0-9a-f]{64}"
_STORE, _LOG_PROBS = re.compile(_KEY), re.compile(rf"{_KEY}\.safetensors")
_MAKING = re.compile(rf"\.({_KEY})\.(?:new|gone)")
_WRITING = re.compile(rf"\.{_KEY}(?:\.\d+\.new|\.safetensors\.tmp-.+)")


@dataclass(frozen=True)
class Unused:
    """One entry of blobs/ that no run uses."""

    name: str
    kind: str
    """tokenised, log-probs, frozen or rest."""
    bytes: int


def unused_blobs(workspace: Workspace) -> list[Unused]:
    """What `collect` would take, by name. Touches nothing. Raises WorkbenchError where it cannot be read."""
    with explain_os_errors("looking through blobs", workspace.blobs):
        return list(_unused(workspace)) if workspace.blobs.is_dir() else []


def collect(workspace: Workspace, found: list[Unused]) -> list[Unused]:
    """Remove what was found and still is unused; what went. Raises ReadOnly and WorkbenchError."""
    workspace.require_writable()
    with explain_os_errors("collecting blobs", workspace.blobs):
        return [blob for blob in found if _removed(workspace, blob)]


def words_of(blobs: list[Unused]) -> str:
    """One sentence for a person: "12.4 MB: 2 tokenised files, 1 file of frozen examples."."""
    counts = {kind: sum(blob.kind == kind for blob in blobs) for kind in _NOUNS}
    parts = [counted(count, *_NOUNS[kind]) for kind, count in counts.items() if count]
    return f"{sum(blob.bytes for blob in blobs) / 1e6:,.1f} MB: {', '.join(parts)}."


def _unused(workspace: Workspace) -> Iterator[Unused]:
    used = _noted(workspace)
    for entry in sorted(workspace.blobs.iterdir()):
        kind = _kind(entry)
        if kind and not (kind in (STORE, LOG_PROBS) and entry.name in used):
            size = bytes_in(entry) if entry.is_dir() else entry.lstat().st_size
            yield Unused(entry.name, kind, size)


def _kind(entry: Path) -> str:
    """What an entry is if it may be taken, provided that no run has noted it; else empty."""
    found = entry.lstat()
    if entry.is_symlink():
        return ""
    if entry.is_dir():
        return STORE if _STORE.fullmatch(entry.name) else REST if _MAKING.fullmatch(entry.name) else ""
    if _STORE.fullmatch(entry.name):
        return FROZEN if found.st_nlink == 1 else ""
    if _LOG_PROBS.fullmatch(entry.name):
        return LOG_PROBS
    return REST if _WRITING.fullmatch(entry.name) and time.time() - found.st_mtime > LEFT_ALONE_S else ""


def _noted(workspace: Workspace) -> set[str]:
    """Names in blobs/ that the runs of the workspace have noted."""
    return {name for run in workspace.names("runs") for name in blobs_used_by(RunFolder(workspace.runs / run)).values()}


def _removed(workspace: Workspace, blob: Unused) -> bool:
    """Whether it was still unused and is gone."""
    path = workspace.blobs / blob.name
    making = _MAKING.fullmatch(blob.name)
    lock = None
    if making or blob.kind in (STORE, LOG_PROBS):
        # Whoever makes the store, or waits to make it, has this lock or asks for it.
        lock = hold(workspace.blobs / f".{making[1] if making else blob.name}.lock")
        if lock is None:
            return False
    try:
        if blob.name in _noted(workspace) or not os.path.lexists(path) or _kind(path) != blob.kind:
            return False
        if blob.kind == STORE:
            gone = workspace.blobs / f".{blob.name}.gone"
            shutil.rmtree(gone, ignore_errors=True)
            path.rename(gone)
            path = gone
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        if lock is not None:
            lock.release()
    return True
