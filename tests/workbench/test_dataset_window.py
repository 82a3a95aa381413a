"""Windows on data files: the right cell in the right place, whatever the file is and whatever becomes of it."""

from __future__ import annotations

import csv
import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench import dataset_window_jsonl, sql_rows
from workbench.dataset_reading import FileKind, recognise_file
from workbench.dataset_window import CELL_CHARACTERS, RowWindow, open_window
from workbench.dataset_window_converted import copies_folder
from workbench.dataset_window_jsonl import JsonLinesWindow
from workbench.duckdb_connection import literal_path
from workbench.errors import SourceChanged, UnreadableData, WorkbenchError

ROWS = 3000


def _parquet(path: Path, query: str, options: str = "") -> Path:
    duckdb.execute(f"COPY ({query}) TO '{str(path).replace(chr(39), chr(39) * 2)}' (FORMAT parquet{options})")
    return path


def _json_lines(path: Path, rows: list[object], ending: str = "\n") -> Path:
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows) + ending.encode())
    return path


def _open(path: Path) -> RowWindow:
    window = open_window(path, recognise_file(path))
    _wait(lambda: window.complete)
    return window


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def _numbered(path: Path, kind: str) -> Path:
    """ROWS rows of n and text, as a file of `kind`."""
    rows = [{"n": number, "text": f"row {number} é"} for number in range(ROWS)]
    if kind == "parquet":
        query = f"SELECT i AS n, 'row ' || i || ' é' AS text FROM range({ROWS}) t(i)"
        return _parquet(path.with_suffix(".parquet"), query, ", ROW_GROUP_SIZE 2048")
    if kind == "jsonl":
        return _json_lines(path.with_suffix(".jsonl"), list(rows))
    if kind == "jsonl.gz":
        path = path.with_suffix(".jsonl.gz")
        path.write_bytes(gzip.compress(b"\n".join(map(orjson.dumps, rows)), 1))
        return path
    if kind == "json":
        path = path.with_suffix(".json")
        path.write_bytes(orjson.dumps(rows))
        return path
    path = path.with_suffix(".csv")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["n", "text"], *([row["n"], row["text"]] for row in rows)])
    return path


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "jsonl.gz", "json", "csv"])
def test_every_row_is_where_it_stands_in_the_file(tmp_path: Path, kind: str) -> None:
    window = _open(_numbered(tmp_path / "data", kind))
    try:
        assert [column.name for column in window.columns] == ["n", "text"]
        assert window.rows_so_far == ROWS
        for start in (0, 1, 255, 1023, 2047, ROWS - 3):
            wanted = [(str(n), f"row {n} é") for n in range(start, min(start + 5, ROWS))]
            assert window.rows(start, 5) == wanted
        assert window.rows(ROWS, 5) == []
        assert window.rows_at([2999, 0, 1500]) == [(str(n), f"row {n} é") for n in (2999, 0, 1500)]
        assert window.row(2999)["text"] == "row 2999 é"
        with pytest.raises(WorkbenchError):
            window.row(ROWS)
    finally:
        window.close()


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "jsonl.gz", "json", "csv"])
def test_a_filter_finds_every_row_and_only_those(tmp_path: Path, kind: str) -> None:
    window = _open(_numbered(tmp_path / "data", kind))
    try:
        assert _found(window, "ROW 299") == [299, *range(2990, 3000)]
        assert _found(window, "17 É") == [n for n in range(ROWS) if str(n).endswith("17")]
        assert _found(window, "%") == []
        assert next(window.matching("row"), None) is not None
        assert list(window.matching("row", lambda: True))[1:] == []
    finally:
        window.close()


def _found(window: RowWindow, text: str) -> list[int]:
    return [number for hits in window.matching(text) for number in hits.numbers]


def test_the_first_hits_end_the_scan_and_bring_their_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A common text is not looked for in the whole file before a page of it is there."""
    monkeypatch.setattr(sql_rows, "FIRST_SCAN_ROWS", 2500)
    window = _open(_numbered(tmp_path / "data", "parquet"))
    first = next(window.matching("row 1"))
    wanted = [n for n in range(ROWS) if str(n).startswith("1")]
    assert list(first.numbers) == wanted[: sql_rows.FIRST_HITS]
    assert first.scanned == first.numbers[-1] + 1
    assert _found(window, "row 1") == wanted
    assert next(window.matching("row 240")).scanned == 2500
    assert _found(window, "2499") == [2499]

    def never(*_: object) -> None:
        raise AssertionError("the page was read again")

    list(window.matching("row 1"))
    monkeypatch.setattr(window._rows, "_fetch", never)  # type: ignore[attr-defined]
    assert window.rows_at(wanted[:50]) == [(str(n), f"row {n} é") for n in wanted[:50]]
    with pytest.raises(AssertionError, match="read again"):
        window.rows_at([2])
    window.close()


def test_a_filter_finds_rows_that_are_indexed_while_it_runs(tmp_path: Path) -> None:
    path = _json_lines(tmp_path / "rows.jsonl", [{"t": f"row {n}"} for n in range(50)])

    class Growing(JsonLinesWindow):
        """Knows ten rows, and at each look ten more."""

        known = 0

        @property
        def complete(self) -> bool:
            return self.known >= 50

        @property
        def rows_so_far(self) -> int:
            if not self._done.is_set():
                return super().rows_so_far
            self.known = min(self.known + 10, 50)
            return self.known

    window = Growing(path)
    window.known = 0
    assert _found(window, "row") == list(range(50))


def test_first_rows_of_a_gzipped_file_are_there_before_the_rest_and_the_copy_is_found_again(tmp_path: Path) -> None:
    path = _numbered(tmp_path / "data", "jsonl.gz")
    kind = recognise_file(path)
    window = open_window(path, kind)
    assert window.rows(0, 2) == [("0", "row 0 é"), ("1", "row 1 é")]
    _wait(lambda: window.complete)
    window.close()
    copies = list(copies_folder().glob("*.parquet"))
    again = open_window(path, kind)
    assert again.complete
    assert again.rows_so_far == ROWS
    assert again.row(2500) == {"n": 2500, "text": "row 2500 é"}
    again.close()
    assert list(copies_folder().glob("*.parquet")) == copies
    assert not list(copies_folder().glob(".new-*"))


def test_a_gzip_that_ends_early_shows_the_rows_before_and_says_so(tmp_path: Path) -> None:
    rows = [{"n": number, "text": os.urandom(1000).hex()} for number in range(ROWS)]
    whole = gzip.compress(b"\n".join(map(orjson.dumps, rows)), 1)
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(whole[: len(whole) - 60])
    window = _open(path)
    assert "ends early" in window.note
    last = window.rows_so_far - 1
    assert 1000 <= last < ROWS
    assert window.rows(last, 1) == [(str(last), rows[last]["text"])]
    window.close()
    assert not list(copies_folder().glob(".new-*"))


def test_null_is_not_the_empty_text_nor_the_word(tmp_path: Path) -> None:
    rows: list[object] = [{"a": None, "b": "x"}, {"a": "", "b": "x"}, {"a": "null", "b": "x"}, {"b": "x"}]
    wanted = [(None, "x"), ("", "x"), ("null", "x"), (None, "x")]
    lines = _open(_json_lines(tmp_path / "a.jsonl", rows))
    assert lines.rows(0, 9) == wanted
    query = "SELECT unnest([NULL, '', 'null', NULL]) AS a, 'x' AS b"
    parquet = _open(_parquet(tmp_path / "a.parquet", query))
    assert parquet.rows(0, 9) == wanted


def test_nested_and_other_values_read_as_text(tmp_path: Path) -> None:
    query = (
        "SELECT [{'role': 'user', 'content': 'Hé'}] AS turns, MAP {'k': 1} AS m, 1.50::DECIMAL(5,2) AS d, "
        "TRUE AS b, TIMESTAMP '2026-01-02 03:04:05' AS t, '\\xFF'::BLOB AS raw"
    )
    window = _open(_parquet(tmp_path / "a.parquet", query))
    [cells] = window.rows(0, 1)
    assert cells == ('[{"role":"user","content":"Hé"}]', '{"k":1}', "1.50", "true", "2026-01-02 03:04:05", "\\xFF")
    assert window.row(0)["turns"] == [{"role": "user", "content": "Hé"}]
    assert [column.is_number for column in window.columns] == [False, False, True, False, False, False]
    assert _found(window, "hé") == [0]


def test_a_large_cell_is_cut_for_the_grid_and_bounded_for_the_row(tmp_path: Path) -> None:
    window = _open(_parquet(tmp_path / "a.parquet", "SELECT repeat('ab', 1000000) AS text"))
    assert window.rows(0, 1) == [("ab" * (CELL_CHARACTERS // 2),)]
    assert 1_000_000 <= len(window.row(0)["text"]) < 1_000_100
    lines = _open(_json_lines(tmp_path / "a.jsonl", [{"text": "ab" * 1_000_000}, {"text": "c"}]))
    assert lines.rows(0, 9) == [("ab" * (CELL_CHARACTERS // 2),), ("c",)]


def test_of_a_line_that_is_too_long_the_beginning_is_shown_with_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_window_jsonl, "LONGEST_LINE", 1_000_000)
    window = _open(_json_lines(tmp_path / "a.jsonl", [{"a": "first"}, {"a": "long" * 500_000}, {"a": "last"}]))
    cells = [row[0] for row in window.rows(0, 9)]
    assert cells[::2] == ["first", "last"]
    assert str(cells[1]).startswith('✗ a line of 2 MB, of which only the beginning is read: {"a":"longlong')
    with pytest.raises(UnreadableData, match="line 2: a line of 2 MB"):
        window.row(1)
    assert _found(window, "LAST") == [2]
    assert _found(window, "longlong") == [1]
    window.close()


def test_columns_of_any_name_and_number(tmp_path: Path) -> None:
    names = ['"; drop table', "file_row_number", "[/nope]", "é\x1b", *(f"c{n}" for n in range(200))]
    rows: list[object] = [dict.fromkeys(names, f"v{n}") for n in range(3)]
    lines = _open(_json_lines(tmp_path / "a.jsonl", rows))
    assert [column.name for column in lines.columns] == names
    selected = ", ".join(f"'v' || i AS \"{name.replace(chr(34), chr(34) * 2)}\"" for name in names)
    window = _open(_parquet(tmp_path / "a.parquet", f"SELECT {selected} FROM range(3) t(i)"))
    assert [column.name for column in window.columns] == names
    assert window.rows(1, 5) == [("v1",) * len(names), ("v2",) * len(names)] == lines.rows(1, 5)
    assert window.rows_at([2]) == [("v2",) * len(names)]
    assert _found(window, "V2") == [2]


def test_files_without_rows(tmp_path: Path) -> None:
    window = _open(_parquet(tmp_path / "a.parquet", "SELECT 1 AS a WHERE FALSE"))
    assert (window.rows_so_far, window.rows(0, 5), [c.name for c in window.columns]) == (0, [], ["a"])
    assert _found(window, "x") == []
    (tmp_path / "a.jsonl").write_bytes(b"")
    empty = open_window(tmp_path / "a.jsonl", FileKind("jsonl"))
    assert empty.complete
    assert (empty.rows_so_far, empty.rows(0, 5)) == (0, [])
    assert _found(empty, "x") == []


def test_lines_that_are_no_rows_say_so_in_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": "first"}\r\n\r\n\n[1]\n{"a": \xff}\n{"a": broken}\n{"a": "last"}\n{"a": "to')
    window = _open(path)
    cells = [row[0] for row in window.rows(0, 99)]
    assert cells[0] == "first"
    assert [str(cell).partition(":")[0] for cell in cells[1:4]] == [
        "✗ not an object", "✗ invalid UTF-8", "✗ invalid JSON",
    ]  # fmt: skip
    assert cells[4] == "last"
    assert str(cells[5]).startswith("✗ torn last line")
    assert [window.place(number) for number in (0, 1, 5)] == ["line 1", "line 4", "line 8"]
    with pytest.raises(UnreadableData, match="line 5"):
        window.row(2)


def test_a_line_that_spans_chunks_is_indexed_once(tmp_path: Path) -> None:
    rows: list[object] = [{"a": f"{n:07d}" * 40} for n in range(5000)]
    window = _open(_json_lines(tmp_path / "a.jsonl", rows, ending=""))
    assert window.rows_so_far == 5000
    assert all(window.rows(n, 1) == [(f"{n:07d}" * 40,)] for n in range(0, 5000, 61))
    assert window.rows(4999, 1) == [("4999".zfill(7) * 40,)]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "jsonl.gz"])
def test_a_file_that_goes_away_or_changes_is_an_error_that_says_so(tmp_path: Path, kind: str) -> None:
    path = _numbered(tmp_path / "data", kind)
    window = _open(path)
    content = path.read_bytes()
    path.unlink()
    for read in (lambda: window.rows(2900, 5), lambda: window.row(2900), lambda: _found(window, "row")):
        with pytest.raises(UnreadableData, match="is not there"):
            read()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceChanged, match="changed while it was open"):
        window.rows(2900, 5)
    window.close()


def test_a_damaged_parquet_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    path = _numbered(tmp_path / "data", "parquet")
    content = bytearray(path.read_bytes())
    path.write_bytes(bytes(content[:-200]) + b"x" * 196 + b"PAR1")
    with pytest.raises(UnreadableData, match="cannot be read as Parquet"):
        open_window(path, FileKind("parquet"))
    content[4:2000] = os.urandom(1996)
    path.write_bytes(content)
    window = open_window(path, FileKind("parquet"))
    with pytest.raises(UnreadableData, match="rows 1 to 5"):
        window.rows(0, 5)


def test_a_name_with_pattern_characters_is_one_file(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "a[1]*.parquet", "SELECT 1 AS a")
    assert "[[]" in literal_path(path)
    assert _open(path).rows(0, 1) == [("1",)]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.none() | st.text()), min_size=1, max_size=30))
def test_any_text_comes_back_in_its_place(tmp_path: Path, rows: list[tuple[str, str | None]]) -> None:
    rows = [(a, None if b is None else b.encode("utf-8", "replace").decode()) for a, b in rows]
    path = _json_lines(tmp_path / "any.jsonl", [{"a": a, "b": b} for a, b in rows])
    lines = _open(path)
    parquet = tmp_path / "any.parquet"
    connection = duckdb.connect()
    connection.execute("CREATE TABLE t (a VARCHAR, b VARCHAR)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
    connection.execute(f"COPY t TO '{parquet}' (FORMAT parquet)")
    connection.close()
    window = _open(parquet)
    assert lines.rows(0, 99) == rows == window.rows(0, 99)
    window.close()
