"""The program that makes one native cache and ends: started by `workbench.native_cache`, never by a person.

It is the last on the processor, has MEMORY_BYTES, dies with the program that started it, and may write nothing but the
folder of the caches. What the cache is of is written last, so a file without that is torn.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from workbench.sql_isolation import die_with_parent, forbid_files, has_landlock, program_places

MEMORY_BYTES = 512_000_000
"""Of the whole process."""
_DUCKDB_MEMORY = "256MB"
"""DuckDB's own limit; the rest is Python's, the decoders', and what DuckDB does not count."""
_BATCH_ROWS, _BATCH_BYTES = 20_000, 16_000_000
"""So many JSON lines go into the table at once."""


def main() -> int:
    """Read the request from stdin, make the cache."""
    os.nice(19)
    request = json.loads(sys.stdin.buffer.read())
    die_with_parent()
    if os.getppid() != request["parent"]:
        return 1  # it has died before that
    os.write(1, b"\n")  # from here on it may be stopped: it would not outlive its parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    source, target = Path(request["source"]), Path(request["target"])
    if has_landlock():
        forbid_files([*program_places(), source], target.parent)
    os.umask(0o077)
    make(request["kind"], source, target, request["schema"], request["rows"])
    return 0


def make(kind: str, source: Path, target: Path, schema: int, rows: int) -> None:
    """Make the cache of a file, whose row numbers become the table's; raises where it has other rows."""
    connection = _new_database(target)
    if kind == "parquet":
        from workbench.duckdb_connection import literal_path

        connection.execute("CREATE TABLE rows AS SELECT * FROM read_parquet($file)", {"file": literal_path(source)})
    else:
        _copy_lines(connection, source)
    found = connection.execute("SELECT count(*), coalesce(max(rowid), -1) FROM rows").fetchall()
    if found != [(rows, rows - 1)]:
        raise ValueError(f"{found[0][0]:,} rows were found, {rows:,} were there")
    about = {"schema": schema, "rows": rows}  # as the last thing: what is torn does not say what it is of
    connection.execute("CREATE TABLE about AS SELECT $schema::INTEGER AS schema, $rows::BIGINT AS rows", about)
    connection.close()


def _copy_lines(connection: Any, source: Path) -> None:
    """The rows of a file of JSON lines, as `native_cache.lines_layout` says."""
    import time

    import numpy as np

    from workbench.dataset_window_jsonl import JsonLinesWindow

    window = JsonLinesWindow(source)
    while not window.complete:
        time.sleep(0.01)
    names = [f"c{place}" for place in range(len(window.columns))]
    stored = ", ".join(f"{name} VARCHAR" for name in names)
    connection.execute(f"CREATE TABLE rows ({stored}, others VARCHAR[], unread BOOLEAN)")
    selected = ", ".join(f"{name}::VARCHAR" for name in names)
    statement = f"INSERT INTO rows SELECT {selected}, others::VARCHAR[], unread FROM batch"
    batch: list[tuple[Any, ...]] = []
    size = 0

    def flush() -> None:
        nonlocal size
        columns = zip((*names, "others", "unread"), zip(*batch, strict=True), strict=True)
        held = {name: np.fromiter(values, dtype=object, count=len(batch)) for name, values in columns}
        connection.register("batch", held)
        connection.execute(statement)
        connection.unregister("batch")
        batch.clear()
        size = 0

    for line_bytes, row in window.stored_rows():
        batch.append(row)
        size += line_bytes
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_ROWS:
            flush()
    if batch:
        flush()


def _new_database(target: Path) -> Any:
    import duckdb

    connection = duckdb.connect(
        str(target),
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "preserve_insertion_order": "true",
            "python_enable_replacements": "false",
            "threads": "1",
            "memory_limit": _DUCKDB_MEMORY,
            "temp_directory": f"{target}.spill",
        },
    )
    # A column of values is looked at whole before its type is told: lists may begin late.
    connection.execute(f"SET enable_progress_bar = false; SET pandas_analyze_sample = {_BATCH_ROWS}")
    return connection


if __name__ == "__main__":
    sys.exit(main())
