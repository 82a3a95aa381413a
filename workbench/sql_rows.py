"""The rows of one relation by DuckDB: pages, rows by their numbers, one row whole, and scans that find numbers.

Owns the SQL of a window, whatever the rows lie in: a Parquet file, or the native cache of a file. A page is the work of
one thread on the row groups it lies in: with more threads DuckDB decodes several row groups for the first rows, which
is 2 to 5 times slower. Rows are found by their number, never by ORDER BY and OFFSET. Invariants: cells are cut in SQL,
values are bound, identifiers are quoted. Raises DuckDB's own errors; refuses to know files and people.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.run.user_cache import user_cache_folder
from workbench.dataset_window import CELL_CHARACTERS, STATED, TEXT_CHARACTERS, Cells, Hits, WindowColumn
from workbench.duckdb_connection import quote_identifier
from workbench.row_query import RowQuery

CACHE = "cache"
"""Under this name the file of a native cache is attached."""
FIRST_HITS = 64
"""More than a page: so many hits are found first, with their cells, by a scan that ends with the last of them."""
FIRST_SCAN_ROWS = 32_768
"""Where there are fewer hits in so many rows, a scan goes on in parts that are each four times as large."""
SCAN_ROWS = 491_520
"""Four row groups as DuckDB writes them."""
_INTEGERS = {f"{sign}{size}" for sign in ("", "U") for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")}
_NUMBER = r"[+-]?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,3})?"


@dataclass(frozen=True)
class Relation:
    """Where rows lie, in SQL."""

    sql: str
    """What stands behind FROM."""
    number: str
    """The name under which it numbers its rows from 0; empty where a column of that name hides it."""
    bound: dict[str, Any] = field(default_factory=dict)
    """Values that `sql` names."""
    attached: Path | None = None
    """The native cache that has to be attached."""
    held: str = ""
    """The condition that some cell holds $text, where it is not that some column does."""
    memory: str = "1GB"
    """Of the connection that reads pages; a scan may always take 1 GB."""

    def connect(self, *, threads: int, memory: str = "") -> Any:
        """A DuckDB of its own in which the relation can be named."""
        import duckdb

        connection = duckdb.connect(
            ":memory:",
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "preserve_insertion_order": "true",
                "python_enable_replacements": "false",
                "threads": str(threads),
                "memory_limit": memory or self.memory,
                "temp_directory": str(user_cache_folder() / "spill"),
            },
        )
        # It remembers the file's metadata, and a progress bar never reaches the terminal.
        connection.execute("SET enable_progress_bar = false; SET parquet_metadata_cache = true")
        if self.attached is not None:
            quoted = str(self.attached).replace("'", "''")
            connection.execute(f"ATTACH '{quoted}' AS {CACHE} (READ_ONLY)")
        return connection


class SqlRows:
    """The rows of a relation. Pages may be read in one thread while another reads a whole row."""

    def __init__(self, relation: Relation, columns: Sequence[WindowColumn], count: int, connection: Any = None) -> None:
        self.relation, self.columns, self.count = relation, tuple(columns), count
        self._lock, self._row_lock = threading.Lock(), threading.Lock()
        self._connection = connection or relation.connect(threads=1)
        self._row_connection = self._connection.cursor()
        """Rows that are read whole do not wait for pages, nor pages for them."""
        self._first_lock = threading.Lock()
        self._first_connection = self._connection.cursor()
        """The first hits of a scan; this DuckDB has the file's metadata already."""
        self._found: dict[int, Cells] = {}
        """The cells of the first hits of the latest scan: reading their page would decode the same columns again."""
        self._scan_lock = threading.Lock()
        self._scanner: Any = None
        """A DuckDB of two threads for scans, made by the first of them: making one takes 30 ms."""
        self._cells = ", ".join(f"left({text_of(column)}, {CELL_CHARACTERS})" for column in self.columns)

    def rows(self, start: int, count: int) -> list[Cells]:
        """The cells of rows from `start` on."""
        return self._fetch(f"SELECT {self._cells} FROM {self.relation.sql} {self._span(start, count)}")

    def rows_at(self, numbers: Sequence[int]) -> list[Cells]:
        """The cells of these rows, in this order; needs a relation that numbers its rows."""
        by_number = self._found
        missing = [number for number in numbers if number not in by_number]
        if missing:
            number = self.relation.number
            listed = ", ".join(str(int(one)) for one in missing)
            found = self._fetch(
                f"SELECT {number}, {self._cells} FROM {self.relation.sql} "
                f"WHERE {number} BETWEEN {min(missing)} AND {max(missing)} AND {number} IN ({listed})"
            )
            by_number = by_number | {number: tuple(cells) for number, *cells in found}
        return [by_number[number] for number in numbers if number in by_number]

    def row(self, number: int) -> tuple[Any, ...] | None:
        """The values of one row, texts up to TEXT_CHARACTERS; None where there is no such row."""
        whole = ", ".join(_whole(column) for column in self.columns)
        query = f"SELECT {whole} FROM {self.relation.sql} {self._span(number, 1)}"
        with self._row_lock:
            found: tuple[Any, ...] | None = self._row_connection.execute(query, self.relation.bound).fetchone()
        return found

    def scan(
        self, query: RowQuery, should_stop: Callable[[], bool], check: Callable[[int, int], None], begin: int = 0
    ) -> Generator[Hits, None, None]:
        """The numbers of the rows of a query from row `begin` on, as they are found; sorted ones all at once.

        `check` is called with the first row of each part and how many it has, before they are read, and may raise.
        """
        where, values = self.condition(query)
        start, count = begin, FIRST_SCAN_ROWS if query.sort is None else self.count
        if query.sort is None and self.relation.number and not begin and self.count and not should_stop():
            check(0, min(count, self.count))
            hits = self._first_hits(where, values)
            start, count = hits.scanned, 4 * count
            yield hits
        if start >= self.count or should_stop():
            return
        connection = self._scan_connection()
        try:
            while start < self.count and not should_stop():
                check(start, min(count, self.count - start))
                numbers = self._part(connection, where, values, query, start, count)
                start, count = min(start + count, self.count), min(4 * count, SCAN_ROWS)
                yield Hits(numbers, start)
        finally:
            connection.close()

    def condition(self, query: RowQuery) -> tuple[str, dict[str, Any]]:
        """(condition, values to bind) of a query."""
        parts, values = ["true"], {}
        if query.text:
            # An integer is made of digits, so it need not be written out where something else is looked for.
            digits = set(query.text) <= set("-0123456789")
            looked_at = [one for one in self.columns if digits or one.type not in _INTEGERS]
            held = " OR ".join(f"contains(lower({text_of(one)}), lower($text))" for one in looked_at)
            parts.append(f"({self.relation.held or held or 'false'})")
            values["text"] = query.text
        for place, one in enumerate(query.conditions):
            column, bound = self.columns[one.column], f"v{place}"
            if one.operator in ("null", "not null"):
                parts.append(f"{quote_identifier(column.name)} IS {one.operator.upper()}")
                continue
            if column.is_number and one.is_number:  # its digits alone, so that nothing is rounded by a cast
                parts.append(f"{_key_of(column)} {one.operator} {one.value}")
                continue
            values[bound] = one.value
            if one.operator == "has":
                parts.append(f"contains(lower({text_of(column)}), lower(${bound}))")
            else:
                parts.append(f"{text_of(column)} {one.operator} ${bound}")
        return " AND ".join(parts), values

    def close(self) -> None:
        """End what is read."""
        for connection, lock in (
            (self._first_connection, self._first_lock),
            (self._row_connection, self._row_lock),
            (self._connection, self._lock),
        ):
            with suppress(duckdb_error()):  # closed before
                connection.interrupt()
            with lock:
                connection.close()
        with self._scan_lock:  # scans that go on end by themselves
            if self._scanner is not None:
                self._scanner.close()

    def _scan_connection(self) -> Any:
        with self._scan_lock:
            if self._scanner is None:
                self._scanner = self.relation.connect(threads=2, memory="1GB")
                # What was decoded would stay in memory, and a scan reads everything.
                self._scanner.execute("SET enable_external_file_cache = false")
            return self._scanner.cursor()

    def _first_hits(self, where: str, values: dict[str, Any]) -> Hits:
        """The first hits, whose cells are kept; how far was looked for them."""
        number, most = self.relation.number, min(FIRST_SCAN_ROWS, self.count)
        # One thread and no order of its own: rows come as they stand, and the limit ends the scan.
        statement = (
            f"SELECT {number}, {self._cells} FROM {self.relation.sql} "
            f"WHERE {number} BETWEEN 0 AND {most - 1} AND {where} LIMIT {FIRST_HITS}"
        )
        with self._first_lock:
            found = self._first_connection.execute(statement, {**self.relation.bound, **values}).fetchall()
        self._found = {number: tuple(cells) for number, *cells in found}
        numbers = array("q", self._found)
        return Hits(numbers, numbers[-1] + 1 if len(numbers) == FIRST_HITS else most)

    def _part(
        self, connection: Any, where: str, values: dict[str, Any], query: RowQuery, start: int, count: int
    ) -> array[int]:
        number, values = self.relation.number, {**self.relation.bound, **values}
        numbers = array("q")  # eight bytes a row: ten million rows may be sorted
        if not number:
            selected = f"SELECT {where} FROM {self.relation.sql} LIMIT {count} OFFSET {start}"
            flags = connection.execute(selected, values).fetchall()
            numbers.extend(start + place for place, (hit,) in enumerate(flags) if hit)
            return numbers
        statement = (
            f"SELECT {number} AS number FROM {self.relation.sql} "
            f"WHERE {number} BETWEEN {start} AND {start + count - 1} AND {where} ORDER BY {self._order(query)}"
        )
        found = connection.execute(statement, values).fetchnumpy()["number"]
        numbers.frombytes(memoryview(found.astype("int64", copy=False)).cast("B"))
        return numbers

    def _order(self, query: RowQuery) -> str:
        if query.sort is None:
            return self.relation.number
        key = _key_of(self.columns[query.sort])
        return f"{key} {'DESC' if query.descending else 'ASC'} NULLS LAST, {self.relation.number}"

    def _span(self, start: int, count: int) -> str:
        if self.relation.number and start:  # for the first rows LIMIT is as good as their numbers, and 20 ms faster
            return f"WHERE {self.relation.number} BETWEEN {start} AND {start + count - 1}"
        return f"LIMIT {count} OFFSET {start}"

    def _fetch(self, query: str) -> list[Any]:
        with self._lock:
            found: list[Any] = self._connection.execute(query, self.relation.bound).fetchall()
        return found


def text_of(column: WindowColumn) -> str:
    """The SQL of a column as text: nested values as JSON, a JSON string without its quotes."""
    name = quote_identifier(column.name)
    if column.type in ("VARCHAR", "a number"):
        return name
    if column.type == "JSON":
        return f"CASE json_type({name}) WHEN 'VARCHAR' THEN {name}->>'$' WHEN 'NULL' THEN NULL ELSE {name}::VARCHAR END"
    if column.type.endswith("]") or column.type.startswith(("STRUCT", "MAP", "UNION")):
        return f"to_json({name})::VARCHAR"
    return f"CAST({name} AS VARCHAR)"


def _key_of(column: WindowColumn) -> str:
    """The SQL of what a column is sorted by and compared as."""
    name = quote_identifier(column.name)
    if column.type == "a number":  # of a file of JSON lines, kept as it is written
        return f"CASE WHEN regexp_full_match({name}, '{_NUMBER}') THEN {name}::DOUBLE END"
    nested = column.type == "JSON" or column.type.endswith("]") or column.type.startswith(("STRUCT", "MAP"))
    return text_of(column) if nested else name


def stated(name: str, most: int = TEXT_CHARACTERS) -> str:
    """The SQL of a text (a quoted name) cut to `most` characters, with its length behind it where it was longer."""
    said = f"left({name}, {most}) || '… (' || format('{{:,}}', length({name})) || ' characters)'"
    return f"CASE WHEN length({name}) > {most + STATED} THEN {said} ELSE {name} END"


def _whole(column: WindowColumn) -> str:
    name = quote_identifier(column.name)
    return stated(name) if column.type == "VARCHAR" else name


def duckdb_error() -> type[Exception]:
    """DuckDB's error, which is imported when it is needed."""
    import duckdb

    found: type[Exception] = duckdb.Error
    return found
