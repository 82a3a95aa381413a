"""A native cache holds the rows of its file and nothing else, and nothing that becomes of it reaches who reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from workbench import cache_room, native_cache, sql_rows
from workbench.cache_room import copies_folder, make_room, native_folder
from workbench.child_programs import child_environment
from workbench.dataset_window import RowWindow
from workbench.dataset_window_jsonl import JsonLinesWindow
from workbench.dataset_window_parquet import ParquetWindow
from workbench.errors import SourceChanged
from workbench.native_cache_child import make
from workbench.row_query import rows_of_query
from workbench.sql_rows import SqlRows

ROWS = 5000


@pytest.fixture(autouse=True)
def small_files_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(native_cache, "LEAST_BYTES", 0)
    monkeypatch.setattr(native_cache, "PAUSE_S", 0.05)
    monkeypatch.setattr(native_cache, "START_S", 0.0)
    monkeypatch.setattr(native_cache, "_WAIT_S", 0.01)
    monkeypatch.setattr(native_cache._child, "_held_until", 0.0)


@pytest.fixture
def made_here(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Caches are made in this process; the targets of all that were."""
    made: list[Path] = []

    def run(request: dict[str, Any]) -> bool:
        made.append(Path(request["target"]))
        make(request["kind"], Path(request["source"]), made[-1], request["schema"], request["rows"])
        return True

    monkeypatch.setattr(native_cache._child, "run", run)
    return made


def _wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def _parquet(path: Path, query: str = f"SELECT i, 'row ' || i AS text FROM range({ROWS}) t(i)") -> Path:
    duckdb.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 2048)")
    return path


def _cached(window: RowWindow) -> SqlRows | None:
    if isinstance(window, ParquetWindow):
        return window._rows if window.from_cache else None
    assert isinstance(window, JsonLinesWindow)
    return window._native


def _moved_over(window: RowWindow) -> RowWindow:
    assert window.speed_up()
    _wait(lambda: _cached(window) is not None)
    return window


def _nobody_waits() -> bool:
    return not any(thread.name == "native cache" for thread in threading.enumerate())


def _left() -> list[str]:
    return sorted(file.name for file in native_folder().iterdir() if file.name != "making.lock")


def _found(window: RowWindow, line: str) -> list[int]:
    return [number for hits in rows_of_query(window, line) for number in hits.numbers]


def test_every_type_reads_the_same_as_from_the_file(tmp_path: Path, made_here: list[Path]) -> None:
    without = "EXCLUDE (empty_struct)"  # which Parquet has not
    path = _parquet(tmp_path / "types.parquet", f"SELECT * {without} FROM test_all_types()")
    window = ParquetWindow(path)
    assert len(window.columns) > 50

    def seen() -> list[Any]:
        queries = [f"sort -{column.name}" for column in window.columns[::8]]
        queries += ["true", "2", "bool = false", "int < 0", "double > 1", "varchar has goo", "int_array has 42"]
        return [
            window.rows(0, 9), window.rows_at([2, 0]), repr([window.row(number) for number in range(3)]),
            [_found(window, query) for query in queries],
        ]  # fmt: skip

    from_file = seen()
    assert len(from_file[0]) == 3
    _moved_over(window)
    assert seen() == from_file
    window.close()


def test_json_lines_are_found_the_same(tmp_path: Path, made_here: list[Path]) -> None:
    rows: list[dict[str, Any]] = [
        {"a": f"Row {n} é", "n": (n, n / 2, -n, None, "nan", "7")[n % 6] if n > 300 else n, "t": [1, {"x": n}]}
        for n in range(2000)
    ]
    rows[1500] |= {"late": "Quite Late", "list": ["deep"]}
    rows[1600]["a"] = "x" * 5000 + "far behind"
    lines = [orjson.dumps(row) for row in rows]
    lines[500:500] = [b"", b"[1]", b'{"a": broken LATE', b'{"a":"\xff"}']
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    window = JsonLinesWindow(path)
    _wait(lambda: window.complete)
    queries = (
        *("late", "ROW 1", "invalid", "broken", "deep", "n > 12", "n = 7 and a has 3 sort -n", "sort n", "sort -a"),
        *("t has x and n is null", "a has 99", "nan", "late 5 sort -n", "é", "a has behind", "1 sort t", "n != 7"),
    )
    from_file = {query: _found(window, query) for query in queries}
    assert from_file["late"] == [501, 1503]
    assert from_file["a has behind"] == [1603], "conditions look at whole cells, not at what the grid shows of them"
    _moved_over(window)
    assert {query: _found(window, query) for query in queries} == from_file
    window.close()


def test_reading_goes_on_while_it_moves_over_and_back(tmp_path: Path, made_here: list[Path]) -> None:
    window = ParquetWindow(_parquet(tmp_path / "p.parquet"))
    over, faults = threading.Event(), []

    def read() -> None:
        start = 0
        while not over.is_set():
            start = (start + 977) % (ROWS - 10)
            if window.rows(start, 3) != [(str(n), f"row {n}") for n in range(start, start + 3)]:
                faults.append(start)
            if window.row(start) != {"i": start, "text": f"row {start}"}:
                faults.append(start)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            _moved_over(window)
            cache = _cached(window)
            assert cache is not None
            with cache._lock, cache._row_lock:  # as if it could not be read
                cache._connection.close()
                cache._row_connection.close()
            _wait(lambda: not window.from_cache)
            _wait(_nobody_waits)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not faults
    assert len(made_here) == 2, "each that could not be read was thrown away"
    window.close()


def test_a_search_goes_on_in_the_file_where_its_cache_fails(
    tmp_path: Path, made_here: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = SqlRows.scan

    def torn(rows: SqlRows, *arguments: Any) -> Any:
        for place, hits in enumerate(scan(rows, *arguments)):
            if place and rows.relation.attached:
                raise duckdb.IOException("torn")
            yield hits

    path = _parquet(tmp_path / "p.parquet", "SELECT 'row ' || i AS text FROM range(2000) t(i)")
    window = _moved_over(ParquetWindow(path))
    lines = tmp_path / "l.jsonl"
    lines.write_bytes(b"".join(b'{"text":"row %d"}\n' % n for n in range(2000)))
    other = _moved_over(JsonLinesWindow(lines))
    monkeypatch.setattr(sql_rows, "FIRST_SCAN_ROWS", 300)
    monkeypatch.setattr(SqlRows, "scan", torn)
    wanted = [n for n in range(2000) if "77" in str(n)]
    assert _found(window, "row 77") == [n for n in wanted if str(n).startswith("77")]
    assert _cached(window) is None
    assert _found(other, "text has 77") == wanted
    assert _cached(other) is None
    assert _left() == []
    window.close()
    other.close()


def test_a_cache_that_is_not_the_files_is_thrown_away_and_made_again(tmp_path: Path, made_here: list[Path]) -> None:
    window = ParquetWindow(_parquet(tmp_path / "p.parquet"))
    _moved_over(window).close()
    [file] = native_folder().glob("*.duckdb")
    whole, layout = file.read_bytes(), native_cache.parquet_layout(window.columns)

    def changed(statement: str) -> None:
        with duckdb.connect(str(file)) as connection:
            connection.execute(statement)

    def linked() -> None:
        os.rename(file, tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")

    faults: dict[str, Callable[[], object]] = {
        "torn": lambda: file.write_bytes(whole[:5000]),
        "foreign": lambda: file.write_bytes(os.urandom(20_000)),
        "other rows": lambda: changed("UPDATE about SET rows = 7"),
        "other columns": lambda: changed("ALTER TABLE rows ALTER i TYPE VARCHAR"),
        "not finished": lambda: changed("DROP TABLE about"),
        "a link": linked,
    }
    for fault, harm in faults.items():
        file.write_bytes(whole)
        found = native_cache._opened(file, layout, ROWS)
        assert found is not None
        found.close()
        harm()
        assert native_cache._opened(file, layout, ROWS) is None, fault
        assert not file.exists(), fault
        assert not file.is_symlink(), fault
    window = _moved_over(ParquetWindow(tmp_path / "p.parquet"))  # type: ignore[assignment]
    assert window.rows(4990, 1) == [("4990", "row 4990")]
    assert len(made_here) == 2
    window.close()


def test_it_is_found_again_and_not_for_another_file_of_that_name(tmp_path: Path, made_here: list[Path]) -> None:
    path = _parquet(tmp_path / "p.parquet")
    for _ in range(2):
        _moved_over(ParquetWindow(path)).close()
    assert len(made_here) == 1
    path.unlink()
    _parquet(path, "SELECT 7 AS other")
    window = _moved_over(ParquetWindow(path))
    assert window.rows(0, 9) == [("7",)]
    window.close()


def test_files_for_which_none_is_made(tmp_path: Path, made_here: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_cache, "MOST_COLUMNS", 3)
    for query in ("SELECT 1 AS a, 2 AS RowId", "SELECT 1 AS file_row_number", "SELECT 1 AS a, 2 AS b, 3 AS c, 4 AS d"):
        assert not ParquetWindow(_parquet(tmp_path / "p.parquet", query)).speed_up()
    monkeypatch.setattr(native_cache, "LEAST_BYTES", 1_000_000)
    assert not ParquetWindow(_parquet(tmp_path / "p.parquet")).speed_up()


def test_a_full_disk_and_room_for_all_of_them(
    tmp_path: Path, made_here: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    window = ParquetWindow(_parquet(tmp_path / "p.parquet"))
    with monkeypatch.context() as full:
        full.setattr(cache_room, "free_bytes", lambda: cache_room.LEAST_FREE_BYTES + 100)
        assert window.speed_up()
        _wait(_nobody_waits)
        assert (made_here, window.from_cache) == ([], False)
    files = []
    for place, folder in enumerate((copies_folder(), native_folder(), copies_folder())):
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"of-{place}.duckdb")
        files[-1].write_bytes(b"x" * 1000)
        os.utime(files[-1], (time.time() - 100 * (3 - place),) * 2)
    files += [native_folder() / ".new-dead.duckdb", copies_folder() / "unused.parquet"]
    for file, age in zip(files[3:], (cache_room.HALF_MADE_S + 9, cache_room.UNUSED_S + 9), strict=True):
        file.write_bytes(b"")
        os.utime(file, (time.time() - age,) * 2)
    monkeypatch.setattr(cache_room, "MOST_BYTES", 3000)
    assert make_room(1500)
    assert [file.exists() for file in files] == [False, False, True, False, False], "what was used longest ago goes"
    assert not make_room(3001)
    assert files[2].exists(), "nothing goes for what cannot fit anyway"
    window.close()


class TestChild:
    """The process that makes it."""

    def _begun(self, window: RowWindow) -> subprocess.Popen[bytes]:
        """A child that is stopped, because rows are read."""
        assert window.speed_up()
        child = native_cache._child
        _wait(lambda: child._process is not None)
        native_cache.PAUSE_S = 600  # undone by the fixture
        assert window.rows(0, 1)
        process = child._process
        assert process is not None
        _wait(lambda: _state(process.pid) == "T")
        return process

    def test_it_is_stopped_while_rows_are_read_and_goes_on(self, tmp_path: Path) -> None:
        window = ParquetWindow(_parquet(tmp_path / "p.parquet"))
        process = self._begun(window)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        assert not window.from_cache
        native_cache._child._held_until = 0
        _wait(lambda: window.from_cache)
        assert window.rows(4321, 1) == [("4321", "row 4321")]
        assert [name[:1] for name in _left()] != ["."]
        assert len(_left()) == 1
        window.close()

    def test_a_kill_or_a_full_disk_in_its_middle_leaves_nothing_and_rows_come_from_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        window = ParquetWindow(_parquet(tmp_path / "p.parquet"))
        process = self._begun(window)
        os.kill(process.pid, signal.SIGKILL)
        _wait(_nobody_waits)
        assert _left() == []
        native_cache._child._held_until = 0
        monkeypatch.setattr(native_cache, "PAUSE_S", 0.05)
        process = self._begun(window)
        monkeypatch.setattr(native_cache, "free_bytes", lambda: 0)
        _wait(_nobody_waits)
        assert process.poll() == -signal.SIGKILL
        assert _left() == []
        assert window.rows(4321, 1) == [("4321", "row 4321")]
        assert not window.from_cache
        window.close()

    def test_a_file_that_changes_meanwhile_has_none(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path / "p.parquet")
        window = ParquetWindow(path)
        self._begun(window)
        os.utime(path)
        native_cache._child._held_until = 0
        _wait(_nobody_waits)
        assert _left() == []
        with pytest.raises(SourceChanged):
            window.rows(0, 1)
        window.close()

    @pytest.mark.slow
    def test_it_dies_with_the_program(self, tmp_path: Path) -> None:
        path = _parquet(tmp_path / "p.parquet")
        script = (
            "import sys, time; from pathlib import Path; from workbench import native_cache as made\n"
            "from workbench.dataset_window_parquet import ParquetWindow\n"
            "made.LEAST_BYTES = 0; window = ParquetWindow(Path(sys.argv[1])); window.speed_up()\n"
            "while made._child._process is None: time.sleep(0.01)\n"
            "made.PAUSE_S = 600; window.rows(0, 1); print(made._child._process.pid, flush=True); time.sleep(600)"
        )
        program = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, env=child_environment()
        )
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        _wait(lambda: _state(pid) == "T")
        program.kill()
        program.wait()
        program.stdout.close()
        _wait(lambda: _state(pid) in ("", "Z"))


def _state(pid: int) -> str:
    """T for a stopped process, Z for one that has ended, empty for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""
