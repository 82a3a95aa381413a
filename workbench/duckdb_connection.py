"""How the program opens DuckDB: in memory, offline, with bounded memory; and how text becomes SQL and files.

Owns the settings of a connection, the quoting of identifiers, the reading of one Parquet file in order, and the writing
of one. Invariant: values are bound, identifiers are quoted, a path is never taken for a pattern.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

_BATCH_ROWS = 256
_ROW_GROUP_ROWS = 8192
"""A row group is held in memory until it is written; texts are long, so DuckDB's 122,880 rows would be too many."""
_LEAST_OBJECT_BYTES = 1 << 24
"""DuckDB's own default; it allocates a buffer of twice this per thread, so it is raised only as far as the rows ask."""


def connect() -> Any:
    """A new in-memory DuckDB that never goes online and returns rows in file order."""
    import duckdb

    return duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "preserve_insertion_order": "true",
            "threads": "2",
            "memory_limit": "2GB",
        },
    )


def quote_identifier(name: str) -> str:
    """`name` as an SQL identifier, whatever it contains."""
    return '"' + name.replace('"', '""') + '"'


def longest_text(columns: Iterable[tuple[str, str]]) -> str:
    """The SQL of how many bytes the longest text has, of columns that are given as (name, type); 0 without any."""
    length = {"VARCHAR": "strlen", "BLOB": "octet_length"}
    longest = [f"max({length[kind]}({quote_identifier(name)}))" for name, kind in columns if kind in length]
    return f"greatest(0, {', '.join(longest)})" if longest else "0"


def literal_path(path: Path) -> str:
    """`path` so that read_parquet and its kin take it for one file: their pattern characters are put in brackets."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))


def read_parquet(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of one Parquet file, in file order, a few at a time; duckdb.Error where the file is damaged."""
    selected = ", ".join(map(quote_identifier, columns)) if columns else "*"
    connection = connect()
    try:
        result = connection.execute(f"SELECT {selected} FROM read_parquet(?)", [literal_path(path)])
        names = [column[0] for column in result.description]
        while batch := result.fetchmany(_BATCH_ROWS):
            for values in batch:
                yield dict(zip(names, values, strict=True))
    finally:
        connection.close()


def write_parquet(path: Path, rows: Iterable[dict[str, Any]], columns: dict[str, str]) -> int:
    """Writes rows to a new Parquet file with the given column types (DuckDB's names); returns how many.

    Rows pass through a JSON-lines file beside the target, so memory stays bounded and every Unicode text is exact. A
    MAP or STRUCT column takes Python dicts, a LIST column lists.
    """
    passage = path.with_name(path.name + ".rows")
    written = 0
    longest = _LEAST_OBJECT_BYTES
    try:
        with open(os.open(passage, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for row in rows:
                line = orjson.dumps(row) + b"\n"
                file.write(line)
                written += 1
                longest = max(longest, len(line) + 1)
        selected = ", ".join(map(quote_identifier, columns))
        connection = connect()
        try:
            connection.execute(
                f"COPY (SELECT {selected} FROM read_json(?, format='newline_delimited', columns={_struct(columns)}, "
                f"maximum_object_size={longest})) "
                f"TO ? (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP_ROWS})",
                [literal_path(passage), str(path)],
            )
        finally:
            connection.close()
    finally:
        passage.unlink(missing_ok=True)
    os.chmod(path, 0o600)
    return written


def _struct(columns: dict[str, str]) -> str:
    quoted = [f"{_quote_text(name)}: {_quote_text(kind)}" for name, kind in columns.items()]
    return "{" + ", ".join(quoted) + "}"


def _quote_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
