"""The rows of a dataset or a preference set: a grid of any size, and one row to read.

Owns what is read when: the file is opened in a thread while the screen draws, the row under the cursor is read where it
is shown, a filter runs while its hits appear. Invariants: the grid shows rows of the open file alone; a file that goes
away is told and the screen stays; every layer (row, filter, screen) is left by one Esc.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Generator, Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input

from screens.grid import Grid
from screens.inspect_reading import HELP, RAW, TOKENS, RowShowing
from screens.leaving import Opening
from screens.narrow_updates import NarrowCompositor
from screens.row_view import RowView
from screens.station import KNOWN_ERRORS, Station
from screens.tasks import Task
from workbench.dataset_window import Hits, RowWindow, cell_of
from workbench.dataset_window_subject import RowReading
from workbench.row_address import ROW_MARK, side_of
from workbench.row_opening import OpenedRows, open_rows
from workbench.text_wrapping import cut

TYPING_S = 0.2
"""A filter starts so long after the last key."""
GROWTH_S = 0.25
SAY_EVERY_S = 0.1
NOTE_WIDTH = 24
"""Cells of the header for what a dataset says of itself."""
MOST_COPIED = 100_000
"""Characters; terminals take about that much of a clipboard sequence."""


class Inspect(Station):
    """Look at rows."""

    NAME = "inspect"
    AUTO_FOCUS = "#grid"
    TITLE = "inspect"
    CSS_PATH = "inspect.tcss"
    HELP = HELP
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "step(1)", "next", id="inspect.next", tooltip="The next row, of those that the filter keeps."),
        Binding("N", "step(-1)", "before", id="inspect.before", tooltip="The row before."),
        Binding("slash", "filter", "filter", id="inspect.filter", tooltip="Keep the rows that contain a text."),
        Binding("s", "sort", "sort", id="inspect.sort", tooltip="Sort by the column; again: the other way round, not."),
        Binding("number_sign", "jump", "row", show=False, key_display="#", id="inspect.jump",
                tooltip="Go to a row by its number."),
        Binding("t", "side", "train/eval", id="inspect.side", tooltip="The other side of a preference set."),
        Binding("r", "raw", "raw", id="inspect.raw", tooltip="The row as JSON, as the file has it."),
        Binding("i", "profile", "profile", show=False, id="inspect.profile", tooltip="What is in it, in numbers."),
        Binding("m", "tokens", "tokens", id="inspect.tokens",
                tooltip="The row as a model sees it: every token, what is trained, what max_length cuts."),
        Binding("o", "tokenizer", "whose tokens", show=False, id="inspect.tokenizer",
                tooltip="Choose the model, max_length and what is trained."),
        Binding("d", "differences", "differences", show=False, id="inspect.differences",
                tooltip="Mark the words that only one of two answers has, or not."),
        Binding("c", "check", "check", id="inspect.check", tooltip="Lint: what is wrong in it, and in which rows."),
        Binding("y", "copy", "copy", id="inspect.copy", tooltip="Copy the cell under the cursor, whole."),
    ]  # fmt: skip

    def __init__(self, subject: str = "") -> None:
        name, _, place = subject.partition(ROW_MARK)
        super().__init__(name)
        self._compositor = NarrowCompositor()
        self._wanted = place
        """The row to begin at, as `lint_rows.row_address` writes it; empty once it was gone to."""
        self._showing = RowShowing(lambda: self.workspace)
        self._row_read: int | None = None
        self._row_busy = False
        self._hits: array[int] | None = None
        self._search = 0
        """Counts searches; one that is not the latest stops."""
        self._searched = ""
        self._typing: Timer | None = None
        self._growth: Timer | None = None
        self._opening: Opening[OpenedRows] = Opening(OpenedRows.close)
        self._rows: OpenedRows | None = None

    def compose_body(self) -> Iterable[Widget]:
        yield Grid(id="grid")
        yield RowView(id="row")

    def on_mount(self) -> None:
        self._open(side_of(self._wanted))

    def on_unmount(self) -> None:
        self._search += 1
        self._opening.leave()
        self._showing.leave()

    @property
    def _grid(self) -> Grid:
        return self.query_one(Grid)

    @property
    def _side(self) -> str:
        """Of a preference set, "train" or "eval"; else empty."""
        return self._rows.subject.side if self._rows is not None else ""

    @property
    def _row_shown(self) -> bool:
        return self.has_class("-reading") or self.size.width >= 100

    # Opening.

    def _open(self, side: str) -> None:
        workspace, name, wanted, self._wanted = self.workspace, self.subject, self._wanted, ""
        ahead = self.workbench_app.rows_ahead(f"{name}{ROW_MARK if wanted else ''}{wanted}")

        def work(task: Task) -> OpenedRows:
            return self._opening.open(lambda: open_rows(workspace, name, side, wanted, task.check, ahead))

        self.start_task(f"opening {name or 'a dataset'}", work, self._opened, failed=self._refused)

    def _opened(self, opened: OpenedRows) -> None:
        before, self._rows = self._rows, opened
        self.subject = self.workbench_app.subjects[self.NAME] = opened.subject.name  # without the row to begin at
        self._row_read = None
        self._end_search()
        self._grid.show(opened.window, opened.first, empty="no rows")
        if opened.begin >= 0:
            self._grid.move_to(opened.begin)
        if before is not None:
            self._opening.close(before)
        self.refresh_bindings()
        if self._growth is not None:
            self._growth.stop()
        self._growth = None if self._grown() else self.set_interval(GROWTH_S, self._grown)
        opened.window.speed_up()
        self.say(opened.subject.warning or opened.window.note, "bad" if opened.subject.warning else "")
        for field in self.query("#filter").results(Input):  # typed while the file was opened
            self._start_search(field.value)
        if opened.begin >= 0:
            self.action_read()
        self._follow()

    def _refused(self, error: BaseException) -> None:
        """The screen says what is wrong as long as it is, not only as long as a toast."""
        self.say(str(error) if isinstance(error, KNOWN_ERRORS) else "", "bad")
        self.complain(error)

    def _grown(self) -> bool:
        """Show what the window knows by now; whether these are all the rows, by the one look that was drawn."""
        if self._rows is None:
            return True
        about, window = self._rows.subject, self._rows.window
        done = window.complete  # before the rows are counted: what ends in between is shown by the next look
        if self._hits is None:
            self._grid.grow()
        if done and self._growth is not None:
            self._growth.stop()
            self._growth = None
        count = window.rows_so_far
        rows = "1 row" if done and count == 1 else f"{count:,}{'' if done else '+'} rows"
        name = about.name + (f" · {about.side}" if about.side else "")
        # What the data is comes before how much of it there is: a narrow header loses its end.
        note = f" · {cut(about.note, NOTE_WIDTH)}" if about.note else ""
        self.say_where(f"{name}{note} · {rows} · {len(window.columns)} columns · {about.shape}")
        if self._hits is None and window.note and not about.warning:
            self.say(window.note)
        return done

    # Reading a row.

    @on(Grid.Moved)
    def _moved(self) -> None:
        self._follow()

    @on(Grid.Opened)
    def _open_row(self) -> None:
        self.action_read()

    @on(Grid.Failed)
    def _failed(self, event: Grid.Failed) -> None:
        self._refused(event.error)

    def on_resize(self, event: Resize) -> None:
        self._follow()

    def action_read(self) -> None:
        if self._grid.row_number is not None:
            self.add_class("-reading")
            self.query_one(RowView).focus()
            self._follow()

    def action_step(self, by: int) -> None:
        self._grid.action_move(by)

    def action_raw(self) -> None:
        self._show_as(RAW)

    def action_tokens(self) -> None:
        self._show_as(TOKENS)

    def action_tokenizer(self) -> None:
        from screens.modals import AskText

        question = "Whose tokens, and under which max_length? A model as --model takes it."
        self.app.push_screen(
            AskText(question, value=str(self._showing.choice), check=self._showing.check), self._tokenizer_chosen
        )

    def _tokenizer_chosen(self, text: str | None) -> None:
        if text:
            self._showing.choose(text)
            self._show_as("")

    def action_differences(self) -> None:
        view = self.query_one(RowView)
        view.mark_differences(not view.marks)

    def _show_as(self, mode: str) -> None:
        if mode:
            self._showing.turn(mode)
        self._row_read = None
        if self._row_shown:
            self._follow()
        else:
            self.action_read()

    def _follow(self) -> None:
        """Read the row under the cursor where it is shown; the latest one, however fast the cursor moves."""
        wanted = self._grid.row_number
        if self._row_shown and not self._row_busy and wanted is not None and wanted != self._row_read:
            self._row_busy = True
            self.run_worker(self._read_rows(), exit_on_error=True)

    async def _read_rows(self) -> None:
        try:
            while (number := self._grid.row_number) is not None and number != self._row_read:
                rows = self._rows
                if rows is None:
                    return
                self._row_read = number
                try:
                    put = await asyncio.to_thread(self._showing.read, rows.window, rows.subject, number)
                except KNOWN_ERRORS as error:
                    self.query_one(RowView).show_row(rows.window.place(number), RowReading(reason=str(error)))
                else:
                    put(self.query_one(RowView))
        finally:
            self._row_busy = False

    # Filter.

    @on(Input.Changed, "#filter")
    def _filter_typed(self, event: Input.Changed) -> None:
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(TYPING_S, lambda: self._start_search(event.value))

    def _leave_filter(self, *, keep: bool) -> None:
        if self._typing is not None:
            self._typing.stop()
        field = self.query_one("#filter", Input)
        if keep:
            self._start_search(field.value)
        else:
            field.remove()
            self._end_search()
        self._grid.focus()

    def _start_search(self, text: str) -> None:
        if self._rows is None or (self._hits is not None and text == self._searched):
            return
        if not text:
            self._end_search()
            return
        self._search += 1
        self._searched = text
        self._hits = array("q")
        self._grid.show_only(self._hits, empty="no row contains it so far")
        self.run_worker(self._find(self._rows.window, text, self._search, self._hits), exit_on_error=True)

    def _end_search(self) -> None:
        self._search += 1
        if self._hits is not None:
            self._hits = None
            self._grid.show_only(None)
            self.say("")
            self._follow()

    async def _find(self, window: RowWindow, text: str, search: int, hits: array[int]) -> None:
        from workbench.row_query import rows_of_query

        found_in = rows_of_query(window, text, lambda: search != self._search)
        try:
            await self._show_hits(found_in, window, search, hits)
        except KNOWN_ERRORS as error:
            self._refused(error)
        # Not where this was cancelled: then a thread is inside, and ends the search itself.
        await asyncio.to_thread(found_in.close)

    async def _show_hits(
        self, found_in: Generator[Hits, None, None], window: RowWindow, search: int, hits: array[int]
    ) -> None:
        from workbench.row_query import next_of

        said, scanned = 0.0, 0
        while search == self._search:
            found = await asyncio.to_thread(next_of, found_in, lambda: search != self._search)
            if search != self._search:
                return
            if found is None:
                self._say_hits(hits, f"of {scanned:,} rows")
                return
            hits.extend(found.numbers)
            scanned = found.scanned
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                self._say_hits(hits, f"searched {scanned:,} of {window.rows_so_far:,} rows; esc ends it")

    def _say_hits(self, hits: array[int], how_far: str) -> None:
        from workbench.row_query import hits_in_words

        self._grid.grow()
        assert self._rows is not None
        self.say(f"{hits_in_words(len(hits), self._searched, self._rows.window.columns)} · {how_far}")
        self._follow()

    # The other keys.

    def action_side(self) -> None:
        if self._side:
            if self.query("#filter"):
                self._leave_filter(keep=False)
            self._open("eval" if self._side == "train" else "train")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "side" and not self._side:
            return False
        return super().check_action(action, parameters)

    def action_profile(self) -> None:
        self.workbench_app.open("profile", self.subject)

    def action_check(self) -> None:
        self.workbench_app.open("lint", self.subject)

    async def action_sort(self) -> None:
        """Add the column under the cursor to the line of the filter, the other way round, or take it away."""
        await self.action_filter()
        field = self.query_one("#filter", Input)
        from workbench.row_query import sorted_by

        field.value = sorted_by(field.value, self._grid.column_name)
        self._leave_filter(keep=bool(field.value))

    def action_jump(self) -> None:
        from screens.modals import AskText

        question = AskText("Go to which row?", check=lambda text: "" if text.isdigit() else "a number, from 1")
        self.app.push_screen(question, self._jump)

    def _jump(self, text: str | None) -> None:
        if text:
            number = int(text) - 1
            places = self._hits if self._hits is not None else range(self._grid.total)
            if number in places:
                self._grid.move_to(places.index(number))
            else:
                self.say(f"row {number + 1:,} is not among those that are shown", "bad")

    def action_copy(self) -> None:
        rows, number, column = self._rows, self._grid.row_number, self._grid.column_name
        if rows is not None and number is not None:
            self.start_task("copying", lambda task: cell_of(rows.window.row(number).get(column)), self._copied)

    def _copied(self, text: str | None) -> None:
        if text is None:
            self.say("the cell has no value; nothing is copied")
            return
        self.app.copy_to_clipboard(text[:MOST_COPIED])
        whole = "" if len(text) <= MOST_COPIED else f", the first of {len(text):,}"
        self.say(f"copied {min(len(text), MOST_COPIED):,} characters of {self._grid.column_name}{whole}", "good")

    def action_back(self) -> None:
        if isinstance(self.focused, Input):
            self._leave_filter(keep=False)
        elif self.has_class("-reading"):
            self.remove_class("-reading")
            self._grid.focus()
        elif self.query("#filter"):
            self._leave_filter(keep=False)
        else:
            super().action_back()
