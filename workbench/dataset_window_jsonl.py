"""A window on a file of JSON lines: an index of where the lines begin, then any row by one seek.

Owns the index. It is built in the background in chunks that are read, not mapped (a mapped file that another program
cuts short would end the process); the first rows are there before it is done. Lines of fewer than two bytes hold no row
and are not counted. A line that cannot be parsed is a row that says so, and never an error of the file.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from workbench import native_cache
from workbench.dataset_reading import excerpt
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
from workbench.errors import UnreadableData, WorkbenchError
from workbench.row_query import RowQuery
from workbench.sql_rows import SqlRows, duckdb_error

_FIRST_BYTES = 1 << 18
_CHUNK_BYTES = 1 << 20
"""Read and searched in a processor's own cache: half of the time that 16 MB a chunk take."""
LONGEST_LINE = 32_000_000
"""Of a longer line only the beginning is read: a text of Python's takes up to four bytes a character."""
_EXCERPT_BYTES = 4096
_SAMPLE_ROWS = 256
_SAMPLE_BYTES = 4_000_000
_SCAN_ROWS = 4096


@dataclass(frozen=True)
class _Part:
    """The rows that end in one chunk."""

    starts: Any
    """numpy int64: the byte at which each row begins."""
    first_line: int
    lines: Any
    """numpy: the line of each row, from `first_line`; None where no line was left out."""


class JsonLinesWindow(RowWindow):
    """The rows of an uncompressed JSON-lines file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity: FileIdentity = identity_of(path)
        self._parts: list[_Part] = []
        self._ends: list[int] = []
        """How many rows there are up to and with each part."""
        self._done = threading.Event()
        self._closed = threading.Event()
        self._fault = ""
        self._native: SqlRows | None = None
        """The native cache, for filters and orders; a page is read sooner by the index."""
        self._indexing = _Indexing(path)
        try:
            small = self._identity.bytes <= _FIRST_BYTES
            while (small or not self._ends) and self._index_more(_FIRST_BYTES):
                pass
            self.columns = self._columns_of_sample()
        except (OSError, UnreadableData) as error:
            self._indexing.close()
            if isinstance(error, UnreadableData):
                raise
            raise UnreadableData(f"{path} cannot be read: {error.strerror}.") from error
        if not self._done.is_set():
            threading.Thread(target=self._index_all, name="index of JSON lines", daemon=True).start()

    @property
    def rows_so_far(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def complete(self) -> bool:
        return self._done.is_set()

    @property
    def note(self) -> str:
        return self._fault

    def rows(self, start: int, count: int) -> list[Cells]:
        return [self._cells_of(*line) for line in self._lines(start, count)]

    def whole_rows(self, start: int, count: int) -> Iterator[Cells]:
        for number, line in self._lines(start, count):
            yield self._cells_of(number, line, whole=True)

    def row(self, number: int) -> dict[str, Any]:
        for place, line in self._lines(number, 1):
            value = self._value_of(place, line)
            if isinstance(value, dict):
                found: dict[str, Any] = bounded(value)
                return found
            raise UnreadableData(f"{self.path}, {self.place(place)}: {value}: {_beginning(line)}")
        raise UnreadableData(f"{self.path} has no row {number + 1:,}; it has {self.rows_so_far:,}.")

    def matching(self, text: str, should_stop: Callable[[], bool] = lambda: False) -> Generator[Hits, None, None]:
        if self._native is not None:
            return self._scan_cache(self._native, RowQuery(text=text), should_stop)
        return self._read_through(text, should_stop)

    def rows_of(self, query: RowQuery, should_stop: Callable[[], bool] = lambda: False) -> Generator[Hits, None, None]:
        if self._native is not None:
            return self._scan_cache(self._native, query, should_stop)
        return super().rows_of(query, should_stop)

    def speed_up(self) -> bool:
        worth_it = native_cache.is_worth_it(self._identity, self.columns)
        if worth_it:
            threading.Thread(target=self._move_over, name="native cache", daemon=True).start()
        return worth_it

    def stored_rows(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """(bytes, what the native cache holds of it) of every row: cells, other columns' texts, whether unreadable."""
        names = [column.name for column in self.columns]
        for number, line in self._lines(0, self.rows_so_far):
            value = _parsed(line)
            if isinstance(value, dict):
                cells = [cell_of(value.pop(name, None)) for name in names]
                others = [text for text in map(cell_of, value.values()) if text is not None]
                yield len(line), (*cells, others or None, False)
            else:
                whole = line.decode("utf-8", "replace")
                yield len(line), (*self._cells_of(number, line), [whole], True)

    def _move_over(self) -> None:
        """In a thread: find rows by the cache from here on, once there is one."""
        self._done.wait()
        with suppress(WorkbenchError, OSError, duckdb_error()):
            layout = native_cache.lines_layout(self.columns)
            made = native_cache.rows_from_cache(self._identity, layout, self.rows_so_far, self._closed.is_set)
            self._native = made
            if made is not None and self._closed.is_set():
                made.close()

    def _scan_cache(
        self, cache: SqlRows, query: RowQuery, should_stop: Callable[[], bool]
    ) -> Generator[Hits, None, None]:
        def check(start: int, count: int) -> None:
            self._identity.require()
            native_cache.hold()

        scanned = 0
        try:
            for hits in cache.scan(query, should_stop, check):
                scanned = hits.scanned
                yield hits
            return
        except duckdb_error():
            self._native = None
            cache.close()
            native_cache.throw_away(cache)
        if query.is_plain:
            yield from self._read_through(query.text, should_stop, scanned)
        else:
            for hits in super().rows_of(query, should_stop):
                if hits.scanned > scanned:
                    yield Hits([number for number in hits.numbers if number >= scanned], hits.scanned)

    def _read_through(self, text: str, should_stop: Callable[[], bool], start: int = 0) -> Generator[Hits, None, None]:
        wanted = text.lower()
        # Where the text looks the same in JSON as it is, a line without it needs no parsing.
        plain = wanted.isascii() and wanted.isalnum()
        as_bytes = wanted.encode() if plain else b""
        while not should_stop():
            complete = self.complete
            end = min(start + _SCAN_ROWS, self.rows_so_far)  # once: rows that are found from here on are the next part
            numbers = [
                place
                for place, line in self._lines(start, end - start)
                if not (plain and b"\\" not in line and as_bytes not in line.lower()) and _holds(line, wanted)
            ]
            start = end
            yield Hits(numbers, start)
            if start >= self.rows_so_far:
                if complete:
                    return
                self._done.wait(0.05)

    def place(self, number: int) -> str:
        part, within = self._part_of(number)
        lines = self._parts[part].lines
        line = self._parts[part].first_line + (within if lines is None else int(lines[within]))
        return f"line {line:,}"

    def find(self, number: int, ordinal: int) -> int:
        place = bisect_right(self._parts, number, key=lambda part: part.first_line) - 1
        if place < 0:
            return -1
        part = self._parts[place]
        within = number - part.first_line
        if part.lines is not None:
            within = int(part.lines.searchsorted(within))
        found = self._ends[place] - len(part.starts) + within
        return found if within < len(part.starts) and self.place(found) == f"line {number:,}" else -1

    def close(self) -> None:
        self._closed.set()
        if self._native is not None:
            self._native.close()

    def _lines(self, start: int, count: int) -> Iterator[tuple[int, bytes]]:
        """(row, line) from row `start`; a line that is too long is cut."""
        self._identity.require()
        native_cache.hold()
        try:
            with open(self.path, "rb", buffering=1 << 18) as file:
                at = -1
                for number in range(max(0, start), min(start + count, self.rows_so_far)):
                    part, within = self._part_of(number)
                    begin = int(self._parts[part].starts[within])
                    if begin != at:
                        file.seek(begin)
                    line = file.readline(LONGEST_LINE + 1)
                    at = begin + len(line)
                    yield number, line
        except OSError as error:
            raise UnreadableData(
                f"{self.path} cannot be read: {error.strerror}. Mend that, then open it again."
            ) from error

    def _part_of(self, number: int) -> tuple[int, int]:
        part = bisect_right(self._ends, number)
        return part, number - (self._ends[part - 1] if part else 0)

    def _cells_of(self, number: int, line: bytes, *, whole: bool = False) -> Cells:
        value = self._value_of(number, line)
        if isinstance(value, dict):
            cells = (cell_of(value.get(column.name)) for column in self.columns)
            return tuple(cells) if whole else tuple(map(_cut, cells))
        return (f"✗ {value}: {_beginning(line)}", *(None for _ in self.columns[1:]))

    def _value_of(self, number: int, line: bytes) -> dict[str, Any] | str:
        """The object of a row, or in words why there is none."""
        if len(line) <= LONGEST_LINE:
            return _parsed(line)
        part, within = self._part_of(number)
        after = [*self._parts[part].starts[within + 1 : within + 2]]
        after += [found.starts[0] for found in self._parts[part + 1 : part + 2]]
        size = int(after[0] if after else self._identity.bytes) - int(self._parts[part].starts[within])
        return f"a line of {size / 1e6:,.0f} MB, of which only the beginning is read"

    def _columns_of_sample(self) -> tuple[WindowColumn, ...]:
        sample: list[dict[str, Any]] = []
        size = 0
        for _, line in self._lines(0, _SAMPLE_ROWS):
            value = _parsed(line)
            size += len(line)
            if isinstance(value, dict):
                sample.append(value)
            if size > _SAMPLE_BYTES:
                break
        kinds = column_kinds(sample)
        return tuple(WindowColumn(name, " or ".join(held)) for name, held in kinds.items()) or (
            WindowColumn("row", "nothing readable"),
        )

    def _index_all(self) -> None:
        try:
            while not self._closed.is_set() and self._index_more(_CHUNK_BYTES):
                pass
        except OSError as error:
            self._fault = f"{self.path}: reading ended after {self.rows_so_far:,} rows: {error.strerror}."
        finally:
            self._done.set()
            self._indexing.close()

    def _index_more(self, size: int) -> bool:
        """Index one more chunk; whether there may be another."""
        part = self._indexing.next_part(size)
        if part is None:
            self._indexing.close()
            self._done.set()
            return False
        if len(part.starts):
            # The part first: whoever sees the new end finds the part that it counts.
            self._parts.append(part)
            self._ends.append(self.rows_so_far + len(part.starts))
        return True


class _Indexing:
    """Goes through the file once and tells where rows begin."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by the index's own thread
        except OSError as error:
            raise UnreadableData(f"{path} cannot be read: {error.strerror}.") from error
        self._read = 0
        """Bytes read so far."""
        self._begin = 0
        """Where the line that is being read begins."""
        self._line = 1
        self._room: Any = None
        """numpy: what a chunk is read into, and which of its bytes end a line."""

    def next_part(self, size: int) -> _Part | None:
        """The rows that end in the next `size` bytes; None after the last."""
        import numpy as np

        if self._room is None or len(self._room[0]) < size:
            self._room = np.empty(size, np.uint8), np.empty(size, bool)
        count = self._file.readinto(memoryview(self._room[0])[:size])
        chunk, is_end = self._room[0][:count], self._room[1][:count]
        if not count:
            last = self._begin
            self._begin = self._read
            if self._read - last < 2:
                return None
            return _Part(np.array([last], dtype=np.int64), self._line, None)
        if self._read == 0 and chunk[:3].tobytes() == b"\xef\xbb\xbf":
            self._begin = 3
        ends: Any = np.flatnonzero(np.equal(chunk, 10, out=is_end)) + self._read
        self._read += count
        starts: Any = np.empty(len(ends), dtype=np.int64)
        if len(ends):
            starts[0] = self._begin
            starts[1:] = ends[:-1] + 1
            self._begin = int(ends[-1]) + 1
        first_line, self._line = self._line, self._line + len(ends)
        kept = (ends - starts) >= 2
        if kept.all():
            return _Part(starts, first_line, None)
        return _Part(starts[kept], first_line, np.flatnonzero(kept))

    def close(self) -> None:
        self._file.close()


def _parsed(line: bytes) -> dict[str, Any] | str:
    """The object of a line, or in words why there is none."""
    if len(line) > LONGEST_LINE:
        return "too long"
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return "invalid UTF-8"
        return "invalid JSON" if line.endswith(b"\n") else "torn last line"
    return value if isinstance(value, dict) else "not an object"


def _beginning(line: bytes) -> str:
    return excerpt(line[:_EXCERPT_BYTES].strip())


def _holds(line: bytes, wanted: str) -> bool:
    value = _parsed(line)
    if isinstance(value, dict):
        return any(holds(item, wanted) for item in value.values())
    return wanted in line.decode("utf-8", "replace").lower()


def _cut(text: str | None) -> str | None:
    return text[:CELL_CHARACTERS] if text else text
