"""A list of short rows in columns with a cursor: datasets, runs, pair sets, models, what to do next.

Owns layout, cursor, scrolling and the filter of a list that fits in memory (a few thousand rows); a table of any size
is `grid`'s. Each row has a key that says what it stands for; the cursor stays on its key when the rows are replaced.
Invariant: only changed lines are drawn again; every cell is cut to its column and safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.run.safe_text import safe
from workbench.text_wrapping import cut, fit

GAP = 2
LONGEST_CELL = 400
WAITING = "looking …"


@dataclass(frozen=True)
class Column:
    """One column of a list."""

    title: str
    right: bool = False
    """Numbers are set to the right."""
    flexible: bool = False
    """Takes the room the others leave, and is the first to be cut."""
    longest: int = 40
    """Cells, unless flexible."""
    drop: int = 0
    """Where there is no room the column with the highest number above 0 is left out first."""


@dataclass(frozen=True)
class Row:
    """One row of a list."""

    key: str
    """What it stands for; unique in the list."""
    cells: tuple[str, ...]
    tone: str = ""
    """"", "good", "bad", "busy" or "faint": repeats by colour what a cell says in words."""


class RowList(ScrollView, can_focus=True):
    """Rows with a cursor. j/k, arrows, g/G, ctrl+d/ctrl+u move it; Enter opens, Space selects."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", "down", show=False, id="list.down", tooltip="The next row."),
        Binding("k,up", "move(-1)", "up", show=False, id="list.up", tooltip="The row before."),
        Binding("ctrl+d,pagedown", "page(1)", "page down", show=False, id="list.page_down", tooltip="A page down."),
        Binding("ctrl+u,pageup", "page(-1)", "page up", show=False, id="list.page_up", tooltip="A page up."),
        Binding("g,home", "edge(-1)", "first", show=False, id="list.first", tooltip="The first row."),
        Binding("G,end", "edge(1)", "last", show=False, id="list.last", tooltip="The last row."),
        Binding("enter", "open", "open", show=False, id="list.open", tooltip="Open the row under the cursor."),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "row-list--title",
        "row-list--cursor",
        "row-list--good",
        "row-list--bad",
        "row-list--busy",
        "row-list--faint",
    }
    DEFAULT_CSS = """
    RowList { height: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size: 1 1; scrollbar-gutter: stable; }
    RowList > .row-list--title { color: $text-muted; }
    RowList > .row-list--cursor { background: $panel; text-style: bold; }
    RowList:focus > .row-list--cursor { background: $primary-muted; text-style: bold; }
    RowList > .row-list--good { color: $success; }
    RowList > .row-list--bad { color: $error; }
    RowList > .row-list--busy { color: $accent; }
    RowList > .row-list--faint { color: $text-muted; }
    """

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, rows: RowList, key: str) -> None:
            super().__init__()
            self.rows = rows
            self.key = key

        @property
        def control(self) -> RowList:
            return self.rows

    class Opened(Moved):
        """Enter was pressed on a row, or it was clicked twice."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        empty: str,
        titles: bool = True,
        waits: bool = False,
        id: str | None = None,
    ) -> None:
        """`empty` is what the list says when there is nothing in it: what is missing and the key that makes it.

        One that `waits` does not say so before its rows were read.
        """
        super().__init__(id=id)
        self._columns = tuple(columns)
        self._empty = empty
        self._titles = titles
        self._waits = waits
        self._all: tuple[Row, ...] = ()
        self._rows: tuple[Row, ...] = ()
        self._widths: tuple[int, ...] = ()
        self._fitted = 0
        """The room that these are for."""
        self._filter = ""
        self._cursor = 0

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows that pass the filter."""
        return self._rows

    @property
    def key(self) -> str:
        """The key under the cursor; empty where there are no rows."""
        return self._rows[self._cursor].key if self._rows else ""

    def show(self, rows: Sequence[Row]) -> None:
        """Replace the rows. The cursor stays on its key, or where it was."""
        if self._waits or tuple(rows) != self._all:
            self._waits = False
            self._all = tuple(rows)
            self._refilter()

    def filter(self, text: str) -> None:
        """Keep the rows in which some cell contains `text`, whatever its case; the empty text keeps all."""
        if text != self._filter:
            self._filter = text
            self._refilter()

    def move_to(self, key: str) -> None:
        """Put the cursor on a key, where it is in the list."""
        for place, row in enumerate(self._rows):
            if row.key == key:
                self._place(place)
                return

    def action_move(self, by: int) -> None:
        self._place(self._cursor + by)

    def action_page(self, by: int) -> None:
        self._place(self._cursor + by * max(1, self._room - 1))

    def action_edge(self, end: int) -> None:
        self._place(len(self._rows) if end > 0 else 0)

    def action_open(self) -> None:
        if self._rows:
            self.post_message(self.Opened(self, self.key))

    def on_resize(self, event: Resize) -> None:
        self._measure()
        self._reveal()
        self.refresh()

    def on_click(self, event: Click) -> None:
        place = self.scroll_offset.y + event.y - (1 if self._titles else 0)
        if 0 <= place < len(self._rows):
            self._place(place)
            if event.chain > 1:
                self.action_open()

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if width - 1 != self._fitted:  # it was filled while it was hidden, and is drawn before it hears of its size
            self._fit(width - 1)
        if self._titles and y == 0:
            cells = [column.title for column in self._columns]
            return Strip([Segment(self._laid_out(cells), self.get_component_rich_style("row-list--title"))], width)
        place = y + self.scroll_offset.y - (1 if self._titles else 0)
        if not self._rows and place == 0:
            nothing = "nothing here matches the filter" if self._filter and self._all else self._empty
            nothing = WAITING if self._waits else nothing
            return Strip([Segment(fit(" " + cut(nothing, width - 1), width), self._tone("faint"))], width)
        if not 0 <= place < len(self._rows):
            return Strip.blank(width, self.rich_style)
        row = self._rows[place]
        style = self._tone(row.tone)
        if place == self._cursor:
            style += self.get_component_rich_style("row-list--cursor", partial=True)
        return Strip([Segment(self._laid_out(row.cells, self._mark(place)), style)], width)

    @property
    def _room(self) -> int:
        return max(1, self.scrollable_content_region.height - (1 if self._titles else 0))

    def _mark(self, place: int) -> str:
        if place != self._cursor:
            return " "
        return "▸" if self.has_focus else "›"

    def _tone(self, tone: str) -> Style:
        return self.get_component_rich_style(f"row-list--{tone}") if tone else self.rich_style

    def _laid_out(self, cells: Sequence[str], mark: str = " ") -> str:
        parts = []
        for column, cell, width in zip(self._columns, cells, self._widths, strict=False):
            if width:
                text = cut(cell, width)
                parts.append(" " * (width - cell_len(text)) + text if column.right else fit(text, width))
        return fit(mark + (" " * GAP).join(parts), self.scrollable_content_region.width)

    def _refilter(self) -> None:
        before, place = self.key, self._cursor
        wanted = self._filter.casefold()
        self._rows = tuple(
            row for row in self._all if not wanted or any(wanted in cell.casefold() for cell in row.cells)
        )
        keys = [row.key for row in self._rows]
        self._cursor = keys.index(before) if before in keys else max(0, min(place, len(keys) - 1))
        self._measure()
        self._reveal()
        self.refresh()
        if self.key != before:
            self.post_message(self.Moved(self, self.key))

    def _measure(self) -> None:
        """Lay out for the content and the room that there are now."""
        room = self.scrollable_content_region.width - 1
        self._fit(room)
        self.virtual_size = Size(room + 1, len(self._rows) + (1 if self._titles else 0))

    def _fit(self, room: int) -> None:
        """Column widths by content; the flexible one gets the rest; columns are dropped where that is too little."""
        wanted = [
            min(
                column.longest,
                max([cell_len(column.title), *(cell_len(safe(row.cells[i][:LONGEST_CELL])) for row in self._rows)]),
            )
            for i, column in enumerate(self._columns)
        ]
        widths = [0 if column.flexible else width for column, width in zip(self._columns, wanted, strict=True)]
        flexible = [i for i, column in enumerate(self._columns) if column.flexible]
        least = sum(min(wanted[i], 12) for i in flexible)
        droppable = sorted((c.drop, i) for i, c in enumerate(self._columns) if c.drop)
        while droppable and sum(widths) + least + GAP * (sum(map(bool, widths)) + len(flexible) - 1) > room:
            widths[droppable.pop()[1]] = 0
        left = room - sum(widths) - GAP * max(0, sum(map(bool, widths)) + len(flexible) - 1)
        for i in flexible:
            widths[i] = max(4, left // len(flexible))
        self._widths, self._fitted = tuple(widths), room

    def _place(self, place: int) -> None:
        place = max(0, min(place, len(self._rows) - 1))
        if place == self._cursor or not self._rows:
            return
        before, self._cursor = self._cursor, place
        if not self._reveal():
            top = (1 if self._titles else 0) - self.scroll_offset.y
            for changed in (before, place):
                self.refresh(Region(0, changed + top, self.size.width, 1))
        self.post_message(self.Moved(self, self.key))

    def _reveal(self) -> bool:
        """Scroll so that the cursor can be seen; whether anything was scrolled."""
        top = self.scroll_offset.y
        wanted = min(max(top, self._cursor - self._room + 1), self._cursor)
        if wanted == top:
            return False
        self.scroll_to(y=wanted, animate=False, immediate=True)
        self.refresh()
        return True
