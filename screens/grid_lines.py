"""The lines of a grid: its titles, and rows with the number before them.

Owns how a line is put together, and those that were put together last: styles and filters are looked up once for all.
Invariants: every cell is cut to its column; a line is as wide as was asked for, and what Textual makes of a widget
without border, padding and opacity, which a grid has none of.
"""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter
from textual.strip import Strip
from textual.widget import Widget

from screens.grid_arrangement import Arrangement
from screens.grid_columns import GAP, NULL
from workbench.dataset_window import Cells
from workbench.text_wrapping import cut, fit

MOST_ROWS = 400
"""That are kept as they were drawn."""


class _Pens(NamedTuple):
    """Styles; the last three go over another."""

    base: Style
    title: Style
    cursor: Style
    number: Style
    null: Style
    cell: Style


class Look(NamedTuple):
    """What lines are made for, beside the arrangement of the columns and the styles."""

    first_column: int
    column: int
    """The one under the cursor."""
    gutter: int
    """Cells of the row numbers."""
    width: int
    background: Color
    filters: tuple[LineFilter, ...]


class GridLines:
    """Makes the lines of a grid while its arrangement and its styles stay what they are."""

    def __init__(self, grid: Widget, arranged: Arrangement, look: Look) -> None:
        base = grid.rich_style
        title, cursor, number, null, cell = (
            grid.get_component_rich_style(f"grid--{name}", partial=True)
            for name in ("title", "cursor", "number", "null", "cell")
        )
        self._pens = _Pens(base, base + title, base + cursor, number, null, cell)
        self.look = look
        self._arranged, self._first, self._column = arranged, look.first_column, look.column
        self._gutter, self._width = look.gutter, look.width
        self._rows: dict[tuple[int, bool], tuple[Cells | None, Strip]] = {}

    def blank(self, words: str) -> Strip:
        """A line without a row."""
        return self._strip([Segment(fit(cut(words, self._width), self._width), self._pens.base)])

    def titles(self) -> Strip:
        """The names of the columns."""
        width = self._width
        more = "◂" if self._first > self._arranged.frozen else " "
        text = more + " " * (self._gutter - 2)
        for place, cells in self._shown(width):
            # The mark stands in the gap, so that nothing moves when it does.
            text += ("▾" if place == self._column else " ") + self._cell(
                self._arranged.column(place).name, place, cells
            )
            text += " " * (GAP - 1)
        return self._strip([Segment(fit(text, width), self._pens.title)])

    def row(self, number: int, cells: Cells | None, here: bool) -> Strip:
        """A row with its number; `cells` are None where it is not read yet, `here` where the cursor is on it."""
        known = self._rows.get((number, here))
        if known is None or known[0] is not cells:
            if len(self._rows) >= MOST_ROWS:
                self._rows.clear()
            known = self._rows[number, here] = cells, self._made(number, cells, here)
        return known[1]

    def _made(self, number: int, cells: Cells | None, here: bool) -> Strip:
        pens, gutter, width = self._pens, self._gutter, self._width
        base = pens.cursor if here else pens.base
        segments = [Segment(f"{'▸' if here else ' '}{number + 1:>{gutter - 2},} ", base + pens.number)]
        used = gutter
        for column, wide in self._shown(width):
            of_file = self._arranged.order[column]
            text = "…" if cells is None else cells[of_file] if of_file < len(cells) else None
            style = base
            if text is None:
                text, style = NULL, base + pens.null
            if here and column == self._column:
                style = style + pens.cell
            gap = min(GAP, width - used - wide)
            shown = self._cell(text, column, wide)
            if style is base:
                segments.append(Segment(shown + " " * gap, base))
            else:
                segments += [Segment(shown, style), Segment(" " * gap, base)]
            used += wide + gap
        segments.append(Segment(" " * (width - used), base))
        return self._strip(list(Segment.simplify(segments)))

    def _shown(self, width: int) -> list[tuple[int, int]]:
        """(place, its cells) of the columns on the screen; the last may be cut."""
        return self._arranged.on_line(self._first, width - self._gutter)

    def _cell(self, text: str, column: int, width: int) -> str:
        text = cut(text, width)
        if self._arranged.column(column).is_number:
            return " " * (width - cell_len(text)) + text
        return fit(text, width)

    def _strip(self, segments: list[Segment]) -> Strip:
        for line_filter in self.look.filters:
            segments = line_filter.apply(segments, self.look.background)
        return Strip(segments, self._width)
