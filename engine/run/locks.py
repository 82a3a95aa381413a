"""Locks that die with their holder: `flock`, and what to do where it does not exclude.

Owns the answer to "is it alive?": alive means that the lock is held, never that a process number exists. Invariants: a
lock is free the moment its last holder is gone, however it went; asking never takes the lock from a starter. A lock
taken with `inheritable` lives on in every child that is given its descriptor. On a filesystem whose flock does not
exclude other processes, or is not inherited by children (NFS), the lock file holds one line that says where the true
lock lies: in a folder of this host that outlives logins. Refuses to know what is locked.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import RunFolderError
from engine.run.durable_files import PRIVATE, disk_faults_named, write_atomically

HOST_FOLDERS = (Path("/run/lock"), Path("/dev/shm"), Path("/var/tmp"), Path("/tmp"))
"""Where locks of this host may lie; none of them ends with a login."""
_ELSEWHERE = b"workbench-lock-at "
_ASKER_PATIENCE_S = 0.25


@dataclass
class HeldLock:
    """A lock that this process holds."""

    path: Path
    """What was asked for; the lock itself may lie elsewhere on this host."""
    descriptor: int
    """Pass it to children (`pass_fds`) that are to hold the lock, too. -1 once released."""

    def release(self) -> None:
        """Let go. Children that were given the descriptor go on holding the lock."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def hold(path: Path, inheritable: bool = False) -> HeldLock | None:
    """Take the lock, or None where another process has it. The file is made where it is missing.

    With `inheritable` the descriptor survives `exec`, so every child started with it (`pass_fds`) holds the lock.
    """
    with disk_faults_named("taking a lock", path):
        descriptor = _open(path, for_holding=True)
        in_place = excludes(path.parent)
        if not in_place:
            os.close(descriptor)
            elsewhere = host_lock_path(path)
            _point_to(path, elsewhere)
            descriptor = _open(elsewhere, for_holding=True)
        if not take_lock(descriptor):
            os.close(descriptor)
            return None
        if in_place and os.fstat(descriptor).st_size:
            os.ftruncate(descriptor, 0)  # It pointed elsewhere before the folder came to this filesystem.
        os.set_inheritable(descriptor, inheritable)
    return HeldLock(path, descriptor)


def is_held(path: Path) -> bool:
    """Whether any process of this host holds the lock. Never blocks, never makes a file, never keeps a starter out."""
    try:
        descriptor = _open(path, for_holding=False)
    except OSError:
        return False
    try:
        elsewhere = _pointer(descriptor)
        if elsewhere is not None:
            os.close(descriptor)
            descriptor = -1
            descriptor = _open(elsewhere, for_holding=False)
        # A shared lock, so that any number of askers do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Explicitly, because a process forked at this moment would keep a copy of the descriptor.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return False


def holders(path: Path) -> list[int]:
    """Processes of this account that have the lock's file open (Linux; elsewhere none), for messages and signals.

    A lock is held by whoever has inherited its descriptor, so this finds the descendants that keep a tree lock.
    """
    wanted = _lock_file(path)
    if wanted is None:
        return []
    with suppress(OSError):
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _has_open(pid, wanted)]
    return []


def held_descriptors(path: Path) -> list[int]:
    """Descriptors of this process that hold a lock which it has inherited; pass them on to a child that is to count as
    one of its holders (Linux; elsewhere none)."""
    wanted = _lock_file(path)
    return [] if wanted is None else _open_as(f"/proc/{os.getpid()}/fd", wanted)


def _lock_file(path: Path) -> os.stat_result | None:
    """Which file the lock of `path` is; None where there is none."""
    try:
        descriptor = _open(path, for_holding=False)
    except OSError:
        return None
    try:
        wanted = os.fstat(descriptor)
        elsewhere = _pointer(descriptor)
    finally:
        os.close(descriptor)
    if elsewhere is not None:
        try:
            wanted = os.stat(elsewhere)
        except OSError:
            return None
    return wanted


_probed: dict[int, bool] = {}


def excludes(folder: Path) -> bool:
    """Whether flock works in `folder`: excludes another process, and lives on in a child. Probed once a filesystem."""
    device = os.stat(folder).st_dev
    if device not in _probed:
        _probed[device] = _probe(folder)
    return _probed[device]


def host_lock_path(path: Path) -> Path:
    """Where the lock of `path` lies when its own filesystem cannot lock. Raises RunFolderError where no folder can."""
    import hashlib

    name = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:32] + ".lock"
    for parent in HOST_FOLDERS:
        folder = parent / f"workbench-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = os.lstat(folder)
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and excludes(folder):
                return folder / name
        except OSError:
            continue
    raise RunFolderError(
        f"{path}: locks do not work on this filesystem, nor in any of {', '.join(map(str, HOST_FOLDERS))}. Make one of "
        "these folders writable on a local disk"
    )


def _open(path: Path, *, for_holding: bool) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    flags |= os.O_RDWR | os.O_CREAT if for_holding else os.O_RDONLY
    descriptor = os.open(path, flags, PRIVATE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunFolderError(f"{path} is no regular file, so it cannot be a lock. Remove it")
    return descriptor


def take_lock(descriptor: int) -> bool:
    """An exclusive lock. Askers hold a shared one for microseconds: only who stays in the way is a holder."""
    deadline = time.monotonic() + _ASKER_PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def _point_to(path: Path, elsewhere: Path) -> None:
    write_atomically(path, _ELSEWHERE + os.fsencode(elsewhere) + b"\n")


def _pointer(descriptor: int) -> Path | None:
    """Where the true lock lies, if not here. Only folders that `host_lock_path` makes are believed."""
    content = os.read(descriptor, 4096)
    if not content.startswith(_ELSEWHERE):
        return None
    path = Path(os.fsdecode(content[len(_ELSEWHERE) :].rstrip(b"\n")))
    trusted = path.parent.name == f"workbench-{os.getuid()}" and path.parent.parent in HOST_FOLDERS
    return path if trusted else None


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    return bool(_open_as(f"/proc/{pid}/fd", wanted))


def _open_as(folder: str, wanted: os.stat_result) -> list[int]:
    """The descriptors in a folder of /proc that are one file."""
    try:
        names: Sequence[str] = os.listdir(folder)
    except OSError:
        return []
    found = []
    for name in names:
        with suppress(OSError):
            one = os.stat(f"{folder}/{name}")
            if (one.st_dev, one.st_ino) == (wanted.st_dev, wanted.st_ino):
                found.append(int(name))
    return found


_CHILD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("free", flush=True)
except OSError:
    print("held", flush=True)
sys.stdin.read()
"""


def _probe(folder: Path) -> bool:
    """Ask a second process whether our lock keeps it out; then let go and see that its inherited copy keeps us out."""
    import subprocess
    import sys

    path = folder / f".lock-probe-{os.getpid()}-{os.urandom(4).hex()}"
    ours = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    again = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CHILD, os.fspath(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(ours,),
        )
        assert child.stdin is not None
        assert child.stdout is not None
        with child:
            kept_out = child.stdout.readline().strip() == b"held"
            os.close(ours)
            ours = -1
            inherited = not _could_lock(again)
            child.stdin.close()
        return kept_out and inherited
    except OSError:
        return False
    finally:
        for descriptor in (ours, again):
            if descriptor >= 0:
                os.close(descriptor)
        path.unlink(missing_ok=True)


def _could_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
