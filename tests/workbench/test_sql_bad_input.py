"""Odd names, odd values, thousands of columns, no rows and damaged files, through SQL, the grid and back."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from workbench.dataset_store import add_dataset, open_dataset
from workbench.dataset_window_parquet import ParquetWindow
from workbench.errors import WorkbenchError
from workbench.sql_query import run_query
from workbench.sql_saved import save_as_dataset
from workbench.workspace import Workspace

NAMES = (
    '"; drop table', "__index__", "ä b", "🚲", "select", "a.b", "it's", "\u202erow", "x\x1b[2J", "line\nend", "A",
    "side", "filename", "file_row_number", "%s", "{n}", "$1", "?",
)  # fmt: skip
VALUES = (
    "",
    " ",
    "NULL",
    "∅",
    "\u0000nul",
    "\u202ebidi",
    "'; --",
    '"',
    "a\nb\r\n",
    "1e5",
    "🚲🚲",
    "\x1b]0;t\x07",
    "[/nope]",
)


def test_any_name_and_any_value_comes_back_as_it_went_in(workspace: Workspace, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"p{n}", **dict.fromkeys(NAMES, value)} if n % 2 else {"prompt": value}
        for n, value in enumerate((*VALUES, "the last one"))
    ]
    file = tmp_path / "odd.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    add_dataset(workspace, file, "odd")
    wanted = [{name: row.get(name) for name in ("prompt", *NAMES)} for row in rows]
    with run_query(workspace, "FROM odd", form="json") as result:
        found = [json.loads(line) for line in result.path.read_text("utf-8").splitlines()]
    assert [{name: row.get(name) for name in ("prompt", *NAMES)} for row in found] == wanted
    with run_query(workspace, "FROM odd") as result:
        window = ParquetWindow(result.path)
        names = [column.name for column in window.columns]
        assert sorted(names) == sorted(("prompt", *NAMES))
        for row, cells in zip(wanted, window.rows(0, len(rows)), strict=True):
            assert {name: row[name] for name in names} == dict(zip(names, cells, strict=True))
        window.close()
        made = save_as_dataset(workspace, result, "again")
    assert made.info.rows == open_dataset(workspace, "odd").info.rows


def test_thousands_of_columns_and_no_rows(workspace: Workspace) -> None:
    many = ", ".join(f"{n} AS c{n}" for n in range(4000))
    with run_query(workspace, f"SELECT * FROM (SELECT {many}) WHERE false") as result:
        assert (len(result.columns), result.rows) == (4000, 0)
        window = ParquetWindow(result.path)
        assert (len(window.columns), window.rows_so_far, window.rows(0, 9)) == (4000, 0, [])
        window.close()
        with pytest.raises(WorkbenchError, match="no rows"):
            save_as_dataset(workspace, result, "empty")


def test_a_damaged_file_is_named_and_hurts_nothing_else(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "torn.parquet"
    duckdb.connect().execute(f"COPY (SELECT 'p' || range AS prompt FROM range(9)) TO '{file}' (FORMAT parquet)")
    add_dataset(workspace, file, "torn")
    whole = file.read_bytes()
    file.write_bytes(whole[:-20] + b"\xff" * 16 + b"PAR1")
    with pytest.raises(WorkbenchError, match=r"datasets\.torn cannot be read"):
        run_query(workspace, "FROM torn")
