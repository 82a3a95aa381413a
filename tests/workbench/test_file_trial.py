"""A file over which a parser dies takes a child with it and nothing else; one that was tried opens without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.workbench import crashing_parser
from workbench import file_trial
from workbench.child_programs import child_environment
from workbench.dataset_preview import preview
from workbench.dataset_reading import FileKind, RawRow, read_rows
from workbench.dataset_store import add_dataset
from workbench.dataset_window import CELL_CHARACTERS, is_cut, open_window
from workbench.errors import SourceChanged, UnreadableData
from workbench.file_trial_child import cut, read
from workbench.workspace import Workspace

PARQUET = FileKind("parquet")


@pytest.fixture(autouse=True)
def nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_trial, "_known", {})
    monkeypatch.setattr(file_trial, "PROGRAM", crashing_parser.__name__)


def _file(path: Path, word: str = "fine", rows: int = 300) -> Path:
    query = f"SELECT '{word}' || i AS prompt, 'x' AS completion FROM range({rows}) t(i)"
    duckdb.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION uncompressed)")
    return path


def _tried_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials happen in this process, where the mark is a child's death; how each was asked for."""
    asked: list[str] = []

    def here(path: Path, how: str, target: str = "") -> subprocess.CompletedProcess[bytes]:
        asked.append(how)
        content = path.read_bytes()
        late = crashing_parser.LATE_MARK.encode() in content and how == "whole"
        if crashing_parser.MARK.encode() in content or late:
            return subprocess.CompletedProcess([], -signal.SIGSEGV, b"")
        if how == "cut":
            cut(path, Path(target))
        return subprocess.CompletedProcess([], 0, b"%d" % read(path, whole=how == "whole"))

    monkeypatch.setattr(file_trial, "run_child", here)
    monkeypatch.setattr("workbench.dataset_window_cut.run_child", here)
    return asked


def test_a_file_that_kills_its_reader_is_never_opened_here(workspace: Workspace, tmp_path: Path) -> None:
    path = _file(tmp_path / "bad.parquet", crashing_parser.MARK)
    with pytest.raises(UnreadableData, match=r"bad\.parquet cannot be opened: .* ended by SIGSEGV"):
        add_dataset(workspace, path, "d")
    assert workspace.names("datasets") == []
    assert "SIGSEGV" in preview(str(path)).source_problem
    torn = _file(tmp_path / "torn.parquet")
    torn.write_bytes(torn.read_bytes()[:-100] + os.urandom(96) + b"PAR1")
    with pytest.raises(UnreadableData, match="cannot be read as Parquet"):
        open_window(torn, PARQUET)


def test_a_file_that_was_tried_is_not_tried_again_until_it_changes(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _tried_here(monkeypatch)
    path = _file(tmp_path / "good.parquet")
    assert preview(str(path)).can_be_added
    add_dataset(workspace, path, "d")
    open_window(path, PARQUET).close()
    assert asked == ["whole"]
    file_trial._known.clear()  # as in another process
    open_window(path, PARQUET).close()
    assert asked == ["whole"]
    _file(path, crashing_parser.MARK)
    with pytest.raises(UnreadableData, match="SIGSEGV"):
        open_window(path, PARQUET)
    assert asked == ["whole", "whole"]


def test_of_a_large_file_the_ends_are_tried_first_and_all_of_it_before_more_than_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_trial, "AT_ONCE_BYTES", 0)
    asked = _tried_here(monkeypatch)
    path = _file(tmp_path / "late.parquet", crashing_parser.LATE_MARK)
    open_window(path, PARQUET).close()
    rows = read_rows(path, PARQUET)
    assert isinstance(next(rows), RawRow)
    with pytest.raises(UnreadableData, match="SIGSEGV"):
        list(rows)
    assert asked == ["ends", "whole"]


def test_a_cache_that_cannot_be_written_costs_one_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _tried_here(monkeypatch)
    (tmp_path / "cache").write_bytes(b"not a folder")
    path = _file(tmp_path / "good.parquet")
    for _ in range(2):
        open_window(path, PARQUET).close()
    assert asked == ["whole"]


def test_texts_that_are_too_long_are_cut_in_a_copy_and_say_how_long_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tried_here(monkeypatch)
    monkeypatch.setattr("workbench.dataset_window.LONGEST_CELL", 1_100_000)
    path = tmp_path / "long.parquet"
    rows = "(1, 'é' || repeat('ab', 600000), [1, 2]), (2, 'short', NULL), (3, repeat('x', 1000020), [3])"
    duckdb.execute(f"COPY (FROM (VALUES {rows}) t(n, text, list)) TO '{path}' (FORMAT parquet)")
    monkeypatch.setattr("workbench.dataset_window_cut.LONGEST_CELL", 1_100_000)
    assert "… (1,200,001 characters)" in str(preview(str(path), "text=text").rows[0].reading)
    window = open_window(path, PARQUET)
    assert "cut" in window.note
    assert window.rows(0, 3)[1:] == [("2", "short", None), ("3", "x" * CELL_CHARACTERS, "[3]")]
    long = window.row(0)
    assert (long["n"], long["list"], long["text"][-25:]) == (1, [1, 2], "a… (1,200,001 characters)")
    assert long["text"].startswith("éabab")
    assert len(long["text"]) < 1_000_040
    assert [is_cut(window.row(n)) for n in range(2)] == [True, False]
    assert window.row(2)["text"] == "x" * 1_000_020, "what is said would be longer than what is cut"
    path.write_bytes(b"other")
    with pytest.raises(SourceChanged, match=r"long\.parquet changed"):
        window.rows(0, 1)
    window.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_cell_of_200_mb_leaves_the_process_small(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"big.{kind}"
    if kind == "parquet":
        rows = "('small', 1), (repeat('ab ', 66666667), 2), ('after', 3)"
        duckdb.execute(f"COPY (FROM (VALUES {rows}) t(text, n)) TO '{path}' (FORMAT parquet)")
    else:
        with open(path, "wb") as file:
            file.write(b'{"text":"small","n":1}\n{"text":"')
            for _ in range(200):
                file.write(b"ab " * 333_333 + b"a")
            file.write(b'","n":2}\n{"text":"after","n":3}\n')
    script = (
        "import sys, time; from pathlib import Path; from workbench.dataset_reading import FileKind\n"
        "from workbench.dataset_window import open_window\nfrom workbench.errors import UnreadableData\n"
        f"window = open_window(Path(sys.argv[1]), FileKind('{kind}'))\n"
        "while not window.complete: time.sleep(0.01)\n"
        "assert window.rows_so_far == 3, window.rows_so_far\nprint(repr(window.rows(0, 3)[1][0][:200]))\n"
        "try: print(repr(window.row(1)['text'][-30:]))\n"
        "except UnreadableData as error: print(str(error)[:300])\n"
        "assert [n for hits in window.matching('after') for n in hits.numbers] == [2]\n"
        "print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], env=child_environment(), capture_output=True, text=True, check=True
    )
    cell, whole, memory_kb = done.stdout.splitlines()
    assert "200,000,001 characters" in whole if kind == "parquet" else "a line of 200 MB" in whole
    assert "ab ab ab" in cell
    assert int(memory_kb) < 160_000, "of the 250 MB that the app may take, with what it takes itself"
