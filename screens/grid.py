"""A table of any size: the rows that are looked at are read in a thread, and nothing else is held.

Owns the cursor, the columns on the screen, and a small store of row windows that were read last. A row that is not read
yet shows as "…" and is painted when it comes. Invariants: a row on the screen is the row of that number; only changed
lines are drawn again; every cell is cut to its column and safe. Refuses to know what a row means.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from screens.grid_arrangement import ARRANGING, Arrangement
from screens.grid_lines import GridLines, Look
from screens.narrow_updates import draw_now
from workbench.dataset_window import BLOCK_ROWS, Cells, RowWindow
from workbench.errors import WorkbenchError

HELD_BLOCKS = 64


class Grid(ScrollView, can_focus=True):
    """Rows of a window with a cursor on one cell; `show_only` keeps some of the rows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", "down", show=False, id="grid.down", tooltip="The next row."),
        Binding("k,up", "move(-1)", "up", show=False, id="grid.up", tooltip="The row before."),
        Binding("l,right", "column(1)", "right", show=False, id="grid.right", tooltip="The next column."),
        Binding("h,left", "column(-1)", "left", show=False, id="grid.left", tooltip="The column before."),
        Binding("ctrl+d,pagedown", "page(1)", "page down", show=False, id="grid.page_down", tooltip="A page down."),
        Binding("ctrl+u,pageup", "page(-1)", "page up", show=False, id="grid.page_up", tooltip="A page up."),
        Binding("g,home", "edge(-1)", "first", show=False, id="grid.first", tooltip="The first row."),
        Binding("G,end", "edge(1)", "last", show=False, id="grid.last", tooltip="The last row."),
        *ARRANGING,
        Binding("enter", "open", "read row", id="grid.open", tooltip="Read the row under the cursor."),
    ]  # fmt: skip
    COMPONENT_CLASSES: ClassVar[set[str]] = {"grid--title", "grid--number", "grid--cursor", "grid--cell", "grid--null"}
    DEFAULT_CSS = """
    Grid { height: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size: 1 1; scrollbar-gutter: stable; }
    Grid > .grid--title { color: $primary; text-style: bold; }
    Grid > .grid--number { color: $text-muted; }
    Grid > .grid--null { color: $text-muted; }
    Grid > .grid--cursor { background: $panel; }
    Grid > .grid--cell { background: $primary 30%; text-style: bold; }
    """

    class Moved(Message):
        """The cursor is on another row or column."""

        def __init__(self, grid: Grid) -> None:
            super().__init__()
            self.grid = grid

    class Opened(Moved):
        """Enter was pressed on a row, or it was clicked twice."""

    class Failed(Message):
        """Rows could not be read."""

        def __init__(self, error: Exception) -> None:
            super().__init__()
            self.error = error

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._window: RowWindow | None = None
        self._only: Sequence[int] | None = None
        self._empty = ""
        self._total = 0
        self._blocks: OrderedDict[int, list[Cells]] = OrderedDict()
        self._wanted: list[int] = []
        self._reading = False
        self._generation = 0
        """Counts what is shown; an answer for an earlier one is dropped."""
        self._arranged = Arrangement()
        self._cursor = 0
        self._column = 0
        self._first_column = 0
        self._direction = 1
        self._failure = ""
        self._lines: GridLines | None = None
        """Of the lines that were drawn last."""

    # What it shows.

    @property
    def cursor(self) -> int:
        """The place of the cursor among the rows that are shown."""
        return self._cursor

    @property
    def row_number(self) -> int | None:
        """The number of the row under the cursor in its file, from 0; None where there is no row."""
        return self._number(self._cursor) if self._cursor < self._total else None

    @property
    def column_name(self) -> str:
        """The column under the cursor."""
        return self._arranged.column(self._column).name if self._arranged.order else ""

    @property
    def total(self) -> int:
        """How many rows are shown."""
        return self._total

    @property
    def waiting(self) -> bool:
        """Whether rows are still being read."""
        return self._reading

    def show(self, window: RowWindow, first: list[Cells], *, empty: str = "no rows") -> None:
        """Show the rows of `window`, of which `first` are read already; the cursor goes to the first row."""
        self._window, self._only, self._empty = window, None, empty
        self._column = self._first_column = 0
        self._arranged = Arrangement(window.columns, first)
        self._begin(window.rows_so_far)
        if len(first) >= min(BLOCK_ROWS, self._total):
            self._blocks[0] = first[:BLOCK_ROWS]
        self._lay_out()

    def show_only(self, numbers: Sequence[int] | None, *, empty: str = "no rows") -> None:
        """Show the rows of these numbers alone; None shows all again, with the cursor on the row where it was."""
        if self._window is None or (numbers is None and self._only is None):
            return
        here = self.row_number
        self._only, self._empty = numbers, empty
        self._begin(len(numbers) if numbers is not None else self._window.rows_so_far)
        if numbers is None and here is not None:
            self._place(here)

    def grow(self) -> None:
        """Take in rows that were found since: the window knows more, or more numbers are in the list of `show_only`."""
        if self._window is None:
            return
        total = self._window.rows_so_far if self._only is None else len(self._only)
        if total != self._total:
            self._total = total  # a block that has grown is read again, and what was read of it stays on the screen
            self._lay_out()

    def move_to(self, place: int) -> None:
        """Put the cursor on the row at `place`."""
        self._place(place)

    # Keys.

    def action_move(self, by: int) -> None:
        self._place(self._cursor + by)

    def action_page(self, by: int) -> None:
        self._place(self._cursor + by * max(1, self._room - 1), page=by)
        draw_now(self.screen, self, self.vertical_scrollbar)

    def action_edge(self, end: int) -> None:
        self._place(self._total - 1 if end > 0 else 0)

    def action_column(self, by: int) -> None:
        place = max(0, min(self._column + by, len(self._arranged.order) - 1))
        if place == self._column or not self._arranged.order:
            return
        self._column = place
        first = self._first_column
        self._reveal_column()
        if first != self._first_column:
            self.refresh()
        else:
            self._refresh_row(self._cursor)
            self.refresh(Region(0, 0, self.size.width, 1))
        self.post_message(self.Moved(self))

    def action_arrange(self, what: str, by: int = 0) -> None:
        """Hide, move, freeze, widen or reset: the column under the cursor is what it is about."""
        arranged = self._arranged
        if arranged.order:
            change = getattr(arranged, what)
            self._column = change(self._column, by) if by else change(self._column)
            self._lay_out()
            self.post_message(self.Moved(self))

    def action_open(self) -> None:
        if self._total:
            self.post_message(self.Opened(self))

    def on_resize(self, event: Resize) -> None:
        self._lay_out()
        self._reveal()

    def on_click(self, event: Click) -> None:
        place = self.scroll_offset.y + event.y - 1
        if event.y > 0 and 0 <= place < self._total:
            self._place(place)
            if event.chain > 1:
                self.action_open()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._direction = 1 if new_value >= old_value else -1
        self._want_what_is_seen()

    # How it is drawn.

    def render_lines(self, crop: Region) -> list[Strip]:
        width = self.scrollable_content_region.width
        beneath = self.background_colors[1], tuple(self.get_line_filters())
        look = Look(self._first_column, self._column, self._gutter, width, *beneath)
        if self._lines is None or self._lines.look != look:
            self._lines = GridLines(self, self._arranged, look)
        lines = [self._line(self._lines, y) for y in crop.line_range]
        if crop.right > width:  # where the scroll bar is
            lines = [line.extend_cell_length(crop.right, self.rich_style) for line in lines]
        return [line.crop(crop.x, crop.right) for line in lines]

    def notify_style_update(self) -> None:
        self._lines = None
        super().notify_style_update()

    def _line(self, lines: GridLines, y: int) -> Strip:
        if self._window is None:
            return lines.blank("")
        if y == 0:
            return lines.titles()
        place = y - 1 + self.scroll_offset.y
        if place >= self._total:
            return lines.blank(" " + (self._failure or self._empty) if place == 0 else "")
        return lines.row(self._number(place), self._cells(place), place == self._cursor)

    @property
    def _room(self) -> int:
        return max(1, self.scrollable_content_region.height - 1)

    @property
    def _gutter(self) -> int:
        """Cells of the row numbers, with the mark of the cursor before them."""
        largest = self._window.rows_so_far if self._window else 0
        return len(f"{max(largest, 999):,}") + 2

    # Where things are.

    def _number(self, place: int) -> int:
        return place if self._only is None else self._only[place]

    def _begin(self, total: int) -> None:
        self._generation += 1
        self._blocks.clear()
        self._wanted.clear()
        self._total = total
        self._failure = ""
        self._cursor = 0
        self._lay_out()
        self.scroll_to(y=0, animate=False, immediate=True, force=True)
        self.refresh()

    def _lay_out(self) -> None:
        self._lines = None
        width = self.scrollable_content_region.width
        self._arranged.lay_out(width - self._gutter)
        self.virtual_size = Size(max(1, width), self._total + 1)
        self._reveal_column()
        self.refresh()
        self._want_what_is_seen()

    def _reveal_column(self) -> None:
        room = self.scrollable_content_region.width - self._gutter
        self._first_column = self._arranged.first_to_show(self._first_column, self._column, room)

    def _place(self, place: int, page: int = 0) -> None:
        place = max(0, min(place, self._total - 1))
        if place == self._cursor or not self._total:
            return
        before, self._cursor = self._cursor, place
        if not self._reveal(page):
            self._refresh_row(before)
            self._refresh_row(place)
        self.post_message(self.Moved(self))

    def _reveal(self, page: int = 0) -> bool:
        """Scroll so that the cursor can be seen, by a whole page where one was asked; whether anything was scrolled."""
        top = self.scroll_offset.y
        wanted = top + page * max(1, self._room - 1)
        wanted = max(0, min(wanted, self._total - self._room))
        wanted = min(max(wanted, self._cursor - self._room + 1), self._cursor)
        if wanted == top:
            return False
        self.scroll_to(y=wanted, animate=False, immediate=True, force=True)
        self.refresh()
        return True

    def _refresh_row(self, place: int) -> None:
        y = place + 1 - self.scroll_offset.y
        if 1 <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    # Reading.

    def _cells(self, place: int) -> Cells | None:
        block = self._blocks.get(place // BLOCK_ROWS)
        within = place % BLOCK_ROWS
        return block[within] if block is not None and within < len(block) else None

    def _is_read(self, block: int) -> bool:
        return len(self._blocks.get(block, ())) >= min(BLOCK_ROWS, self._total - block * BLOCK_ROWS)

    def _want_what_is_seen(self) -> None:
        """Ask for the blocks on the screen, and the next one in the direction of travel."""
        if self._window is None or not self._total:
            return
        first = self.scroll_offset.y // BLOCK_ROWS
        last = min(self.scroll_offset.y + self._room - 1, self._total - 1) // BLOCK_ROWS
        ahead = last + 1 if self._direction > 0 else first - 1
        wanted = [*range(first, last + 1), ahead]
        for block in wanted:
            if block in self._blocks:
                self._blocks.move_to_end(block)
        most = (self._total - 1) // BLOCK_ROWS
        # What is seen comes first; what was asked for before and is not seen any more is not read.
        self._wanted = [block for block in wanted if 0 <= block <= most and not self._is_read(block)]
        if self._wanted and not self._reading:
            self._reading = True
            self.run_worker(self._read_wanted, exit_on_error=True)  # type: ignore[arg-type]

    async def _read_wanted(self) -> None:
        try:
            while self._wanted and self._window is not None:
                block, generation, total = self._wanted.pop(0), self._generation, self._total
                if self._is_read(block):
                    continue
                try:
                    rows = await asyncio.to_thread(self._read_block, self._window, self._only, block, total)
                except WorkbenchError as error:
                    if generation != self._generation:
                        continue  # of rows that are not shown any more
                    self._wanted.clear()
                    self.post_message(self.Failed(error))
                    return
                if generation == self._generation:
                    self._keep(block, rows)
                    if total != self._total and not self._is_read(block):
                        self._wanted.append(block)  # it was the last one, and has grown since
        finally:
            self._reading = False

    def _keep(self, block: int, rows: list[Cells]) -> None:
        self._blocks[block] = rows
        while len(self._blocks) > HELD_BLOCKS:
            self._blocks.popitem(last=False)
        top = self.scroll_offset.y
        first, last = max(block * BLOCK_ROWS, top), min((block + 1) * BLOCK_ROWS, top + self._room)
        if first < last:
            self.refresh(Region(0, first - top + 1, self.size.width, last - first))

    @staticmethod
    def _read_block(window: RowWindow, only: Sequence[int] | None, block: int, total: int) -> list[Cells]:
        start = block * BLOCK_ROWS
        if only is None:
            return window.rows(start, BLOCK_ROWS)
        return window.rows_at(list(only[start : min(start + BLOCK_ROWS, total)]))
