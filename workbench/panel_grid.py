"""How many panels of curves fit into a screen, a terminal or a picture, and how they stand.

Owns the arithmetic alone. Invariant: the grid depends on the room and the number of panels, never on what is in them.
"""

from __future__ import annotations

MOST = 16
LEAST_WIDTH, LEAST_HEIGHT = 39, 7
MOST_COLUMNS = 3
GOOD_HEIGHT = 12


def grid_of(panels: int, width: int, height: int) -> tuple[int, int]:
    """Columns and rows for so many panels, in so much room; fewer, larger panels where there is room to spare."""
    columns = max(1, min(MOST_COLUMNS, width // LEAST_WIDTH))
    rows = max(1, height // LEAST_HEIGHT)
    if columns == 1 and rows == 1 and height >= 12:
        rows = 2
    if rows > 2:
        rows = max(2, height // GOOD_HEIGHT)
    while columns > 1 and panels <= (columns - 1) * rows:
        columns -= 1
    return columns, max(1, min(rows, -(-panels // columns), MOST // columns))


def shares(length: int, parts: int) -> list[int]:
    """A length in so many whole parts that differ by one at most, the larger ones last."""
    return [(place + 1) * length // parts - place * length // parts for place in range(parts)]
