"""A window on a Parquet file: DuckDB reads the row groups that are looked at, and nothing else; later its native cache.

Owns what of the file is open. The rows come from the file at once; `speed_up` makes or finds a native cache in the
background, and reading moves over to it. Invariants: rows and columns are the same from either; the file is asked
whether it is still the same one before every reading, also where the cache is read; a cache that cannot be read is
thrown away, and the file is read again. The SQL is `sql_rows`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import orjson

from workbench import native_cache
from workbench.dataset_window import (
    TEXT_CHARACTERS,
    Cells,
    FileIdentity,
    Hits,
    RowWindow,
    WindowColumn,
    bounded,
    cell_of,
    identity_of,
)
from workbench.duckdb_connection import literal_path
from workbench.errors import UnreadableData, WorkbenchError
from workbench.row_query import RowQuery
from workbench.sql_rows import Relation, SqlRows, duckdb_error

ROW_NUMBER = "file_row_number"
"""DuckDB's name for the number of a row in its file; a column of that name hides it."""
T = TypeVar("T")


class ParquetWindow(RowWindow):
    """The rows of a Parquet file."""

    def __init__(
        self, path: Path, *, decode_json: bool = False, original: FileIdentity | None = None, note: str = ""
    ) -> None:
        """With `decode_json`, columns of DuckDB's type JSON are values, as our own converted files hold them.

        `original` is the file of which `path` is a copy, which is asked whether it is still the same.
        """
        self.path = original.path if original else path
        self._original, self._note = original, note
        self._identity: FileIdentity = identity_of(path)
        self._decode_json = decode_json
        self._moving = threading.Lock()
        self._closed = False
        bound = {"file": literal_path(path)}
        self._file = Relation("read_parquet($file)", ROW_NUMBER, bound)
        connection = self._file.connect(threads=1)
        try:
            described = connection.execute("DESCRIBE SELECT * FROM read_parquet($file)", bound).fetchall()
            counted = connection.execute("SELECT num_rows FROM parquet_file_metadata($file)", bound).fetchall()
        except duckdb_error() as error:
            connection.close()
            raise _unreadable(path, "", error) from error
        self.columns = tuple(WindowColumn(name, kind) for name, kind, *_ in described)
        self._count = int(counted[0][0])
        if any(column.name.lower() == ROW_NUMBER for column in self.columns):
            self._file = Relation("read_parquet($file)", "", bound)
        self._rows = SqlRows(self._file, self.columns, self._count, connection)

    @property
    def rows_so_far(self) -> int:
        return self._count

    @property
    def note(self) -> str:
        return self._note

    @property
    def from_cache(self) -> bool:
        """Whether rows come from the native cache by now."""
        return self._rows.relation.attached is not None

    def rows(self, start: int, count: int) -> list[Cells]:
        count = min(count, self._count - start)
        if start < 0 or count <= 0:
            return []
        return self._read(lambda rows: rows.rows(start, count), f"rows {start + 1:,} to {start + count:,}")

    def rows_at(self, numbers: Sequence[int]) -> list[Cells]:
        if not numbers:
            return []
        if not self._file.number:
            return super().rows_at(numbers)
        where = f"{len(numbers)} rows from {numbers[0] + 1:,}"
        return self._read(lambda rows: rows.rows_at(numbers), where)

    def row(self, number: int) -> dict[str, Any]:
        found = self._read(lambda rows: rows.row(number), f"row {number + 1:,}") if number >= 0 else None
        if found is None:
            raise UnreadableData(f"{self.path} has no row {number + 1:,}; it has {self._count:,}.")
        pairs = zip(self.columns, found, strict=True)
        return {column.name: bounded(self._decoded(column, value)) for column, value in pairs}

    def matching(self, text: str, should_stop: Callable[[], bool] = lambda: False) -> Generator[Hits, None, None]:
        return self._scan(RowQuery(text=text), should_stop)

    def rows_of(self, query: RowQuery, should_stop: Callable[[], bool] = lambda: False) -> Generator[Hits, None, None]:
        return self._scan(query, should_stop) if self._file.number else super().rows_of(query, should_stop)

    def speed_up(self) -> bool:
        worth_it = bool(self._file.number) and native_cache.is_worth_it(self._identity, self.columns)
        if worth_it:
            threading.Thread(target=self._move_over, name="native cache", daemon=True).start()
        return worth_it

    def close(self) -> None:
        self._closed = True
        with self._moving:
            self._rows.close()

    def _scan(self, query: RowQuery, should_stop: Callable[[], bool]) -> Generator[Hits, None, None]:
        where, scanned = "", 0

        def check(start: int, count: int) -> None:
            nonlocal where
            where = f"rows {start + 1:,} to {start + count:,}"
            self._require()

        while True:
            rows = self._rows
            try:
                for hits in rows.scan(query, should_stop, check, scanned):
                    scanned = hits.scanned
                    yield hits
                return
            except duckdb_error() as error:
                if rows.relation.attached is None or self._closed:
                    raise _unreadable(self.path, where, error) from error
                self._leave_cache(rows)

    def _read(self, read: Callable[[SqlRows], T], where: str) -> T:
        self._require()
        while True:
            rows = self._rows
            try:
                return read(rows)
            except duckdb_error() as error:
                if rows is self._rows and (rows.relation.attached is None or self._closed):
                    raise _unreadable(self.path, where, error) from error
                self._leave_cache(rows)  # or it was closed under this reading, because reading has moved over

    def _require(self) -> None:
        """Before anything is read: the file is still the same, and what is made in the background waits."""
        self._identity.require()
        if self._original is not None:
            self._original.require()
        native_cache.hold()

    def _move_over(self) -> None:
        """In a thread: read the cache from here on, once there is one."""
        with suppress(WorkbenchError, OSError, duckdb_error()):
            layout = native_cache.parquet_layout(self.columns)
            made = native_cache.rows_from_cache(self._identity, layout, self._count, lambda: self._closed)
            if made is None:
                return
            with self._moving:
                if self._closed:
                    made.close()
                    return
                before, self._rows = self._rows, made
            before.close()

    def _leave_cache(self, failed: SqlRows) -> None:
        """Read the file again, because its cache cannot be read."""
        with self._moving:
            if self._rows is not failed:
                return
            self._rows = SqlRows(self._file, self.columns, self._count)
        failed.close()
        native_cache.throw_away(failed)

    def _decoded(self, column: WindowColumn, value: Any) -> Any:
        if isinstance(value, bytes):
            return cell_of(value[:TEXT_CHARACTERS])
        if self._decode_json and column.type == "JSON" and value is not None:
            return orjson.loads(value)
        return value


def _unreadable(path: Path, where: str, error: Exception) -> UnreadableData:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    place = f", {where}," if where else ""
    return UnreadableData(f"{path}{place} cannot be read as Parquet: {said}. Fetch or write the file again.")
