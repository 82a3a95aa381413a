"""Opening the rows of a dataset to look at: what it is, a window on its file, the first rows, the row to begin at.

Owns the order in which that happens. Invariant: where a part of it fails, what was opened before is closed. Refuses to
know how rows are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workbench.dataset_window import BLOCK_ROWS, Cells, RowWindow, open_window
from workbench.dataset_window_late import LateWindow
from workbench.dataset_window_subject import Subject, find_subject
from workbench.row_address import row_at
from workbench.rows_ahead import RowsAhead
from workbench.workspace import Workspace


@dataclass(frozen=True)
class OpenedRows:
    """Rows that can be looked at."""

    subject: Subject
    window: RowWindow
    first: list[Cells]
    """The first BLOCK_ROWS of them, or all."""
    begin: int
    """The row to begin at; -1 where none is meant."""

    def close(self) -> None:
        """End whatever goes on in the background."""
        self.window.close()


def open_rows(
    workspace: Workspace,
    name: str,
    side: str = "train",
    place: str = "",
    check: Callable[[], None] = lambda: None,
    ahead: RowsAhead | None = None,
) -> OpenedRows:
    """Open the dataset or the side of a preference set called `name`; the first one where `name` is empty.

    `place` is the part of a row's address behind its mark, `ahead` what may have read the first rows already. `check`
    is called while something is waited for, and may raise. Raises NotFound, and UnreadableData where the file cannot be
    read.
    """
    subject = find_subject(workspace, name, side)
    first = ahead.take(check) if ahead is not None else None
    path, kind = subject.path, subject.file_kind
    window = LateWindow(path, kind, first) if first is not None else open_window(path, kind)
    try:
        begin = row_at(window, place, check)
        return OpenedRows(subject, window, window.rows(0, BLOCK_ROWS), begin)
    except BaseException:
        window.close()
        raise
