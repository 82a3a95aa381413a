"""The program that reads a file of strangers and may crash over it: started by `workbench.file_trial`.

It decodes the first and the last rows, or all of them, and says nothing: that it ends by itself is the answer.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from workbench.duckdb_connection import literal_path
from workbench.sql_isolation import limit_process

_ENDS_ROWS = 256
_CPU_S = {"ends": 60, "whole": 1200}


def main(arguments: list[str]) -> int:
    """PATH, and "ends" or "whole"."""
    path, how = Path(arguments[0]), arguments[1]
    limit_process(_CPU_S[how], 0)
    read(path, whole=how == "whole")
    return 0


def read(path: Path, *, whole: bool) -> None:
    """Decode the file; what can be said in words is left to who opens it next."""
    import duckdb

    connection = duckdb.connect(config={"threads": "2", "memory_limit": "2GB", "autoload_known_extensions": "false"})
    with suppress(duckdb.Error):
        named = {"file": literal_path(path)}
        rows = connection.execute("SELECT num_rows FROM parquet_file_metadata($file)", named).fetchall()[0][0]
        columns = connection.execute("DESCRIBE SELECT * FROM read_parquet($file)", named).fetchall()
        if whole:
            # A hash of each row's columns needs all of their values and keeps none.
            connection.execute("SELECT bit_xor(hash(COLUMNS(*))) FROM read_parquet($file)", named).fetchall()
            return
        for start in {0, max(0, rows - _ENDS_ROWS)} if columns else ():
            page = f"SELECT * FROM read_parquet($file) LIMIT {_ENDS_ROWS} OFFSET {start}"
            connection.execute(page, named).fetchall()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
