"""Who has each GPU of this machine: a run by its name, another process, or nobody.

Owns the words. A lease is asked first; memory that is in use without one belongs to a program that does not lease.
"""

from __future__ import annotations

import pwd
import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import EngineError
from engine.run.gpus import Gpu, installed_gpus, leased_by

IDLE_MB = 600
"""Memory that a driver with nobody on the device may hold."""
_LEASE = re.compile(r"process (\d+) of user (\d+)")


@dataclass(frozen=True)
class GpuUse:
    """One device and who has it."""

    gpu: Gpu
    holder: str
    """A run's ID; else who holds the lease; "in use without a lease"; "free"."""


def gpu_uses() -> tuple[GpuUse, ...]:
    """Every device with its holder; nothing where there are no devices."""
    return tuple(GpuUse(gpu, _holder(gpu)) for gpu in installed_gpus())


def _holder(gpu: Gpu) -> str:
    try:
        said = leased_by(gpu.uuid)
    except EngineError:
        said = ""
    if not said:
        return "in use without a lease" if gpu.memory_used_mb > IDLE_MB else "free"
    found = _LEASE.fullmatch(said)
    if not found:
        return said
    pid, uid = int(found[1]), int(found[2])
    return _run_of(pid) or f"{_user(uid)} (process {pid})"


def _run_of(pid: int) -> str:
    """The run that a supervisor was started for, by its command line; empty where it is none, or not ours to read."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    if not any(word in (b"engine.run.supervisor", b"engine.train") for word in words):
        return ""
    folders = [Path(word.decode("utf-8", "replace")) for word in words if word.startswith(b"/")]
    return next((folder.name for folder in folders if folder.parent.name == "runs"), "")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
