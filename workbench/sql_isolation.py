"""What a process that runs a typed query gives up before it opens anything: writing, reading, memory, the network.

Owns Landlock (Linux 5.13 and newer) by its three system calls, and the resource limits. DuckDB's own settings do not
keep a query from writing: `COPY … (USE_TMP_FILE false)` truncates a file that it may read. So the kernel forbids it, or
where the kernel cannot, the process is given copies. Invariants: what is given up cannot be taken back; only the thread
that calls and those it starts later are bound, so this runs before DuckDB is imported, in a process of one thread.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System call numbers; the same on every architecture."""
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVS, _DEATH_SIGNAL = 38, 1
LEAST_ABI = 3
"""From Linux 6.2, Landlock forbids truncation, too; before that it counts as absent."""
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_WRITE_REST = sum(1 << bit for bit in range(4, 13))
"""Removing and making files and folders of every kind."""
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_BIND_TCP, _CONNECT_TCP = 1, 2
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
"""Rights that a rule for a single file may give."""
MEMORY_BYTES = 2_000_000_000
"""DuckDB's own limit."""
ADDRESS_BYTES = 6_000_000_000
"""Of the whole process: repeat('x', 2000000000) does not count for DuckDB."""


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
    )


class _PathAttributes(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def landlock_abi() -> int:
    """The version of Landlock that this kernel has; 0 where it has none, or it is switched off."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)))


def has_landlock() -> bool:
    """Whether the kernel can forbid everything that must be forbidden."""
    return landlock_abi() >= LEAST_ABI


def forbid_files(readable: Iterable[Path], writable: Path) -> None:
    """From here on this process reads only `readable` (files and folders), and writes only below `writable`.

    Connections by TCP are forbidden, too, where the kernel can. OSError where it refuses.
    """
    libc, abi = _libc(), landlock_abi()
    if abi < LEAST_ABI:
        raise OSError(f"Landlock is version {abi}, and version {LEAST_ABI} is needed")
    files = _READ | _WRITE_FILE | _WRITE_REST | _REFER | _TRUNCATE | (_IOCTL_DEV if abi >= 5 else 0)
    attributes = _RulesetAttributes(files, (_BIND_TCP | _CONNECT_TCP) if abi >= 4 else 0)
    size = ctypes.sizeof(attributes) if abi >= 4 else 8
    ruleset = _checked(libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), size, 0), "landlock_create_ruleset")
    try:
        for path in readable:
            _allow(libc, ruleset, path, _READ)
        _allow(libc, ruleset, writable, files & ~_EXECUTE & ~_REFER & ~_IOCTL_DEV)
        _checked(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def program_places() -> list[Path]:
    """What Python and DuckDB themselves read: the installation, our code, libraries, what the kernel says."""
    places = [sys.prefix, sys.base_prefix, *filter(None, sys.path), "/usr", "/lib", "/lib64", "/bin"]
    places += ["/proc", "/sys", "/dev/null", "/dev/urandom", "/dev/random", "/etc/localtime", "/etc/ld.so.cache"]
    return [Path(place) for place in dict.fromkeys(places)]


def limit_process(cpu_s: int, file_bytes: int) -> None:
    """Bound this process: memory, time on the processor, size of a file it writes; it dies with its parent."""
    die_with_parent()
    if sys.platform.startswith("linux"):
        _lower(resource.RLIMIT_AS, ADDRESS_BYTES)
    _lower(resource.RLIMIT_CPU, cpu_s)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    _lower(resource.RLIMIT_CORE, 0)


def die_with_parent() -> None:
    """From here on this process is killed when the thread that started it ends; where the kernel cannot, it is not."""
    if sys.platform.startswith("linux"):
        _libc().prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _lower(which: int, wanted: int) -> None:
    """A limit may be lower already, and cannot be raised then."""
    _, hard = resource.getrlimit(which)
    bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(which, (bound, bound))


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    """Allow `rights` at and below a path; one that is not there needs no rule."""
    try:
        place = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights &= ~0 if path.is_dir() else _OF_FILES
        attributes = _PathAttributes(rights, place)
        _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(attributes), 0), "landlock_add_rule")
    finally:
        os.close(place)


def _checked(result: int, call: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{call}: {os.strerror(error)}")
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
