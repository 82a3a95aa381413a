"""A window on a Parquet file: DuckDB reads the row groups that are looked at, and nothing else.

Owns the SQL of pages and scans. A page is one thread's work on the row groups it lies in: with more threads DuckDB
decodes several row groups for the first rows, which is 2 to 5 times slower. Rows are found by their number in the file,
never by ORDER BY and OFFSET. Invariants: cells are cut in SQL, values are bound, identifiers are quoted.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from workbench.dataset_window import (
    CELL_CHARACTERS,
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
from workbench.duckdb_connection import literal_path, quote_identifier
from workbench.errors import UnreadableData
from workbench.row_query import RowQuery

ROW_NUMBER = "file_row_number"
"""DuckDB's name for the number of a row in its file; a column of that name hides it."""
_FIRST_SCAN_ROWS = 8192
"""The next parts of a scan are each four times as large: the first hits of a common text are there in half the time."""
_SCAN_ROWS = 491_520
"""Four row groups as DuckDB writes them."""


class ParquetWindow(RowWindow):
    """The rows of a Parquet file."""

    def __init__(self, path: Path, *, decode_json: bool = False) -> None:
        """With `decode_json`, columns of DuckDB's type JSON are values, as our own converted files hold them."""
        self.path = path
        self._identity: FileIdentity = identity_of(path)
        self._decode_json = decode_json
        self._lock = threading.Lock()
        self._connection = _connect(threads=1)
        self._row_lock = threading.Lock()
        self._row_connection = self._connection.cursor()
        """Rows that are read whole do not wait for pages, nor pages for them."""
        self._file = literal_path(path)
        try:
            described = self._connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [self._file]).fetchall()
            counted = self._connection.execute("SELECT num_rows FROM parquet_file_metadata(?)", [self._file]).fetchall()
        except _duckdb_error() as error:
            self._connection.close()
            raise _unreadable(path, "", error) from error
        self.columns = tuple(WindowColumn(name, kind) for name, kind, *_ in described)
        self._count = int(counted[0][0])
        self._numbered = all(column.name.lower() != ROW_NUMBER for column in self.columns)
        self._cells = ", ".join(f"left({_text_of(column)}, {CELL_CHARACTERS})" for column in self.columns)

    @property
    def rows_so_far(self) -> int:
        return self._count

    def rows(self, start: int, count: int) -> list[Cells]:
        count = min(count, self._count - start)
        if start < 0 or count <= 0:
            return []
        where = f"rows {start + 1:,} to {start + count:,}"
        return self._fetch(f"SELECT {self._cells} FROM read_parquet(?) {self._span(start, count)}", where)

    def rows_at(self, numbers: Sequence[int]) -> list[Cells]:
        if not self._numbered:
            return super().rows_at(numbers)
        listed = ", ".join(str(int(number)) for number in numbers)
        if not listed:
            return []
        found = self._fetch(
            f"SELECT {ROW_NUMBER}, {self._cells} FROM read_parquet(?) WHERE {ROW_NUMBER} IN ({listed})",
            f"{len(numbers)} rows from {numbers[0] + 1:,}",
        )
        by_number = {number: cells for number, *cells in found}
        return [tuple(by_number[number]) for number in numbers if number in by_number]

    def row(self, number: int) -> dict[str, Any]:
        whole = ", ".join(_whole(column) for column in self.columns)
        query = f"SELECT {whole} FROM read_parquet(?) {self._span(number, 1)}"
        found = self._fetch(query, f"row {number + 1:,}", self._row_connection, self._row_lock)
        if not found:
            raise UnreadableData(f"{self.path} has no row {number + 1:,}; it has {self._count:,}.")
        pairs = zip(self.columns, found[0], strict=True)
        return {column.name: bounded(self._decoded(column, value)) for column, value in pairs}

    def matching(self, text: str, should_stop: Callable[[], bool] = lambda: False) -> Generator[Hits, None, None]:
        connection = _connect(threads=2)
        held = " OR ".join(f"contains(lower({_text_of(column)}), $2)" for column in self.columns)
        start, count = 0, _FIRST_SCAN_ROWS
        try:
            while start < self._count and not should_stop():
                self._identity.require()
                try:
                    numbers = self._hits(connection, held, text.lower(), start, count)
                except _duckdb_error() as error:
                    raise _unreadable(self.path, f"rows {start + 1:,} to {start + count:,}", error) from error
                start = min(start + count, self._count)
                count = min(4 * count, _SCAN_ROWS)
                yield Hits(numbers, start)
        finally:
            connection.close()

    def rows_of(self, query: RowQuery, should_stop: Callable[[], bool] = lambda: False) -> Generator[Hits, None, None]:
        if not self._numbered:
            yield from super().rows_of(query, should_stop)
            return
        connection = _connect(threads=2)
        where, values = self._where(query)
        start, count = 0, _FIRST_SCAN_ROWS if query.sort is None else self._count
        order = ROW_NUMBER if query.sort is None else self._order(query)
        try:
            while start < self._count and not should_stop():
                self._identity.require()
                last = start + count - 1
                statement = (
                    f"SELECT {ROW_NUMBER} FROM read_parquet(?) WHERE {ROW_NUMBER} BETWEEN {start} AND {last} "
                    f"AND {where} ORDER BY {order}"
                )
                try:
                    found = connection.execute(statement, [self._file, *values]).fetchnumpy()[ROW_NUMBER]
                except _duckdb_error() as error:
                    raise _unreadable(self.path, f"rows {start + 1:,} to {start + count:,}", error) from error
                start, count = min(start + count, self._count), min(4 * count, _SCAN_ROWS)
                numbers = array("q")  # eight bytes a row: ten million rows may be sorted
                numbers.frombytes(found.astype("int64").tobytes())
                yield Hits(numbers, start)
        finally:
            connection.close()

    def _where(self, query: RowQuery) -> tuple[str, list[str]]:
        """(condition, values to bind) of a query."""
        parts, values = ["true"], []
        if query.text:
            parts.append("(" + " OR ".join(f"contains(lower({_text_of(one)}), lower(?))" for one in self.columns) + ")")
            values += [query.text] * len(self.columns)
        for one in query.conditions:
            column = self.columns[one.column]
            if one.operator in ("null", "not null"):
                parts.append(f"{quote_identifier(column.name)} IS {one.operator.upper()}")
            elif one.operator == "has":
                parts.append(f"contains(lower({_text_of(column)}), lower(?))")
                values.append(one.value)
            elif column.is_number and one.is_number:  # its digits alone, so that nothing is rounded by a cast
                parts.append(f"{quote_identifier(column.name)} {one.operator} {one.value}")
            else:
                parts.append(f"{_text_of(column)} {one.operator} ?")
                values.append(one.value)
        return " AND ".join(parts), values

    def _order(self, query: RowQuery) -> str:
        assert query.sort is not None
        column = self.columns[query.sort]
        nested = column.type == "JSON" or column.type.endswith("]") or column.type.startswith(("STRUCT", "MAP"))
        key = _text_of(column) if nested else quote_identifier(column.name)
        return f"{key} {'DESC' if query.descending else 'ASC'} NULLS LAST, {ROW_NUMBER}"

    def close(self) -> None:
        for connection, lock in ((self._row_connection, self._row_lock), (self._connection, self._lock)):
            with suppress(_duckdb_error()):  # closed before
                connection.interrupt()
            with lock:
                connection.close()

    def _hits(self, connection: Any, held: str, wanted: str, start: int, count: int) -> list[int]:
        if self._numbered:
            last = start + count - 1
            found = connection.execute(
                f"SELECT {ROW_NUMBER} FROM read_parquet($1) WHERE {ROW_NUMBER} BETWEEN {start} AND {last} AND ({held}) "
                f"ORDER BY {ROW_NUMBER}",
                [self._file, wanted],
            )
            return [number for (number,) in found.fetchall()]
        found = connection.execute(
            f"SELECT {held} FROM read_parquet($1) LIMIT {count} OFFSET {start}", [self._file, wanted]
        )
        return [start + place for place, (hit,) in enumerate(found.fetchall()) if hit]

    def _span(self, start: int, count: int) -> str:
        if self._numbered and start:  # for the first rows LIMIT is as good as their numbers, and 20 ms faster
            return f"WHERE {ROW_NUMBER} BETWEEN {start} AND {start + count - 1}"
        return f"LIMIT {count} OFFSET {start}"

    def _fetch(self, query: str, where: str, connection: Any = None, lock: threading.Lock | None = None) -> list[Any]:
        self._identity.require()
        with lock or self._lock:
            try:
                found: list[Any] = (connection or self._connection).execute(query, [self._file]).fetchall()
            except _duckdb_error() as error:
                raise _unreadable(self.path, where, error) from error
        return found

    def _decoded(self, column: WindowColumn, value: Any) -> Any:
        if isinstance(value, bytes):
            return cell_of(value[:TEXT_CHARACTERS])
        if self._decode_json and column.type == "JSON" and value is not None:
            return orjson.loads(value)
        return value


def _connect(threads: int) -> Any:
    """DuckDB for one window: it remembers the file's metadata, and a progress bar never reaches the terminal."""
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "preserve_insertion_order": "true",
            "python_enable_replacements": "false",
            "threads": str(threads),
            "memory_limit": "1GB",
        },
    )
    connection.execute("SET enable_progress_bar = false; SET parquet_metadata_cache = true")
    return connection


def _duckdb_error() -> type[Exception]:
    import duckdb

    found: type[Exception] = duckdb.Error
    return found


def _text_of(column: WindowColumn) -> str:
    """The SQL of a column as text: nested values as JSON, a JSON string without its quotes."""
    name = quote_identifier(column.name)
    if column.type == "VARCHAR":
        return name
    if column.type == "JSON":
        return f"CASE json_type({name}) WHEN 'VARCHAR' THEN {name}->>'$' WHEN 'NULL' THEN NULL ELSE {name}::VARCHAR END"
    if column.type.endswith("]") or column.type.startswith(("STRUCT", "MAP", "UNION")):
        return f"to_json({name})::VARCHAR"
    return f"CAST({name} AS VARCHAR)"


def _whole(column: WindowColumn) -> str:
    name = quote_identifier(column.name)
    return f"left({name}, {TEXT_CHARACTERS})" if column.type == "VARCHAR" else name


def _unreadable(path: Path, where: str, error: Exception) -> UnreadableData:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    place = f", {where}," if where else ""
    return UnreadableData(f"{path}{place} cannot be read as Parquet: {said}. Fetch or write the file again.")
