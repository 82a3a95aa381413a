"""A native cache of a data file: the same rows as a DuckDB file of this person's, made in the background.

Owns its making and its finding again. A niced child builds it aside, so that nothing it does is felt: it is stopped
while a person reads rows, and goes on when nobody has for PAUSE_S; it ends with this process. One is made at a time.
Invariants: a cache is whole or it is not there; it is used only for a file of the same path, size, time and inode, with
the columns and the number of rows that the file has; one that is torn, foreign or old is thrown away. Who reads finds
the same rows here as in the file, and only sooner.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.run.locks import HeldLock
from engine.run.locks import hold as hold_lock
from workbench.cache_room import LEAST_FREE_BYTES, NEW, free_bytes, make_room, native_folder, remove
from workbench.child_programs import child_environment
from workbench.dataset_window import FileIdentity, WindowColumn
from workbench.sql_rows import CACHE, Relation, SqlRows, duckdb_error

SCHEMA = 1
LEAST_BYTES = 16_000_000
"""A smaller file is read as fast without."""
MOST_COLUMNS = 1000
"""Each column of a row group that is being written takes memory, of which the child has little."""
GROWTH = {"parquet": 4, "jsonl": 2}
"""The most times that a cache is larger than its file: 3.2 was seen for Parquet of ten million short texts."""
PAUSE_S = 1.0
START_S = 0.5
"""So long after a file was opened nothing is done for its cache: its first rows are being drawn."""
_LOOK_EVERY_S = 0.05
_WAIT_S = 1.0
_PAGE_MEMORY = "128MB"


@dataclass(frozen=True)
class Layout:
    """How a file's rows lie in its cache."""

    kind: str
    """The file's, as the child knows it: parquet, jsonl."""
    columns: tuple[WindowColumn, ...]
    """The columns of the table as they are read."""
    stored: tuple[tuple[str, str], ...]
    """(name, DuckDB's type) of all columns of the table, in order."""
    held: str = ""
    """As `sql_rows.Relation.held`."""


def parquet_layout(columns: Sequence[WindowColumn]) -> Layout:
    """A table as the file is."""
    return Layout("parquet", tuple(columns), tuple((column.name, column.type) for column in columns))


def lines_layout(columns: Sequence[WindowColumn]) -> Layout:
    """JSON lines: a text for each column that the first rows have, what else a row holds, and lines that are no row."""
    names = [f"c{place}" for place in range(len(columns))]
    read = tuple(
        WindowColumn(name, column.type if column.is_number else "VARCHAR")
        for name, column in zip(names, columns, strict=True)
    )
    stored = (*((name, "VARCHAR") for name in names), ("others", "VARCHAR[]"), ("unread", "BOOLEAN"))
    some = " OR ".join(f"contains(lower({name}), lower($text))" for name in names)
    held = f"(NOT unread AND ({some})) OR len(list_filter(others, lambda x: contains(lower(x), lower($text)))) > 0"
    return Layout("jsonl", read, stored, held)


def is_worth_it(identity: FileIdentity, columns: Sequence[WindowColumn]) -> bool:
    """Whether a cache of this file would be noticed, and can be made."""
    hides_rowid = any(column.name.lower() == "rowid" for column in columns)
    return identity.bytes >= LEAST_BYTES and len(columns) <= MOST_COLUMNS and not hides_rowid


def rows_from_cache(identity: FileIdentity, layout: Layout, count: int, closed: Callable[[], bool]) -> SqlRows | None:
    """In a thread of its own: the rows of the file's cache, which is made first where there is none.

    None where there is no room for one, where it cannot be made, or where `closed` says that nobody waits any more;
    a cache that is being made by then is finished all the same.
    """
    file = native_folder() / f"{identity.key(f'{SCHEMA} {layout.kind}')}.duckdb"
    time.sleep(START_S)
    if closed():
        return None
    found = _opened(file, layout, count)
    if found is not None:
        return found
    lock = _my_turn(closed)
    if lock is None:
        return None
    try:
        found = _opened(file, layout, count)  # another program may have made it meanwhile
        if found is None and _made(file, identity, layout.kind, count):
            found = _opened(file, layout, count)
        return found
    finally:
        lock.release()


def hold() -> None:
    """A person reads: what is being made waits."""
    _child.hold()


def throw_away(rows: SqlRows) -> None:
    """Remove the cache of which these rows are, because it cannot be read."""
    if rows.relation.attached is not None:
        remove(rows.relation.attached)


class _Child:
    """The one child that makes a cache; stopped while rows are read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._held_until = 0.0
        self._ready = False
        """Whether the child dies with this process; before that it must not be stopped."""
        self.stopped = False

    def hold(self) -> None:
        with self._lock:
            self._held_until = time.monotonic() + PAUSE_S
            self._stop()

    def run(self, request: dict[str, Any]) -> bool:
        """Start it when nobody reads, and wait for its end; whether it has made what was asked."""
        while time.monotonic() < self._held_until:
            time.sleep(_LOOK_EVERY_S)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "workbench.native_cache_child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=child_environment(),
            start_new_session=True,  # Ctrl+C of the terminal is not for it
        )  # fmt: skip
        with self._lock:
            self._process, self.stopped, self._ready = process, False, False
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with process.stdin, suppress(BrokenPipeError):
                process.stdin.write(json.dumps(request).encode())
            with process.stdout:
                ready = bool(process.stdout.read(1))
            with self._lock:
                self._ready = ready
                if time.monotonic() < self._held_until:  # somebody has read meanwhile
                    self._stop()
            while process.poll() is None:
                self._go_on()
                if free_bytes() < LEAST_FREE_BYTES:
                    return False
                time.sleep(_LOOK_EVERY_S)
            return process.returncode == 0
        finally:
            self.end()

    def end(self) -> None:
        """End it at once, stopped or not."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _stop(self) -> None:
        if self._process is not None and self._ready and not self.stopped:
            self.stopped = True
            self._process.send_signal(signal.SIGSTOP)

    def _go_on(self) -> None:
        with self._lock:
            if self.stopped and self._process is not None and time.monotonic() >= self._held_until:
                self.stopped = False
                self._process.send_signal(signal.SIGCONT)


_child = _Child()
atexit.register(_child.end)


def _my_turn(closed: Callable[[], bool]) -> HeldLock | None:
    """The right to make one; None where nobody waits for it any more."""
    folder = native_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    while (lock := hold_lock(folder / "making.lock")) is None:
        if closed():
            return None
        time.sleep(_WAIT_S)
    return lock


def _made(file: Path, identity: FileIdentity, kind: str, count: int) -> bool:
    """Make the cache aside, then move it to its place; SourceChanged where the file was written to meanwhile."""
    if not make_room(GROWTH[kind] * identity.bytes):
        return False
    new = file.with_name(f"{NEW}{secrets.token_hex(8)}.duckdb")
    request = {
        "kind": kind, "source": os.path.abspath(identity.path), "target": str(new), "schema": SCHEMA, "rows": count,
        "parent": os.getpid(),
    }  # fmt: skip
    try:
        if not _child.run(request):
            return False
        identity.require()
        os.replace(new, file)
        return True
    finally:
        for left in file.parent.glob(f"{new.name}*"):
            remove(left)


def _opened(file: Path, layout: Layout, count: int) -> SqlRows | None:
    """The rows of a cache; None where there is none, or none that is of this file, which is thrown away."""
    try:
        found = os.lstat(file)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
        remove(file)
        return None
    relation = Relation(f"{CACHE}.rows", "rowid", attached=file, held=layout.held, memory=_PAGE_MEMORY)
    connection = None
    try:
        connection = relation.connect(threads=1)
        about = connection.execute(f"SELECT schema, rows FROM {CACHE}.about").fetchall()
        described = connection.execute(f"DESCRIBE SELECT * FROM {CACHE}.rows").fetchall()
        if about == [(SCHEMA, count)] and tuple((name, kind) for name, kind, *_ in described) == layout.stored:
            with suppress(OSError):
                os.utime(file)  # opened just now
            return SqlRows(relation, layout.columns, count, connection)
    except duckdb_error():
        pass
    if connection is not None:
        connection.close()
    remove(file)
    return None
