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

from screens.narrow_updates import NarrowCompositor, NarrowUpdate, _way, draw_now
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


def test_a_change_of_style_says_only_what_differs() -> None:
    grey, bold = "38;5;188;48;5;16", "1;38;5;188;48;5;16"
    assert _way("", grey) == f"\x1b[{grey}m"
    assert _way(grey, "") == "\x1b[0m"
    assert _way(grey, bold) == "\x1b[1m"
    assert _way(bold, grey) == "\x1b[22m"
    assert _way("1;2;38;5;188", "2;38;5;188") == "\x1b[22;2m", "what 22 took off, too, is put on again"
    assert _way(bold, "4;38;2;1;2;3;48;5;16") == "\x1b[22;4;38;2;1;2;3m"
    assert _way("4;31", "41") == "\x1b[0;41m", "all anew where that is shorter"
    assert _way("1;4", "4;1") == ""
    assert _way("97;107", "97") == "\x1b[49m"


def test_the_terminal_is_in_the_same_style_as_if_all_were_told_anew() -> None:
    numbers = random.Random(7)
    colours = ["", "38;5;188", "38;5;7", "38;2;1;2;3", "31", "97", "39"]
    grounds = ["", "48;5;16", "48;2;9;8;7", "41", "107", "49"]
    before, state = "", Sgr()
    for _ in range(500):
        attributes = numbers.sample(["1", "2", "3", "4", "7", "9"], numbers.randint(0, 3))
        after = ";".join(code for code in [*attributes, numbers.choice(colours), numbers.choice(grounds)] if code)
        state.take(_way(before, after).removeprefix("\x1b[").removesuffix("m"))
        anew = Sgr()
        anew.take(f"0;{after}" if after else "0")
        assert state.__dict__ == anew.__dict__, (before, after)
        before = after


class Sgr:
    """What a terminal makes of the numbers that set its style."""

    def __init__(self) -> None:
        self.on: set[str] = set()
        self.foreground = self.background = ""

    def take(self, numbers: str) -> None:
        rest = numbers.split(";") if numbers else []
        while rest:
            code = rest.pop(0)
            if code in ("38", "48"):
                size = 2 if rest[0] == "5" else 4
                code, rest = ";".join([code, *rest[:size]]), rest[size:]
            if code == "0":
                self.__init__()  # type: ignore[misc]
            elif code in ("22", "23", "24", "27", "29"):
                self.on -= {"22": {"1", "2"}, "23": {"3"}, "24": {"4"}, "27": {"7"}, "29": {"9"}}[code]
            elif len(code) == 1:
                self.on.add(code)
            elif code[0] in "39" and not code.startswith("39"):
                self.foreground = code
            elif code == "39":
                self.foreground = ""
            else:
                self.background = "" if code == "49" else code
