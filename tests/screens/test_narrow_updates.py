"""Only the cells that were asked for, each as the widget in front draws it."""

from __future__ import annotations

import asyncio
import random

from rich.console import Console
from textual.app import App, ComposeResult
from textual.containers import Horizontal
from textual.geometry import Region
from textual.screen import Screen
from textual.widgets import Static

from screens.narrow_updates import NarrowCompositor, NarrowUpdate, draw_now
from tests.screens.pty_terminal import Drawing

SIZE = (30, 8)


class Plain(Screen[None]):
    CSS = """
    Static { width: 1fr; height: 100%; border: round green; }
    #front { position: absolute; offset: 5 2; width: 12; height: 4; background: blue; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._compositor = NarrowCompositor()

    def compose(self) -> ComposeResult:
        yield Horizontal(Static("first 日本 " * 9, id="first"), Static("second " * 20, id="second"))
        yield Static("in front", id="front")


def test_each_cell_is_what_the_whole_screen_has_there() -> None:
    numbers = random.Random(6)

    async def script() -> None:
        app: App[None] = App()
        async with app.run_test(size=SIZE) as pilot:
            screen = Plain()
            await app.push_screen(screen)
            await pilot.pause()
            whole = screen._compositor.render_strips()
            for _ in range(60):
                regions = [
                    Region(numbers.randrange(30), numbers.randrange(8), numbers.randint(1, 30), numbers.randint(1, 3))
                    for _ in range(numbers.randint(1, 3))
                ]
                screen._compositor._dirty_regions.update(regions)
                update = screen._compositor.render_partial_update()
                assert update is not None
                asked = {
                    (x, y) for one in regions for y in one.line_range for x in one.column_range if x < 30 and y < 8
                }
                sent = [(x + n, y) for y, x, strip in update.pieces for n in range(strip.cell_length)]
                assert set(sent) == asked
                assert len(sent) == len(asked), "no cell twice"
                for y, x, strip in update.pieces:
                    assert list(strip.simplify()) == list(whole[y].crop(x, x + strip.cell_length).simplify())
            assert screen._compositor.render_partial_update() is None

    asyncio.run(script())


def test_what_is_drawn_at_once_is_sent_in_one_frame_and_not_again() -> None:
    async def script() -> None:
        app: App[None] = App()
        async with app.run_test(size=SIZE) as pilot:
            screen = Plain()
            await app.push_screen(screen)
            await pilot.pause()
            frames: list[NarrowUpdate] = []
            app._display = lambda _, update: frames.append(update) if update else None  # type: ignore[method-assign,assignment,func-returns-value]
            first, front = screen.query_one("#first", Static), screen.query_one("#front", Static)
            first.update("one", layout=False)
            front.update("two", layout=False)
            assert draw_now(screen, first, front)
            drawing = Drawing(*SIZE)
            drawing.feed(frames[0].render_segments(Console(width=30)))
            assert "one" in drawing.text
            assert "two" in drawing.text
            await pilot.pause(0.05)
            assert len(frames) == 1
            first.update("a layout must come first", layout=True)
            assert not draw_now(screen, first)
            await pilot.pause(0.05)
            assert len(frames) == 2

    asyncio.run(script())
