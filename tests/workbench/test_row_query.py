"""The line of a filter: what it means, and the same rows whichever way a file is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from workbench.dataset_reading import FileKind
from workbench.dataset_window import RowWindow, WindowColumn, open_window
from workbench.row_query import Condition, RowQuery, parse_row_query, rows_of_query, sorted_by

COLUMNS = tuple(WindowColumn(name, kind) for name, kind in (
    ("tokens", "BIGINT"), ("source", "VARCHAR"), ("a b", "VARCHAR"), ('"; drop table', "VARCHAR"),
))  # fmt: skip
LINES = (
    "tokens > 100", "tokens >= 100 and tokens<200 and source = forum", "source != forum", "source is null",
    "source is not null sort -tokens", "sort tokens", "sort -source", '"a b" has WHEEL', "WHEEL",
    "tokens = 7 and wheel", 'source = "forum and more"', "tokens < 1e2 sort source", "tokens > x", "nothing = here",
    "sort -tokens",
)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "query"),
    [
        ("wheel", RowQuery(text="wheel")),
        ("black and white", RowQuery(text="black and white")),
        ("tokens > 100", RowQuery((Condition(0, ">", "100"),))),
        ("Tokens > 100", RowQuery(text="Tokens > 100")),
        ('source = "x and y" AND tokens<5', RowQuery((Condition(1, "=", "x and y"), Condition(0, "<", "5")))),
        ('"a b" has c sort -tokens', RowQuery((Condition(2, "has", "c"),), "", 0, True)),
        ("source is not null and wheel", RowQuery((Condition(1, "not null"),), "wheel")),
        ("sort nothing", RowQuery(text="sort nothing")),
        ("", RowQuery()),
    ],
)
def test_a_line_has_one_meaning(line: str, query: RowQuery) -> None:
    assert parse_row_query(line, COLUMNS) == query


def test_sorting_goes_round() -> None:
    line = "tokens > 1"
    seen = [line := sorted_by(line, "a b") for _ in range(3)]
    assert seen == ['tokens > 1 sort "a b"', 'tokens > 1 sort -"a b"', "tokens > 1"]
    assert sorted_by("sort tokens", "source") == "sort source"


def _rows() -> list[dict[str, Any]]:
    return [
        {"tokens": (n * 37) % 301 if n % 11 else None, "source": ("forum", "manual", None, "forum and more")[n % 4],
         "a b": f"the wheel {n}" if n % 3 else "", "nested": {"n": n}}
        for n in range(400)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> list[RowWindow]:
    folder = tmp_path_factory.mktemp("windows")
    lines = folder / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in _rows()))
    parquet = folder / "rows.parquet"
    read = f"read_json('{lines}', columns = {{tokens: 'BIGINT', source: 'VARCHAR', 'a b': 'VARCHAR', nested: 'JSON'}})"
    duckdb.connect().execute(f"COPY (FROM {read}) TO '{parquet}' (FORMAT parquet, ROW_GROUP_SIZE 100)")
    return [open_window(lines, FileKind("jsonl")), open_window(parquet, FileKind("parquet"))]


@pytest.mark.parametrize("line", LINES)
def test_both_ways_of_reading_find_the_same_rows(windows: list[RowWindow], line: str) -> None:
    found = [[number for hits in rows_of_query(window, line) for number in hits.numbers] for window in windows]
    assert found[0] == found[1]
    rows = _rows()
    if line == "source is not null sort -tokens":
        kept = [n for n, row in enumerate(rows) if row["source"] is not None]
        expected = sorted(kept, key=lambda n: (rows[n]["tokens"] is None, -(rows[n]["tokens"] or 0)))
        assert found[0] == expected
    if line == "tokens >= 100 and tokens<200 and source = forum":
        assert found[0] == [n for n, row in enumerate(rows) if 100 <= (row["tokens"] or 0) < 200
                            and row["source"] == "forum"]  # fmt: skip
    assert windows[0].rows_at(found[0][:5]) == windows[1].rows_at(found[1][:5])


def test_a_hostile_column_name_is_a_name(tmp_path: Path) -> None:
    file = tmp_path / "odd.parquet"
    duckdb.connect().execute(
        f"""COPY (SELECT range AS "; drop table", 'x' AS "__index__" FROM range(9)) TO '{file}' (FORMAT parquet)"""
    )
    window = open_window(file, FileKind("parquet"))
    found = [
        number for hits in rows_of_query(window, '"; drop table" >= 7 sort -"; drop table"') for number in hits.numbers
    ]
    assert found == [8, 7]
    window.close()
