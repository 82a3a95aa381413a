"""One row of a dataset as an address, for a screen that opens there: NAME#LINE.ORDINAL, with ".eval" for that side.

Owns how it is written, and finding the row in an open window, which may be reading still.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from workbench.dataset_window import RowWindow

ROW_MARK = "#"
"""No name of a dataset holds it."""
_LOOK_EVERY_S = 0.02


def row_address(name: str, number: int, ordinal: int, side: str = "") -> str:
    """The address of the row with that number and ordinal (`lint_rows.SourceRow`)."""
    return f"{name}{ROW_MARK}{number}.{ordinal}" + (f".{side}" if side else "")


def side_of(place: str) -> str:
    """The side of a preference set that the part behind the mark means."""
    return "eval" if place.endswith(".eval") else "train"


def row_at(window: RowWindow, place: str, check: Callable[[], None]) -> int:
    """The row of the window that the part behind the mark means; waits until it is read.

    -1 where there is none, or nothing is meant. `check` is called while it waits, and may raise.
    """
    parts = place.split(".")
    if len(parts) < 2 or not parts[0].isdigit() or not parts[1].isdigit():
        return -1
    number, ordinal = int(parts[0]), int(parts[1])
    while True:
        complete = window.complete  # before it is looked for: what is read in between is found by the next look
        if (found := window.find(number, ordinal)) >= 0 or complete:
            return found
        check()
        time.sleep(_LOOK_EVERY_S)
