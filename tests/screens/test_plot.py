"""The plot: pictures at small sizes, spikes that show at any width, and cells that are sent only when they changed."""

from __future__ import annotations

import asyncio
import math
import os
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.strip import Strip

from screens.narrow_updates import NarrowUpdate
from screens.plot_widget import Plot
from tests.screens.driving import GOLDENS
from workbench.curve_panels import Panel, Reference, Trace, panels_of
from workbench.curves import Event, Points
from workbench.panel_grid import grid_of
from workbench.plot_canvas import FAINT, LINE, Canvas
from workbench.plot_rows import PlotRow, changed_spans
from workbench.plot_scene import Scene

LOSS = Panel(
    "loss", (Trace("loss", "train"), Trace("eval_loss", "eval", "points")), "nats",
    references=(Reference(math.log(2), "ln 2"),),
)  # fmt: skip


def points(values: list[float], every: int = 1, first: int = 0) -> Points:
    return Points(array("q", range(first, first + len(values) * every, every)), array("d", values))


class Stage(App[None]):
    """One plot and nothing else."""

    def __init__(self, plot: Plot) -> None:
        super().__init__()
        self.plot = plot

    def compose(self) -> ComposeResult:
        yield self.plot


def on_stage(act: Callable[[Plot], None], size: tuple[int, int] = (40, 10), *, plain: bool = False) -> Plot:
    plot = Plot(plain=plain)

    async def run() -> None:
        async with Stage(plot).run_test(size=size) as pilot:
            await pilot.pause()
            act(plot)
            await pilot.pause()

    asyncio.run(asyncio.wait_for(run(), 30))
    return plot


def picture(scene: Scene, metrics: dict[str, Points], size: tuple[int, int] = (40, 10), *, plain: bool = False) -> str:
    return on_stage(lambda plot: plot.show(scene, metrics), size, plain=plain).text


def check(name: str, found: str) -> None:
    path = Path(GOLDENS) / f"plot-{name}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        path.write_text(found + "\n", "utf-8")
    assert path.exists(), f"{path.name} is missing; write it with UPDATE_GOLDENS=1 and read it"
    assert found + "\n" == path.read_text("utf-8"), found


FALLING = [0.2 + 0.5 * math.exp(-step / 20) + 0.02 * math.sin(step * 1.7) for step in range(100)]
SCENE = Scene(LOSS, 0, 128, (Event(40, "checkpoint"), Event(80, "resumed")))


class TestPictures:
    @pytest.mark.parametrize("size", [(40, 10), (24, 6), (80, 20)])
    def test_train_and_held_out(self, size: tuple[int, int]) -> None:
        metrics = {"loss": points(FALLING), "eval_loss": points([0.7, 0.45, 0.3, 0.25], 25)}
        check(f"loss.{size[0]}x{size[1]}", picture(SCENE, metrics, size))

    def test_in_ascii(self) -> None:
        metrics = {"loss": points(FALLING), "eval_loss": points([0.7, 0.45, 0.3, 0.25], 25)}
        found = picture(SCENE, metrics, plain=True)
        check("ascii", found)
        assert not set("".join(found.split())) & {chr(code) for code in range(0x2800, 0x2900)}

    @pytest.mark.parametrize("plain", [False, True])
    def test_an_alarm_is_marked_over_what_else_happened_there(self, plain: bool) -> None:
        happened = tuple(Event(64, kind) for kind in ("checkpoint", "alarm", "resumed"))
        last = picture(Scene(LOSS, 0, 128, happened), {"loss": points(FALLING)}, plain=plain).splitlines()[-1]
        assert last.count("!") == 1
        assert not set(last) & set("┴▲")

    def test_smoothed_over_raw(self) -> None:
        noisy = [0.5 + 0.4 * ((step * 7919) % 13 / 13 - 0.5) for step in range(400)]
        panel = Panel("loss", (Trace("loss", "train", smooth=True),), "nats")
        check("smoothed", picture(Scene(panel, 0, 512), {"loss": points(noisy)}))

    def test_two_lines_differ_without_colour(self) -> None:
        panel = Panel("rewards", (Trace("a", "chosen"), Trace("b", "rejected", "dashes")), "nats")
        metrics = {"a": points([step / 50 for step in range(60)]), "b": points([-step / 90 for step in range(60)])}
        check("two-lines", picture(Scene(panel, 0, 64), metrics))

    def test_gaps_are_marked(self) -> None:
        values = [1.0] * 20 + [math.nan] * 8 + [2.0] * 20 + [math.inf] + [2.0] * 10
        found = picture(Scene(LOSS, 0, 64), {"loss": points(values)})
        check("gaps", found)
        assert found.splitlines()[-1].count("×") >= 5

    def test_standard_errors_are_bars(self) -> None:
        panel = next(panel for panel in panels_of("dpo", []) if "KL" in panel.title)
        trace = panel.traces[0]
        metrics = {trace.metric: points([0.0, 0.4, 0.9], 30), trace.error: points([0.0, 0.1, 0.3], 30)}
        found = picture(Scene(panel, 0, 64), metrics)
        check("errors", found)
        assert "0.900±0.300" in found

    @pytest.mark.parametrize(
        ("name", "values"),
        [("flat", [3.0] * 30), ("one-point", [0.5]), ("all-nan", [math.nan] * 30), ("nothing", []),
         ("huge", [1e308, -1e308])],
    )  # fmt: skip
    def test_odd_series(self, name: str, values: list[float]) -> None:
        scene = Scene(LOSS, 0, 32, empty="no values yet: first at step 10")
        check(name, picture(scene, {"loss": points(values)}, (36, 7)))

    def test_a_part_without_values_says_so_and_not_that_they_are_to_come(self) -> None:
        scene = Scene(LOSS, 50, 90, empty="no values yet: first at step 0")
        found = picture(scene, {"loss": points([0.5, 0.4])})
        assert "no value in this part" in found
        assert "yet" not in found

    def test_a_logarithmic_axis(self) -> None:
        panel = Panel("learning_rate", (Trace("lr", ""),))
        values = [10 ** (-step / 20) for step in range(100)]
        found = picture(Scene(panel, 0, 100, log=True), {"lr": points(values)})
        check("log", found)
        assert "learning_rate, log" in found

    def test_too_small_says_what_it_is(self) -> None:
        assert picture(SCENE, {"loss": points(FALLING)}, (12, 2)) == "loss"

    def test_a_hostile_name_is_made_visible(self) -> None:
        panel = Panel("\x1b[31m[/nope]\u202e漢字", (Trace("x", ""),))
        found = picture(Scene(panel, 0, 32), {"x": points([1.0, 2.0])})
        assert "␛[31m[/nope]<U+202E>漢字" in found


class TestSpikes:
    @pytest.mark.parametrize("width", [24, 40, 160])
    @pytest.mark.parametrize("at", [0, 31_337, 99_999])
    def test_one_in_a_hundred_thousand_shows(self, width: int, at: int) -> None:
        values = [0.0] * 100_000
        values[at] = 1.0
        panel = Panel("loss", (Trace("loss", "", smooth=True),))
        rows = picture(Scene(panel, 0, 99_999), {"loss": points(values)}, (width, 10)).splitlines()
        assert any(0x2800 < ord(letter) < 0x2900 for letter in rows[1][7:]), "the top of the spike"

    def test_dashes_do_not_hide_one(self) -> None:
        for x in range(12):
            canvas = Canvas(6, 4)
            tops = [15] * 12
            tops[x] = 0
            canvas.curve(tops, [15] * 12, [15] * 12, [15] * 12, [1] * 12, [0] * 12, LINE, gap=3)
            assert canvas.bits[0][x // 2], x

    def test_a_smoothed_curve_takes_no_dot_away(self) -> None:
        canvas = Canvas(1, 1)
        canvas.vertical(0, 0, 3, FAINT)
        canvas.vertical(0, 1, 1, LINE)
        assert canvas.bits[0][0] == 0x47
        assert canvas.tones[0][0] == LINE


def note_refreshes(plot: Plot, regions: list[Region]) -> None:
    """Put every region that is refreshed from now on into a list."""
    refresh = plot.refresh

    def noted(*found: Region, **options: bool) -> Plot:
        regions.extend(found)
        return refresh(*found, **options)

    plot.refresh = noted  # type: ignore[method-assign,assignment]


class TestRepainting:
    def test_a_new_point_refreshes_few_cells(self) -> None:
        regions: list[Region] = []
        loss = points(FALLING[:60])

        def act(plot: Plot) -> None:
            plot.show(SCENE, {"loss": loss})
            note_refreshes(plot, regions)
            plot.show(SCENE, {"loss": loss})
            assert regions == [], "nothing new, nothing sent"
            loss.steps.append(60)
            loss.values.append(0.26)
            plot.show(SCENE, {"loss": loss})

        on_stage(act)
        assert 0 < sum(region.area for region in regions) <= 12

    @pytest.mark.parametrize("last", [128, 100, 20])
    def test_whatever_changes_every_cell_that_differs_is_refreshed(self, last: int) -> None:
        regions: list[Region] = []
        noisy = points([0.5 + 0.4 * ((step * 7919) % 13 / 13 - 0.5) for step in range(100)])
        lines: list[list[str]] = []

        def act(plot: Plot) -> None:
            plot.show(SCENE, {"loss": noisy})
            note_refreshes(plot, regions)
            lines.append(plot.text.splitlines())
            plot.show(Scene(LOSS, 0, last, log=last == 100), {"loss": noisy})
            lines.append(plot.text.splitlines())

        on_stage(act)
        before, after = ([line.ljust(40) for line in some] for some in lines)
        other = {(x, y) for y in range(10) for x in range(40) if before[y][x] != after[y][x]}
        sent = {(x, y) for area in regions for y in area.line_range for x in area.column_range}
        assert other
        assert other <= sent

    def test_what_lies_close_is_one_span(self) -> None:
        old, new = PlotRow(" " * 40, bytes(40)), PlotRow(" x  x" + " " * 30 + "x    ", bytes(40))
        assert changed_spans(old, new, 40) == [(1, 4), (35, 1)]
        assert changed_spans(old, PlotRow(" " * 40, bytes(39) + b"\1"), 40) == [(39, 1)]

    def test_the_axis_stays_while_values_are_within_it(self) -> None:
        axes: list[tuple[float, float]] = []
        loss = points([0.5, 1.0])

        def act(plot: Plot) -> None:
            for step, value in enumerate([0.6, 1.0, 2.0, 2.2, 0.7], 2):
                plot.show(Scene(LOSS, 0, 64, (Event(step, "checkpoint"),)), {"loss": loss})
                assert plot.drawing.scale
                axes.append((plot.drawing.scale.low, plot.drawing.scale.high))
                loss.steps.append(step)
                loss.values.append(value)

        on_stage(act)
        assert axes[0] == axes[1] == axes[2]
        assert axes[2] != axes[3] == axes[4]
        assert axes[3][1] >= 2.2, "with room for what comes next"

    def test_a_flat_beginning_does_not_keep_the_axis_wide(self) -> None:
        loss = points([0.0])

        def act(plot: Plot) -> None:
            plot.show(Scene(LOSS, 0, 64), {"loss": loss})
            loss.steps.append(9)
            loss.values.append(0.07)
            plot.show(Scene(LOSS, 0, 64), {"loss": loss})
            assert plot.drawing.scale
            assert plot.drawing.scale.high < 0.2

        on_stage(act)

    def test_a_changed_past_is_drawn_anew(self) -> None:
        def act(plot: Plot) -> None:
            plot.show(SCENE, {"loss": points(FALLING)})
            plot.show(SCENE, {"loss": points(FALLING[:30])})

        assert on_stage(act).text == picture(SCENE, {"loss": points(FALLING[:30])})


def test_more_room_shows_more_panels() -> None:
    assert grid_of(10, 80, 20) == (2, 2)
    assert grid_of(10, 80, 16) == (2, 2)
    assert grid_of(10, 80, 14) == (2, 2)  # with the guide below and a reason above
    assert grid_of(10, 60, 12) == (1, 2)
    assert grid_of(10, 160, 44) == (3, 3)
    assert grid_of(1, 160, 44) == (1, 1)
    assert grid_of(0, 0, 0) == (1, 1)


def test_pieces_side_by_side_have_one_address() -> None:
    pieces = [(1, 2, Strip([Segment("cd"), Segment("ef")])), (1, 6, Strip([Segment("ghi")])), (1, 10, Strip.blank(1))]
    console = Console(force_terminal=True, color_system=None)
    assert NarrowUpdate(pieces).render_segments(console) == "\x1b[2;3Hcdefghi\x1b[2;11H "


def test_a_style_is_sent_where_it_changes_and_none_is_left() -> None:
    bold, dim = Style(bold=True), Style(dim=True)
    line = Strip([Segment("a", bold), Segment("b", bold), Segment("c", dim), Segment("d")])
    console = Console(force_terminal=True, color_system="256")
    sent = NarrowUpdate([(0, 0, line), (1, 0, line.crop(0, 2))]).render_segments(console)
    assert sent == "\x1b[1;1H\x1b[1mab\x1b[0;2mc\x1b[0md\x1b[2;1H\x1b[1mab\x1b[0m"
