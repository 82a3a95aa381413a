"""The grid alone: which rows are on the screen, what is read for them, and what is drawn again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from engine.run.safe_text import safe
from screens.grid import Grid
from screens.terminal_door import TerminalDoor
from tests.screens.driving import text_of, until
from workbench.dataset_reading import recognise_file
from workbench.dataset_window import BLOCK_ROWS, Cells, Hits, RowWindow, WindowColumn, open_window
from workbench.errors import UnreadableData

MANY = 2_000_000


DOOR = TerminalDoor()


class GridApp(App[None]):
    """One grid on a screen."""

    def __init__(self, window: RowWindow) -> None:
        super().__init__()
        self.window = window
        self.failures: list[str] = []

    def get_line_filters(self) -> Sequence[Any]:
        return [DOOR]

    def compose(self) -> ComposeResult:
        yield Grid()

    def on_mount(self) -> None:
        grid = self.query_one(Grid)
        grid.show(self.window, self.window.rows(0, BLOCK_ROWS))
        grid.focus()

    def on_grid_failed(self, event: Grid.Failed) -> None:
        self.failures.append(str(event.error))


class HeldRows(RowWindow):
    """Rows in memory, for what no file needs to show; counts what was asked for."""

    def __init__(self, rows: list[Cells], names: Sequence[str] = ("a", "b")) -> None:
        self.columns = tuple(WindowColumn(name, "VARCHAR") for name in names)
        self._held = rows
        self.asked: list[int] = []
        self.slow_s = 0.0
        self.broken = False

    @property
    def rows_so_far(self) -> int:
        return len(self._held)

    def rows(self, start: int, count: int) -> list[Cells]:
        self.asked.append(start)
        time.sleep(self.slow_s)
        if self.broken:
            raise UnreadableData("data.jsonl is not there (any more).")
        return self._held[start : start + count]

    def row(self, number: int) -> dict[str, Any]:
        return dict(zip((column.name for column in self.columns), self._held[number], strict=True))

    def matching(self, text: str, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Hits]:
        yield Hits([], 0)

    def close(self) -> None:
        """Nothing goes on."""


def drive_grid(
    window: RowWindow, script: Callable[[GridApp, Pilot[None]], Awaitable[None]], size: tuple[int, int] = (80, 24)
) -> None:
    async def run() -> None:
        app = GridApp(window)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(asyncio.wait_for(run(), 60))
    window.close()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many") / "many.parquet"
    duckdb.execute(f"COPY (SELECT i AS id, 'text ' || i AS text FROM range({MANY}) t(i)) TO '{path}' (FORMAT parquet)")
    return path


def test_two_million_rows_scroll_to_the_end_and_back(many: Path) -> None:
    async def script(app: GridApp, pilot: Pilot[None]) -> None:
        grid = app.query_one(Grid)
        await pilot.press("G")
        await until(pilot, lambda: "1999999  text 1999999" in text_of(app))
        lines = text_of(app).splitlines()
        assert lines[0].split() == ["▾", "id", "text"]
        assert lines[1].split() == ["1,999,978", "1999977", "text", "1999977"]
        assert lines[23].split() == ["▸2,000,000", "1999999", "text", "1999999"]
        await pilot.press("k", "k")
        assert text_of(app).splitlines()[21].startswith("▸1,999,998")
        await pilot.press("g")
        await until(pilot, lambda: text_of(app).splitlines()[1].split() == ["▸", "1", "0", "text", "0"])
        grid.move_to(1_234_567)
        await until(pilot, lambda: "1234567  text 1234567" in text_of(app))
        assert grid.row_number == 1_234_567

    drive_grid(open_window(many, recognise_file(many)), script)


def test_a_page_moves_by_a_page_and_no_row_is_skipped() -> None:
    window = HeldRows([(f"row {n}", "") for n in range(2 * BLOCK_ROWS)])

    async def script(app: GridApp, pilot: Pilot[None]) -> None:
        seen = set()
        for _ in range(2 * BLOCK_ROWS // 20):
            seen |= {line.split("row ")[1].split()[0] for line in text_of(app).splitlines() if "row " in line}
            await pilot.press("ctrl+d")
            await until(pilot, lambda: "…" not in text_of(app))
        seen |= {line.split("row ")[1].split()[0] for line in text_of(app).splitlines() if "row " in line}
        assert seen == {str(n) for n in range(2 * BLOCK_ROWS)}
        assert app.query_one(Grid).cursor == 2 * BLOCK_ROWS - 1

    drive_grid(window, script)


def test_a_row_that_is_not_read_yet_says_so_and_is_painted_when_it_comes() -> None:
    window = HeldRows([(f"row {n}", "x") for n in range(5000)])

    async def script(app: GridApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: not app.query_one(Grid).waiting)
        window.slow_s = 0.3
        await pilot.press("G")
        assert "▸5,000 …" in text_of(app)
        await until(pilot, lambda: "▸5,000 row 4999" in text_of(app))

    drive_grid(window, script)


def test_only_windows_near_the_cursor_are_read_and_held(monkeypatch: pytest.MonkeyPatch) -> None:
    held_blocks = 8
    monkeypatch.setattr("screens.grid.HELD_BLOCKS", held_blocks)
    window = HeldRows([(str(n), "x") for n in range(BLOCK_ROWS * (held_blocks + 6))])

    async def script(app: GridApp, pilot: Pilot[None]) -> None:
        grid = app.query_one(Grid)
        await until(pilot, lambda: not grid.waiting)
        assert sorted(set(window.asked)) == [0, BLOCK_ROWS]
        for block in range(held_blocks + 6):
            grid.move_to(block * BLOCK_ROWS)
            await until(pilot, lambda: "…" not in text_of(app) and not grid.waiting)
        assert len(grid._blocks) <= held_blocks
        asked = len(window.asked)
        await pilot.press("j", "k", "j")
        assert len(window.asked) == asked

    drive_grid(window, script)


def test_moving_the_cursor_draws_two_lines() -> None:
    window = HeldRows([(f"row {n}", "x") for n in range(100)])

    async def script(app: GridApp, pilot: Pilot[None]) -> None:
        grid = app.query_one(Grid)
        drawn: list[int] = []
        lines = grid._lines
        assert lines is not None
        made = lines._made

        def counted(number: int, *row: Any) -> Any:
            drawn.append(number)
            return made(number, *row)

        lines._made = counted  # type: ignore[method-assign]
        await pilot.press("j")
        await pilot.pause()
        assert grid._lines is lines
        assert sorted(drawn) == [0, 1]

    drive_grid(window, script)


def test_two_hundred_columns_are_reached_one_by_one() -> None:
    names = [f"column {n}" for n in range(200)]
    window = HeldRows([tuple(f"cell {n}" for n in range(200))], names)

    async def script(app: GridApp, pilot: Pilot[None]) -> None:
        grid = app.query_one(Grid)
        for place in range(200):
            assert grid.column_name == f"column {place}"
            if place % 12 == 0:
                assert f"▾column {place}" in text_of(app)
                assert f"cell {place}" in text_of(app)
            grid.action_column(1)
        assert grid.column_name == "column 199"
        for _ in range(198):
            grid.action_column(-1)
        await pilot.press("h", "h")
        assert text_of(app).splitlines()[0].split()[:2] == ["▾column", "0"]

    drive_grid(window, script)


HOSTILE = (
    "\x1b]0;title\x07", "\x1b[2Jgone", "[/nope]", "[red]x[/red]", "a\u202eb\u2066c", "zero\u200bwidth\ufeff", "\x9b31m",
    "tab\tnew\nline\r", "x" * 1_000_000, "日本語" * 40, "👩‍👩‍👧 e\u0301", "\ud800".encode("utf-8", "replace").decode(),
)  # fmt: skip


def test_no_text_of_a_cell_or_a_title_moves_another_or_stays_raw() -> None:
    window = HeldRows([(text, f"end {n}") for n, text in enumerate(HOSTILE)], ("\x1b[31m[/nope]", "b"))

    async def script(app: GridApp, pilot: Pilot[None]) -> None:
        lines = text_of(app).splitlines()
        for number, text in enumerate(HOSTILE):
            line = lines[number + 1]
            assert f"end {number}" in line
            assert safe(text[:3])[:2] in line
            assert all(safe(letter) == letter for letter in line)
        assert "␛[31m[/nope]" in lines[0]

    drive_grid(window, script)


def test_null_looks_unlike_the_empty_text() -> None:
    async def script(app: GridApp, pilot: Pilot[None]) -> None:
        lines = text_of(app).splitlines()
        assert lines[1].split() == ["▸", "1", "∅", "x"]
        assert lines[2].split() == ["2", "x"]

    drive_grid(HeldRows([(None, "x"), ("", "x")]), script)


def test_rows_that_cannot_be_read_are_told_and_the_grid_stays() -> None:
    window = HeldRows([(f"row {n}", "x") for n in range(5000)])

    async def script(app: GridApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: not app.query_one(Grid).waiting)
        window.broken = True
        await pilot.press("G")
        await until(pilot, lambda: bool(app.failures))
        assert "is not there" in app.failures[0]
        await pilot.press("g")
        assert "row 0" in text_of(app)
        window.broken = False
        await pilot.press("G")
        await until(pilot, lambda: "row 4999" in text_of(app))

    drive_grid(window, script)


def test_no_rows_say_so() -> None:
    async def script(app: GridApp, pilot: Pilot[None]) -> None:
        assert text_of(app).splitlines()[1].strip() == "no rows"
        await pilot.press("j", "G", "ctrl+d", "l", "enter")
        assert app.query_one(Grid).row_number is None

    drive_grid(HeldRows([]), script)


def test_a_subset_shows_its_rows_with_their_own_numbers_and_grows() -> None:
    window = HeldRows([(f"row {n}", "x") for n in range(5000)])

    async def script(app: GridApp, pilot: Pilot[None]) -> None:
        grid = app.query_one(Grid)
        numbers = [7, 4000]
        grid.show_only(numbers)
        await until(pilot, lambda: "4,001 row 4000" in text_of(app))
        numbers += range(4001, 4500)
        grid.grow()
        await pilot.press("G")
        await until(pilot, lambda: "▸4,500 row 4499" in text_of(app))
        grid.show_only(None)
        await until(pilot, lambda: "4,479 row 4478" in text_of(app))
        assert "▸4,500 row 4499" in text_of(app)
        await pilot.press("j")
        assert "▸4,501 row 4500" in text_of(app)

    drive_grid(window, script)


def test_resized_while_rows_come() -> None:
    window = HeldRows([(f"row {n}", "x" * 200) for n in range(5000)])

    async def script(app: GridApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: not app.query_one(Grid).waiting)
        window.slow_s = 0.1
        await pilot.press("G")
        await pilot.resize_terminal(160, 48)
        await until(pilot, lambda: "▸5,000 row 4999" in text_of(app).splitlines()[-1])
        await pilot.resize_terminal(40, 10)
        await until(pilot, lambda: "▸5,000 row 4999" in text_of(app))

    drive_grid(window, script)
