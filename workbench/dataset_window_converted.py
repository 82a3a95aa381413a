"""A window on a file that has to be read from its beginning: CSV, JSON, gzip. The first rows at once, then the rest.

Owns the copy. The rows are read once in the background, by the reader that training uses, into a Parquet file in the
user's cache folder, and paged from there; a file that is opened again finds its copy. A file that is small is kept in
memory instead. Rows that cannot be read are left out and counted. Invariants: a copy is whole or it is not there; it is
used only for a file of the same path, size, time and inode; the copies can be deleted at any time.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from workbench.cache_room import copies_folder, make_room, require_space
from workbench.dataset_reading import FileKind, RawRow, ReadEvent, place_word, read_rows
from workbench.dataset_shapes import column_kinds
from workbench.dataset_window import (
    CELL_CHARACTERS,
    Cells,
    FileIdentity,
    Hits,
    RowWindow,
    WindowColumn,
    bounded,
    cell_of,
    holds,
    identity_of,
)
from workbench.dataset_window_parquet import ParquetWindow
from workbench.errors import UnreadableData, WorkbenchError, disk_full, is_out_of_space

_HELD_ROWS = 1000
_HELD_BYTES = 4_000_000
_CHECK_SPACE_ROWS = 20_000


class _Closed(Exception):
    """Nobody looks at the file any more."""


class ConvertedWindow(RowWindow):
    """The rows of a file that can only be read in order."""

    def __init__(self, path: Path, kind: FileKind) -> None:
        self.path = path
        self._kind = kind
        self._identity: FileIdentity = identity_of(path)
        self._copy = copies_folder() / f"{self._identity.key(f'1 {kind}')}.parquet"
        self._events: Iterator[ReadEvent] = read_rows(path, kind)
        self._held: list[RawRow] = []
        self._left_out = 0
        self._read = 0
        """Rows read so far, the held ones among them."""
        self._fault = ""
        self._inner: ParquetWindow | None = None
        self._done = threading.Event()
        self._closed = threading.Event()
        if self._read_first():
            self._done.set()
        elif not self._open_copy():
            threading.Thread(target=self._convert, name="copy of rows", daemon=True).start()
        self.columns = self._columns()

    @property
    def rows_so_far(self) -> int:
        return self._inner.rows_so_far if self._inner else len(self._held)

    @property
    def complete(self) -> bool:
        return self._done.is_set()

    @property
    def note(self) -> str:
        """What was left out, what went wrong, or how far the reading is."""
        if self._fault:
            return self._fault
        if not self.complete:
            return f"reading the rest: {self._read:,} rows so far"
        if not self._left_out:
            return ""
        return (
            "1 unreadable row is left out"
            if self._left_out == 1
            else f"{self._left_out:,} unreadable rows are left out"
        )

    def rows(self, start: int, count: int) -> list[Cells]:
        self._identity.require()
        if self._inner is not None:
            return [self._in_order(cells) for cells in self._inner.rows(start, count)]
        return [self._cells_of(row.value) for row in self._held[max(0, start) : start + count]]

    def rows_at(self, numbers: Sequence[int]) -> list[Cells]:
        self._identity.require()
        if self._inner is not None:
            return [self._in_order(cells) for cells in self._inner.rows_at(numbers)]
        return [self._cells_of(self._held[number].value) for number in numbers]

    def row(self, number: int) -> dict[str, Any]:
        self._identity.require()
        found: dict[str, Any]
        if 0 <= number < len(self._held):
            found = bounded(self._held[number].value)
            return found
        if self._inner is None:
            raise UnreadableData(f"{self.path}: row {number + 1:,} is not read yet.")
        found = self._inner.row(number)
        return found if self._kind.format == "csv" else {name: cell for name, cell in found.items() if cell is not None}

    def matching(self, text: str, should_stop: Callable[[], bool] = lambda: False) -> Generator[Hits, None, None]:
        self._identity.require()
        wanted = text.lower()
        held = [i for i, row in enumerate(self._held) if any(holds(cell, wanted) for cell in row.value.values())]
        yield Hits(held, len(self._held))
        while not self._done.wait(0.05):
            if should_stop():
                return
        if self._inner is not None:
            for found in self._inner.matching(text, should_stop):
                numbers = [number for number in found.numbers if number >= len(self._held)]
                yield Hits(numbers, max(found.scanned, len(self._held)))

    def place(self, number: int) -> str:
        if number < len(self._held):
            return f"{place_word(self._kind)} {self._held[number].number:,}"
        return super().place(number)

    def close(self) -> None:
        self._closed.set()
        if self._inner is not None:
            self._inner.close()
            if self._fault:
                self._inner.path.unlink(missing_ok=True)

    def _read_first(self) -> bool:
        """Hold the first rows; whether they are all."""
        size = 0
        try:
            for event in self._events:
                if isinstance(event, RawRow):
                    self._held.append(event)
                    self._read += 1
                    size += event.size
                else:
                    self._left_out += 1
                if self._read >= _HELD_ROWS or size >= _HELD_BYTES:
                    return False
        except UnreadableData as error:
            if not self._held:
                raise
            self._fault = self._ended_early(error)
        return True

    def _columns(self) -> tuple[WindowColumn, ...]:
        kinds = column_kinds([row.value for row in self._held])
        return tuple(WindowColumn(name, " or ".join(held)) for name, held in kinds.items()) or (
            WindowColumn("row", "nothing readable"),
        )

    def _cells_of(self, row: dict[str, Any]) -> Cells:
        cells = (cell_of(row.get(column.name)) for column in self.columns)
        return tuple(cell[:CELL_CHARACTERS] if cell else cell for cell in cells)

    def _in_order(self, cells: Cells) -> Cells:
        """The cells of the columns that the first rows have: the copy begins with them."""
        return cells[: len(self.columns)]

    def _open_copy(self) -> bool:
        if not self._copy.is_file():
            return False
        try:
            self._inner = ParquetWindow(self._copy, decode_json=self._kind.format != "csv")
        except WorkbenchError:
            self._copy.unlink(missing_ok=True)
            return False
        with suppress(OSError):  # opened just now; the time of the last change is part of what another window checks
            os.utime(self._copy, ns=(time.time_ns(), self._copy.stat().st_mtime_ns))
        self._done.set()
        return True

    def _convert(self) -> None:
        from workbench.duckdb_connection import write_parquet

        new = self._copy.with_name(f".new-{secrets.token_hex(8)}.parquet")
        try:
            new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_room(self._identity.bytes)
            types: dict[str, str] = {}
            with closing(self._rows(types)) as rows:
                # The types are filled in while the rows are written, and read after them.
                write_parquet(new, rows, types)
            if not self._fault:
                os.replace(new, self._copy)
                new = self._copy
            self._inner = ParquetWindow(new, decode_json=self._kind.format != "csv")
            if self._closed.is_set():  # since the last row was read: nobody else closes what was opened after that
                self.close()
        except _Closed:
            new.unlink(missing_ok=True)
        except Exception as error:  # the end of a thread: what went wrong is told, and the first rows stay
            new.unlink(missing_ok=True)
            if not self._closed.is_set():
                self._fault = self._why(error)
        finally:
            self._done.set()

    def _rows(self, types: dict[str, str]) -> Generator[dict[str, Any], None, None]:
        """All rows for the copy; `types` gets a column for every name, in the order of their first appearance."""
        names: dict[str, str] = {}
        for row in self._all():
            value = row.value
            for key, cell in value.items():
                if key not in names:
                    names[key] = _column_name(key, types)
                    types[names[key]] = "VARCHAR"
                if cell is not None and not isinstance(cell, str):
                    types[names[key]] = "JSON"
            yield {names[key]: cell for key, cell in value.items()}

    def _all(self) -> Iterator[RawRow]:
        yield from self._held
        try:
            for event in self._events:
                if self._closed.is_set():
                    raise _Closed
                if not isinstance(event, RawRow):
                    self._left_out += 1
                    continue
                self._read += 1
                if self._read % _CHECK_SPACE_ROWS == 0:
                    require_space(self._copy.parent, "copying rows for browsing")
                yield event
        except (UnreadableData, OSError) as error:
            if is_out_of_space(error):
                raise
            self._fault = self._ended_early(error)

    def _ended_early(self, error: Exception) -> str:
        return f"{error} The {self._read:,} rows before that are shown."

    def _why(self, error: Exception) -> str:
        if is_out_of_space(error):
            error = disk_full(f"reading {self.path.name}", self._copy.parent)
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"only the first {len(self._held):,} rows of {self.path.name} are shown: {said}"


def _column_name(name: str, taken: dict[str, str]) -> str:
    """A name for the copy's column: DuckDB tells no upper from lower case and has no empty names."""
    lower = {other.lower() for other in taken}
    found, number = name.replace("\0", "␀") or "(no name)", 1
    while found.lower() in lower or found.lower() == "file_row_number":
        found, number = f"{name or '(no name)'}_{number}", number + 1
    return found
