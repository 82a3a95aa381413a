"""The first rows of a Parquet dataset, read by a fork of this process while it imports what it draws with.

Importing DuckDB and its first reading take as long as Textual does; side by side the rows are on the screen with the
first frame. Owns the fork and what it tells: one line of JSON with the columns, how many rows there are, and the first.
Invariants: the fork draws nothing, opens nothing of the terminal and ends by itself; where it finds anything unusual,
or fails, it tells nothing, and the file is opened as ever. Who forks has one thread, and no library of native code.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.dataset_window_late import FirstRows

_LOOK_EVERY_S = 0.02
_CHUNK_BYTES = 1 << 20


class RowsAhead:
    """First rows on their way."""

    def __init__(self, workspace: Workspace, address: str) -> None:
        """Begins at once. `address` is the name of a dataset or a preference set, with or without a row."""
        self.address = address
        end, begin = os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(end)  # else it would wait for a reader that has died: itself
            _tell_and_end(workspace, address, begin)
        os.close(begin)
        self._pipe: int | None = end

    def take(self, check: Callable[[], None] = lambda: None) -> FirstRows | None:
        """What was read, once; None where nothing was. Where `check` raises while it waits, nothing will be."""
        parts = []
        try:
            while self._pipe is not None:
                check()
                if select.select([self._pipe], [], [], _LOOK_EVERY_S)[0]:
                    if not (part := os.read(self._pipe, _CHUNK_BYTES)):
                        break
                    parts.append(part)
        finally:
            self.give_up()
        from workbench.dataset_window_late import FirstRows

        return FirstRows.of(b"".join(parts)) if parts else None

    def give_up(self) -> None:
        """It is taken, or not wanted: the fork ends, whatever it does."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._child, signal.SIGKILL)
                os.waitpid(self._child, 0)


def _tell_and_end(workspace: Workspace, address: str, pipe: int) -> None:
    """In the fork: never returns."""
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        from workbench.dataset_window_late import FirstRows
        from workbench.row_address import ROW_MARK, side_of

        name, _, place = address.partition(ROW_MARK)
        told = FirstRows.read(workspace, name, side_of(place))
        while told:
            told = told[os.write(pipe, told) :]
    finally:
        os._exit(0)
