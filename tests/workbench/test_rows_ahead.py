"""First rows that a fork reads, and the window that has them before its file is open here."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest

import workbench.dataset_window_late as late
import workbench.row_opening as row_opening
from tests.screens.pty_terminal import PtyTerminal
from workbench.cli import main
from workbench.dataset_reading import FileKind
from workbench.dataset_store import add_dataset
from workbench.dataset_window import BLOCK_ROWS
from workbench.dataset_window_late import FirstRows, LateWindow
from workbench.errors import NotFound, SourceChanged, UnreadableData
from workbench.row_opening import open_rows
from workbench.rows_ahead import RowsAhead
from workbench.workspace import Workspace, init

ROWS = 600


def write(file: Path, rows: int = ROWS) -> None:
    """A Parquet file of prompts and completions."""
    file.unlink(missing_ok=True)
    duckdb.sql(
        f"COPY (SELECT 'tyre ' || range || '?' AS prompt, CASE WHEN range % 2 = 0 THEN 'да' END AS completion, "
        f"range AS tokens FROM range({rows})) TO '{file}' (FORMAT parquet)"
    )


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = init(tmp_path / "ws")
    write(made.root / "tyres.parquet")
    add_dataset(made, made.root / "tyres.parquet", "tyres")
    lines = made.root / "lines.jsonl"
    lines.write_text('{"prompt": "a", "completion": "b"}\n')
    add_dataset(made, lines, "lines")
    return made


@pytest.fixture
def opened_here(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that this process itself has opened."""
    files: list[Path] = []
    for module in (late, row_opening):
        work = module.open_window

        def opens(path: Path, kind: FileKind, work: Any = work) -> Any:
            files.append(path)
            return work(path, kind)

        monkeypatch.setattr(module, "open_window", opens)
    monkeypatch.setattr(late, "FRAME_S", 0.0)
    return files


@pytest.fixture
def told(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What the fork tells of the dataset; read here, since this process has DuckDB, and must not fork with it."""
    known = FirstRows.read(workspace, "tyres", "train")
    monkeypatch.setattr(FirstRows, "read", staticmethod(lambda *_: known))
    return known


def ended(process: int) -> bool:
    """Whether a child was waited for."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_first_rows_are_there_before_the_file_is_opened(
    workspace: Workspace, told: bytes, opened_here: list[Path]
) -> None:
    ahead = RowsAhead(workspace, "tyres")
    rows = open_rows(workspace, "tyres", ahead=ahead)
    assert opened_here == [], "what the fork has read is enough"
    assert ended(ahead._child)
    known = (rows.first, rows.window.columns, rows.window.rows_so_far)
    assert (rows.first[0], rows.first[1]) == (("tyre 0?", "да", "0"), ("tyre 1?", None, "1"))
    assert len(rows.first) == BLOCK_ROWS
    rows.close()
    as_ever = open_rows(workspace, "tyres")
    assert known == (as_ever.first, as_ever.window.columns, as_ever.window.rows_so_far)
    as_ever.close()


def test_every_other_row_is_that_of_the_file(workspace: Workspace, told: bytes, opened_here: list[Path]) -> None:
    rows = open_rows(workspace, "tyres", place="500.499", ahead=RowsAhead(workspace, "tyres#500.499"))
    window = rows.window
    assert isinstance(window, LateWindow)
    assert rows.begin == 499
    assert window.rows(250, 10) == [(f"tyre {n}?", "да" if n % 2 == 0 else None, str(n)) for n in range(250, 260)]
    assert window.rows(595, 99)[-1] == ("tyre 599?", None, "599")
    assert window.row(499) == {"prompt": "tyre 499?", "completion": None, "tokens": 499}
    assert window.rows_at([7, 3]) == [("tyre 7?", None, "7"), ("tyre 3?", None, "3")]
    assert list(window.whole_rows(0, 1)) == [("tyre 0?", "да", "0")]
    assert [n for hits in window.matching("tyre 59") for n in hits.numbers] == [59, *range(590, 600)]
    assert len(opened_here) == 1, "once, by the first of them"
    rows.close()


def test_of_what_is_no_parquet_nothing_is_told(workspace: Workspace) -> None:
    assert FirstRows.read(workspace, "lines", "train") == b""


def test_a_fork_that_fails_tells_nothing_and_the_error_is_told_as_ever(workspace: Workspace) -> None:
    ahead = RowsAhead(workspace, "brakes")
    with pytest.raises(NotFound, match="brakes"):
        open_rows(workspace, "brakes")
    assert ahead.take() is None
    assert ended(ahead._child)
    assert ahead.take() is None, "and again"


def test_half_of_what_is_told_is_nothing() -> None:
    whole = b'{"file":[3,4,5],"columns":[["prompt","VARCHAR"]],"count":1,"cells":[["a"]]}'
    first = FirstRows.of(whole)
    assert first is not None
    assert first.cells == [("a",)]
    assert first.file == (3, 4, 5)
    assert all(FirstRows.of(whole[:length]) is None for length in range(len(whole)))
    assert FirstRows.of(b"{}") is None
    assert FirstRows.of(b'{"file":[1,1,1],"columns":[["a"]],"count":1,"cells":[]}') is None
    assert FirstRows.of(b'{"file":[1,1],"columns":[],"count":1,"cells":[]}') is None


def test_who_waits_can_have_enough_and_does_not_wait_for_the_fork(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FirstRows, "read", staticmethod(lambda *_: threading.Event().wait(120)))
    ahead = RowsAhead(workspace, "tyres")

    def enough() -> None:
        raise InterruptedError

    def take() -> None:
        with pytest.raises(InterruptedError):
            ahead.take(enough)

    waits = threading.Thread(target=take, daemon=True)
    waits.start()
    waits.join(30)
    assert not waits.is_alive(), "the fork goes on for two minutes"
    assert ended(ahead._child)


def first_rows(workspace: Workspace) -> FirstRows:
    """What the fork would tell."""
    first = FirstRows.of(FirstRows.read(workspace, "tyres", "train"))
    assert first is not None
    return first


def test_a_file_that_changed_meanwhile_is_told(workspace: Workspace, opened_here: list[Path]) -> None:
    first = first_rows(workspace)
    write(workspace.root / "tyres.parquet", ROWS)  # as many rows, of the same columns
    window = LateWindow(workspace.root / "tyres.parquet", FileKind("parquet"), first)
    with pytest.raises(SourceChanged, match=r"tyres.parquet changed while it was open"):
        window.row(0)


def test_closing_waits_for_nobody_and_nothing_stays_open(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = first_rows(workspace)
    monkeypatch.setattr(late, "FRAME_S", 0.0)
    begun, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    work = late.open_window

    def slow(path: Path, kind: FileKind) -> Any:
        begun.set()
        assert go_on.wait(30)
        opened = work(path, kind)
        close = opened.close
        monkeypatch.setattr(opened, "close", lambda: (close(), closed.set()))
        return opened

    monkeypatch.setattr(late, "open_window", slow)
    window = LateWindow(workspace.root / "tyres.parquet", FileKind("parquet"), first)
    window.speed_up()
    assert begun.wait(30)
    window.close()
    assert not closed.is_set()
    go_on.set()
    assert closed.wait(30)


def test_closed_before_it_was_opened_it_never_is(workspace: Workspace, opened_here: list[Path]) -> None:
    window = LateWindow(workspace.root / "tyres.parquet", FileKind("parquet"), first_rows(workspace))
    before = len(opened_here)
    window.close()
    with pytest.raises(UnreadableData, match="closed"):
        window.row(0)
    assert len(opened_here) == before


def test_the_command_shows_the_rows_and_all_of_them_can_be_gone_to(workspace: Workspace) -> None:
    command = [sys.executable, "-m", "workbench", "--workspace", str(workspace.root), "data", "inspect", "tyres"]
    with PtyTerminal(command) as terminal:
        terminal.sees("tyre 9?")
        terminal.send("G")
        terminal.sees("tyre 599?")
        terminal.send("q")
        terminal.sees("no runs yet")
        terminal.send("qq")
        assert terminal.ends() == 0


def test_the_command_says_what_there_is(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--workspace", str(workspace.root), "data", "inspect", "brakes"]) != 0
    assert "no dataset named brakes" in capsys.readouterr().err


def test_what_fails_after_the_file_was_opened_closes_it(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    work = row_opening.open_window

    def opens(path: Path, kind: FileKind) -> Any:
        window = work(path, kind)
        monkeypatch.setattr(window, "close", lambda: closed.append(path.name))
        return window

    def stop(*_: object) -> int:
        raise InterruptedError

    monkeypatch.setattr(row_opening, "open_window", opens)
    monkeypatch.setattr(row_opening, "row_at", stop)
    with pytest.raises(InterruptedError):
        open_rows(workspace, "tyres")
    assert closed == ["tyres.parquet"]
