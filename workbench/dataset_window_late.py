"""A window on a Parquet file whose first rows are there before it is: they were read by somebody else (`rows_ahead`).

Owns what is known before the file is open here, and opening it: when something is asked for that is not known, or when
reading shall become faster, in a thread. Invariants: the file that is open then is the one whose rows were shown, else
it has changed, and that is said; what is opened after `close` is closed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from workbench.dataset_reading import FileKind
from workbench.dataset_window import (
    BLOCK_ROWS,
    Cells,
    FileIdentity,
    Hits,
    RowWindow,
    WindowColumn,
    identity_of,
    open_window,
)
from workbench.dataset_window_subject import find_subject
from workbench.errors import UnreadableData, WorkbenchError
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.row_query import RowQuery

FRAME_S = 0.1
"""The frame with the first rows goes out before the file is opened here, which takes half of this process."""


@dataclass(frozen=True)
class FirstRows:
    """What is known of a file before it is open here."""

    file: tuple[int, int, int]
    """Its size, time and inode when they were read, as `FileIdentity` has them."""
    columns: tuple[WindowColumn, ...]
    count: int
    """Rows of the whole file."""
    cells: list[Cells]

    @classmethod
    def of(cls, told: bytes) -> FirstRows | None:
        """As `read` tells it; None where that is not whole."""
        try:
            found = orjson.loads(told)
            size, mtime_ns, inode = found["file"]
            columns = tuple(WindowColumn(name, kind) for name, kind in found["columns"])
            return cls((size, mtime_ns, inode), columns, found["count"], [tuple(cells) for cells in found["cells"]])
        except (ValueError, KeyError, TypeError):
            return None

    @staticmethod
    def read(workspace: Workspace, name: str, side: str) -> bytes:
        """The first rows of a dataset as JSON; empty where its file is none of which all is known at once."""
        from workbench.dataset_window_parquet import ParquetWindow

        subject = find_subject(workspace, name, side)
        if subject.file_kind.format != "parquet":
            return b""
        now = identity_of(subject.path)
        window = open_window(subject.path, subject.file_kind)
        if not isinstance(window, ParquetWindow) or window.note:
            return b""
        columns = [(column.name, column.type) for column in window.columns]
        cells = window.rows(0, BLOCK_ROWS)
        now.require()
        file = (now.bytes, now.mtime_ns, now.inode)
        return orjson.dumps({"file": file, "columns": columns, "count": window.rows_so_far, "cells": cells})


class LateWindow(RowWindow):
    """The rows of a Parquet file of which the first are known."""

    def __init__(self, path: Path, kind: FileKind, first: FirstRows) -> None:
        self.path = path
        self.columns = first.columns
        self._kind, self._first = kind, first
        self._opening = threading.Lock()
        self._window: RowWindow | None = None
        self._closed = False
        self._not_before = time.monotonic() + FRAME_S

    @property
    def rows_so_far(self) -> int:
        return self._first.count

    def rows(self, start: int, count: int) -> list[Cells]:
        end = min(start + count, self._first.count)
        if self._window is None and start >= 0 and end <= len(self._first.cells):
            return self._first.cells[start:end]
        return self._opened().rows(start, count)

    def whole_rows(self, start: int, count: int) -> Any:
        return self._opened().whole_rows(start, count)

    def rows_at(self, numbers: Sequence[int]) -> list[Cells]:
        return self._opened().rows_at(numbers)

    def row(self, number: int) -> dict[str, Any]:
        return self._opened().row(number)

    def matching(self, text: str, should_stop: Callable[[], bool] = lambda: False) -> Generator[Hits, None, None]:
        yield from self._opened().matching(text, should_stop)

    def rows_of(self, query: RowQuery, should_stop: Callable[[], bool] = lambda: False) -> Generator[Hits, None, None]:
        yield from self._opened().rows_of(query, should_stop)

    def speed_up(self) -> bool:
        threading.Thread(target=self._open_to_speed_up, name="late window").start()
        return True

    def close(self) -> None:
        self._closed = True
        # Who leaves a screen does not wait for what is being opened: that is closed by who opens it.
        if self._opening.acquire(blocking=False):
            try:
                if self._window is not None:
                    self._window.close()
            finally:
                self._opening.release()

    def _open_to_speed_up(self) -> None:
        with suppress(WorkbenchError, OSError):  # who asks for a row gets the same error, and can be told
            self._opened().speed_up()

    def _opened(self) -> RowWindow:
        with self._opening:
            if self._window is None:
                self._window = self._open()
            window = self._window
        if self._closed:
            window.close()
        return window

    def _open(self) -> RowWindow:
        time.sleep(max(0.0, self._not_before - time.monotonic()))
        if self._closed:
            raise UnreadableData(f"{self.path} was closed before it was opened.")
        window = open_window(self.path, self._kind)
        try:
            FileIdentity(self.path, *self._first.file).require()
        except WorkbenchError:
            window.close()
            raise
        return window
