"""The queue of a runs folder: whose turn it is on a device, decided by the parked supervisors themselves.

Owns the order and the one lock that makes a turn exclusive. A queued run is a supervisor that holds its run, wrote the
phase "queued" with the time at which it joined, and looks now and then. Invariants: who looks holds `.queue.lock`,
so two never begin at once; only runs whose locks are held count, so the death of any of them, by whatever signal, moves
the queue on; no process is needed beside the supervisors. On the CPU a turn comes when no other run of the folder is
alive there; on CUDA when the devices' leases are free. A run that is started without the queue does not wait for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from engine.errors import DeviceTaken, EngineError
from engine.run.config_toml import read_config
from engine.run.events import append_event
from engine.run.folder import RunFolder
from engine.run.locks import hold, is_held
from engine.run.status import Status, new_status, read_status, write_status

LOCK_NAME = ".queue.lock"
BEAT_S = 10.0
"""Between heartbeats of a queued run."""


def join(folder: RunFolder, since: float = 0.0) -> Status:
    """Write down that the run waits for its turn from now on, or again, in the place that it has had `since` then.

    Its supervisor calls this, and holds its lock.
    """
    status = replace(new_status(folder, read_status(folder), phase="queued"), queued=since or time.time())
    write_status(folder, status)
    if not since:
        append_event(folder, "queued")
    return status


def take_turn(folder: RunFolder, device: str, begin: Callable[[], None]) -> bool:
    """Call `begin` where it is this run's turn; whether it was. Else status.json says what it waits for.

    `begin` leases the device and writes the next phase; DeviceTaken from it means that it is not the turn yet.
    """
    lock = hold(folder.path.parent / LOCK_NAME)
    if lock is None:
        return False  # another run is looking at this moment
    try:
        waits_for = next(_ahead(folder, device), "")
        if not waits_for:
            begin()
            return True
    except DeviceTaken as taken:
        reason, _, _ = str(taken).partition(". ")
        waits_for = f"a GPU: {reason}"
    finally:
        lock.release()
    status = read_status(folder)
    if status is not None and (status.waits_for != waits_for or time.time() - status.heartbeat > BEAT_S):
        write_status(folder, replace(status, heartbeat=time.time(), waits_for=waits_for))
    return False


def _ahead(folder: RunFolder, device: str) -> Iterator[str]:
    """Each living run that comes before this one, in words: those that train first, then those that queue."""
    own = read_status(folder)
    place = (own.queued if own else 0.0, folder.id)
    queued = []
    for other in _siblings(folder):
        supervised = is_held(other.lock_path)
        if not (supervised or is_held(other.tree_lock_path)) or _kind(_device_of(other)) != _kind(device):
            continue
        status = read_status(other)
        if supervised and status is not None and status.phase == "queued":
            if (status.queued, other.id) < place:
                queued.append(((status.queued, other.id), f"run {other.id}, which is before it in the queue"))
        elif _kind(device) == "cpu":
            # Which GPUs a run uses only its leases say; they are asked for when the turn comes.
            yield f"run {other.id} to end"
    yield from (words for _, words in sorted(queued, reverse=True))


def _siblings(folder: RunFolder) -> list[RunFolder]:
    parent = folder.path.parent
    names = sorted(name for name in os.listdir(parent) if not name.startswith(".") and name != folder.id)
    return [RunFolder(parent / name) for name in names]


def _device_of(folder: RunFolder) -> str:
    try:
        return read_config(folder.config_path).train.device
    except (EngineError, OSError):
        return "cpu"


def _kind(device: str) -> str:
    return "cpu" if device == "cpu" else "cuda"
