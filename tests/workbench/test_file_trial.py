"""A file over which a parser dies takes a child with it and nothing else; one that was tried opens without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.workbench import crashing_parser
from workbench import file_trial
from workbench.dataset_preview import preview
from workbench.dataset_reading import FileKind, RawRow, read_rows
from workbench.dataset_store import add_dataset
from workbench.dataset_window import open_window
from workbench.errors import UnreadableData
from workbench.workspace import Workspace

PARQUET = FileKind("parquet")


@pytest.fixture(autouse=True)
def nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_trial, "_known", set())
    monkeypatch.setattr(file_trial, "PROGRAM", crashing_parser.__name__)


def _file(path: Path, word: str = "fine", rows: int = 300) -> Path:
    query = f"SELECT '{word}' || i AS prompt, 'x' AS completion FROM range({rows}) t(i)"
    duckdb.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION uncompressed)")
    return path


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each child that is started from here on was asked."""
    asked: list[str] = []
    run = file_trial.subprocess.run

    def count(command: list[str], **options: Any) -> Any:
        asked.append(command[-1])
        return run(command, **options)

    monkeypatch.setattr(file_trial.subprocess, "run", count)
    return asked


def test_a_file_that_kills_its_reader_is_never_opened_here(workspace: Workspace, tmp_path: Path) -> None:
    path = _file(tmp_path / "bad.parquet", crashing_parser.MARK)
    with pytest.raises(UnreadableData, match=r"bad\.parquet cannot be opened: .* ended by SIGSEGV"):
        add_dataset(workspace, path, "d")
    assert workspace.names("datasets") == []
    with pytest.raises(UnreadableData, match="SIGSEGV"):
        open_window(path, PARQUET)
    assert "SIGSEGV" in preview(str(path)).source_problem
    with pytest.raises(UnreadableData, match="cannot be read as Parquet"):
        _damaged(tmp_path / "torn.parquet")


def _damaged(path: Path) -> None:
    _file(path)
    content = path.read_bytes()
    path.write_bytes(content[:-100] + os.urandom(96) + b"PAR1")
    open_window(path, PARQUET)


def test_a_file_that_was_tried_is_not_tried_again_until_it_changes(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _counted(monkeypatch)
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
    asked = _counted(monkeypatch)
    path = _file(tmp_path / "late.parquet", crashing_parser.LATE_MARK)
    open_window(path, PARQUET).close()
    rows = read_rows(path, PARQUET)
    assert isinstance(next(rows), RawRow)
    with pytest.raises(UnreadableData, match="SIGSEGV"):
        list(rows)
    assert asked == ["ends", "whole"]


def test_a_cache_that_cannot_be_written_costs_one_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _counted(monkeypatch)
    (tmp_path / "cache").write_bytes(b"not a folder")
    path = _file(tmp_path / "good.parquet")
    for _ in range(2):
        open_window(path, PARQUET).close()
    assert asked == ["whole"]
