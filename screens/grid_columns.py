"""How wide the columns of a grid are, told from their names and the first rows.

Owns the rule. Widths do not change while one scrolls, so they leave room for larger numbers in later rows; they do
change with the size of the terminal. Refuses to know which columns are on the screen.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from engine.run.safe_text import safe
from workbench.dataset_window import Cells, WindowColumn

GAP = 2
NULL = "∅"
SHORTEST_COLUMN = 4
_LONGEST_COLUMN = 36
_LEAST_CAP = 16
"""No column takes more than a third of the line while others want room, but for these many cells."""
_LEAST_NUMBER = 8
_LEAST_TEXT = 10
_MEASURED_ROWS = 64
_MEASURED_CHARACTERS = 200


def natural_widths(columns: Sequence[WindowColumn], first_rows: Sequence[Cells]) -> list[int]:
    """Cells that each title and its first rows would like, and some more."""
    return [_natural_width(column, place, first_rows[:_MEASURED_ROWS]) for place, column in enumerate(columns)]


def widths_on_a_line(columns: Sequence[WindowColumn], natural: Sequence[int], room: int) -> list[int]:
    """What each column would like up to a cap; what is left of the line goes to the texts."""
    most = max(_LEAST_CAP, min(_LONGEST_COLUMN, room // 3 - GAP))
    widths = [min(wanted, most) for wanted in natural]
    left = room - sum(widths) - GAP * max(0, len(widths) - 1)
    hungry = [place for place, wanted in enumerate(natural) if wanted > widths[place]]
    while left > 0 and hungry:
        share = max(1, left // len(hungry))
        for place in hungry:
            given = min(share, left, natural[place] - widths[place])
            widths[place] += given
            left -= given
        hungry = [place for place in hungry if natural[place] > widths[place]]
    texts = [place for place, column in enumerate(columns) if not column.is_number]
    for order, place in enumerate(texts if left > 0 else ()):
        widths[place] += left // len(texts) + (order < left % len(texts))
    return widths


def _natural_width(column: WindowColumn, place: int, rows: Sequence[Cells]) -> int:
    texts = [cells[place] or NULL for cells in rows if place < len(cells)]
    longest = max((cell_len(safe(text[:_MEASURED_CHARACTERS])) for text in texts), default=1)
    longest = max(longest + 4, _LEAST_NUMBER) if column.is_number else max(longest + longest // 4, _LEAST_TEXT)
    return max(SHORTEST_COLUMN, longest, cell_len(safe(column.name[:_MEASURED_CHARACTERS])))
