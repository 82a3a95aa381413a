"""How the columns of a grid are arranged: their order, which are hidden, which stay at the left, how wide they are.

Owns the arrangement and what of it is on a line. It begins as the file has it; `reset` goes back to that. Invariants:
at least one column is shown; the widths that a person gave stay, whatever the terminal's size. Refuses to know rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.binding import Binding, BindingType

from screens.grid_columns import GAP, SHORTEST_COLUMN, natural_widths, widths_on_a_line
from workbench.dataset_window import Cells, WindowColumn

WIDER = 8
"""Cells by which a key makes a column wider or narrower."""
_WIDEST = 400
ARRANGING: list[BindingType] = [
    Binding("greater_than_sign", f"arrange('widen', {WIDER})", "wider", show=False, id="grid.wider",
            tooltip="Make the column wider."),
    Binding("less_than_sign", f"arrange('widen', -{WIDER})", "narrower", show=False, id="grid.narrower",
            tooltip="Make the column narrower."),
    Binding("minus", "arrange('hide')", "hide column", show=False, id="grid.hide", tooltip="Hide the column."),
    Binding("L,shift+right", "arrange('move', 1)", "column right", show=False, id="grid.column_right",
            tooltip="Move the column to the right."),
    Binding("H,shift+left", "arrange('move', -1)", "column left", show=False, id="grid.column_left",
            tooltip="Move the column to the left."),
    Binding("vertical_line", "arrange('freeze')", "freeze", show=False, key_display="|", id="grid.freeze",
            tooltip="Let the columns up to this one stay at the left; again: none."),
    Binding("equals_sign", "arrange('reset')", "all columns", show=False, id="grid.reset",
            tooltip="All columns again, as the file has them."),
]  # fmt: skip
"""Keys of a grid; the column under the cursor is what they are about."""


class Arrangement:
    """The columns that are shown, by their places from the left."""

    def __init__(self, columns: Sequence[WindowColumn] = (), first_rows: Sequence[Cells] = ()) -> None:
        self._all = tuple(columns)
        self._natural = natural_widths(columns, first_rows)
        self.order = list(range(len(columns)))
        """The column of the file that stands at each place."""
        self.frozen = 0
        """So many places from the left stay where they are."""
        self.widths: list[int] = []
        """Cells of each place, after `lay_out`."""
        self._given: dict[int, int] = {}

    def column(self, place: int) -> WindowColumn:
        """The column at a place."""
        return self._all[self.order[place]]

    @property
    def hidden(self) -> int:
        """How many columns are not shown."""
        return len(self._all) - len(self.order)

    def lay_out(self, room: int) -> None:
        """Give each place its width on a line of `room` cells."""
        shown = [self._all[column] for column in self.order]
        fitted = widths_on_a_line(shown, [self._natural[column] for column in self.order], room)
        self.widths = [self._given.get(column, width) for column, width in zip(self.order, fitted, strict=True)]

    def on_line(self, first: int, room: int) -> list[tuple[int, int]]:
        """(place, its cells) of what is on a line that begins with place `first` behind the frozen ones."""
        found, left = [], room
        for place in [*range(self.frozen), *range(max(first, self.frozen), len(self.widths))]:
            if left < min(SHORTEST_COLUMN, self.widths[place]):
                break
            found.append((place, min(self.widths[place], left)))
            left -= self.widths[place] + GAP
        return found

    def first_to_show(self, first: int, place: int, room: int) -> int:
        """Where the line must begin so that `place` is on it whole, as near to `first` as can be."""
        if place < self.frozen:
            return first
        first = max(self.frozen, min(first, place))
        room -= sum(self.widths[: self.frozen]) + GAP * self.frozen
        while first < place and sum(self.widths[first : place + 1]) + GAP * (place - first) > room:
            first += 1
        return first

    # What a person changes; each returns the place where the cursor belongs then.

    def hide(self, place: int) -> int:
        """Take a column away; the last one stays."""
        if len(self.order) > 1:
            del self.order[place]
            self.frozen -= place < self.frozen
        return min(place, len(self.order) - 1)

    def move(self, place: int, by: int) -> int:
        """Move a column to the left or right."""
        to = max(0, min(place + by, len(self.order) - 1))
        self.order.insert(to, self.order.pop(place))
        return to

    def freeze(self, place: int) -> int:
        """Let the columns up to this one stay at the left; again: none."""
        self.frozen = 0 if self.frozen == place + 1 else place + 1
        return place

    def widen(self, place: int, by: int) -> int:
        """Make a column wider or narrower."""
        self._given[self.order[place]] = max(SHORTEST_COLUMN, min(self.widths[place] + by, _WIDEST))
        return place

    def reset(self, place: int) -> int:
        """All columns again, as the file has them; the cursor stays on its column."""
        here = self.order[place] if self.order else 0
        self.order, self.frozen, self._given = list(range(len(self._all))), 0, {}
        return here
