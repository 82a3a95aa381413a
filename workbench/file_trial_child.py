"""The program that reads a file of strangers and may crash over it: started by `workbench.file_trial`.

It decodes the first and the last rows, or all of them: that it ends by itself is the answer. Or it makes a copy in
which long texts are cut.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench.dataset_window import TEXT_CHARACTERS
from workbench.duckdb_connection import literal_path, longest_text, quote_identifier
from workbench.sql_isolation import limit_process
from workbench.sql_rows import stated

_ENDS_ROWS = 256
_CPU_S = {"ends": 60, "whole": 1200, "cut": 1200}
_FILE_BYTES = 20_000_000_000


def main(arguments: list[str]) -> int:
    """PATH, and "ends", "whole", or "cut" with the file to make."""
    path, how = Path(arguments[0]), arguments[1]
    limit_process(_CPU_S[how], _FILE_BYTES if how == "cut" else 0)
    if how == "cut":
        cut(path, Path(arguments[2]))
    else:
        print(read(path, whole=how == "whole"))
    return 0


def read(path: Path, *, whole: bool) -> int:
    """Decode the file; with `whole`, the bytes of its longest text, else 0.

    What can be said in words is left to who opens it next.
    """
    import duckdb

    connection, named = _connection(path)
    with suppress(duckdb.Error):
        rows = connection.execute("SELECT num_rows FROM parquet_file_metadata($file)", named).fetchall()[0][0]
        columns = connection.execute("DESCRIBE SELECT * FROM read_parquet($file)", named).fetchall()
        if whole:
            # A hash of each row's columns needs all of their values and keeps none.
            selected = f"bit_xor(hash(COLUMNS(*))), {longest_text((name, kind) for name, kind, *_ in columns)}"
            found = connection.execute(f"SELECT {selected} FROM read_parquet($file)", named).fetchall()
            return int(found[0][-1] or 0)
        for start in {0, max(0, rows - _ENDS_ROWS)} if columns else ():
            page = f"SELECT * FROM read_parquet($file) LIMIT {_ENDS_ROWS} OFFSET {start}"
            connection.execute(page, named).fetchall()
    return 0


def cut(path: Path, target: Path) -> None:
    """Copy the file with texts of at most TEXT_CHARACTERS; raises where that cannot be done."""
    connection, named = _connection(path)
    columns = connection.execute("DESCRIBE SELECT * FROM read_parquet($file)", named).fetchall()
    selected = []
    for name, kind, *_ in columns:
        quoted = quote_identifier(name)
        written = stated(quoted) if kind == "VARCHAR" else quoted
        selected.append(f"{quoted}[1:{TEXT_CHARACTERS}] AS {quoted}" if kind == "BLOB" else f"{written} AS {quoted}")
    connection.execute(
        f"COPY (SELECT {', '.join(selected)} FROM read_parquet($file)) TO $target "
        "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 8192)",
        {**named, "target": str(target)},
    )


def _connection(path: Path) -> tuple[Any, dict[str, str]]:
    """(DuckDB, what names the file in a query)."""
    import duckdb

    config = {"threads": "2", "memory_limit": "2GB", "autoload_known_extensions": "false"}
    return duckdb.connect(config=config), {"file": literal_path(path)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
