"""A file of strangers is opened by a child before this process opens it: a parser that crashes takes only the child.

Owns which files were tried. Parquet is read by DuckDB's C++, in which a damaged or hostile file may find a fault that
no exception tells of; text, JSON and gzip are read by parsers that are memory-safe or Python's own, Arrow by a child
in any case (`hub_dataset`). Invariants: a file that a child could not survive is never opened here; one that was tried
is known by path, size, time and inode, in the person's cache, and costs a look at its stat from then on. What a parser
says of a file in words is not this module's: the file is opened here and says it again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from engine.run.durable_files import write_atomically
from engine.run.user_cache import user_cache_folder
from workbench.child_programs import child_environment
from workbench.dataset_window import identity_of
from workbench.errors import UnreadableData

T = TypeVar("T")
PROGRAM = "workbench.file_trial_child"
AT_ONCE_BYTES = 32_000_000
"""A file up to this size is read whole when it is first opened, a larger one when all its rows are asked for."""
_PAGE_ROWS = 256
_SCHEMA = "trial 2"
_known: dict[str, int] = {}
"""What this process knows to have been tried, with its longest text, so that without a cache it is tried once."""


def try_file(path: Path, *, whole: bool = False) -> int:
    """Have a child read a Parquet file's ends, or all of it, unless one has; UnreadableData where that child dies.

    Returns how many bytes the longest text has, where all of the file was read; 0 where that is not known.
    """
    identity = identity_of(path)
    whole = whole or identity.bytes <= AT_ONCE_BYTES
    marks = [identity.key(f"{_SCHEMA} {how}") for how in (("whole",) if whole else ("whole", "ends"))]
    folder = user_cache_folder() / "tried"
    for mark in marks:
        longest = _known.get(mark)
        if longest is None:
            longest = _remembered(folder / mark)
        if longest is not None:
            _known[mark] = longest
            return longest
    done = run_child(path, "whole" if whole else "ends")
    if done.returncode < 0:
        raise UnreadableData(
            f"{path} cannot be opened: the process that tried it was ended by {_signal_name(-done.returncode)}, so the "
            "file is damaged, or harms who reads it. Fetch or write it again."
        )
    longest = _known[marks[-1]] = int(done.stdout or 0)
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(folder / marks[-1], str(longest).encode(), durable=False)
    return longest


def run_child(path: Path, *how: str) -> subprocess.CompletedProcess[bytes]:
    """Let the child read a file: its ends, whole, or to make a copy of it in which long texts are cut."""
    return subprocess.run(
        [sys.executable, "-P", "-m", PROGRAM, str(path), *how],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=child_environment(), start_new_session=True, check=False,
    )  # fmt: skip


def _remembered(mark: Path) -> int | None:
    try:
        found = int(mark.read_bytes())
        os.utime(mark)
    except (OSError, ValueError):
        return None
    return found


def tried(path: Path, rows: Iterator[T]) -> Iterator[T]:
    """`rows` of a Parquet file in order: its ends are tried before the first, all of it before more than a page."""
    try_file(path)
    for number, row in enumerate(rows):
        if number == _PAGE_ROWS:
            try_file(path, whole=True)
        yield row


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
