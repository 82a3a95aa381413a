"""Many curves at once are drawn dot for dot as one after the other, and a crosshair draws none of them again."""

from __future__ import annotations

import math
import random
from array import array

import pytest

import workbench.plot_drawing as plot_drawing
from tests.workbench.test_curve_view import line, log_of
from workbench.curve_axes import EPISODES, TIME, AxisView
from workbench.curve_columns import MANY, Columns, fill_together
from workbench.curve_panels import Panel, Reference, Trace
from workbench.curves import Points
from workbench.plot_canvas import RUNS, Canvas
from workbench.plot_drawing import PlotDrawing
from workbench.plot_rows import PlotRow, changed_spans
from workbench.plot_scene import Scene
from workbench.plot_together import Curve, draw_together
from workbench.value_axis import axis

WIDTH, HEIGHT = 46, 12
COUNTS = (2, 9, 60, 700)
PARTS = ("low", "high", "first", "last", "total", "count", "broken", "points", "breaks", "low_at_all", "high_at_all")


def points_of(draw: random.Random, count: int, level: float) -> Points:
    """A curve with jumps, gaps, and now and then no number."""
    steps = sorted(draw.sample(range(1000), count))
    values = [level + draw.gauss(0, 1) + 9 * (draw.random() < 0.01) for _ in steps]
    if draw.random() < 0.5:
        for place in draw.sample(range(1, count), count // 12):
            values[place] = draw.choice([math.nan, math.inf])
    return Points(array("q", steps), array("d", values))


def curves_of(seed: int, *, smooth: bool) -> list[Curve]:
    draw = random.Random(seed)
    found = []
    for place in range(9):
        columns = Columns(0, 999, 2 * WIDTH)
        columns.follow(points_of(draw, COUNTS[place % len(COUNTS)], 20 + place))
        soft = smooth and columns.points >= columns.width
        found.append(Curve(columns, RUNS[place % len(RUNS)], (0, 3, 1, 6)[place % 4], soft))
    return found


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
def test_dot_for_dot_as_one_after_the_other(smooth: bool, log: bool) -> None:
    differing = 0
    for seed in range(6):
        curves = curves_of(seed, smooth=smooth)
        scale = axis(5.0, 30.0, 6, log=log)  # some of it lies beyond the axis
        together, one_by_one = Canvas(WIDTH, HEIGHT), Canvas(WIDTH, HEIGHT)
        for canvas in (together, one_by_one):
            canvas.level(20)
        draw_together(together, curves, scale, 4.0)
        for curve in curves:
            plot_drawing._draw_curve(one_by_one, curve, scale, 4.0)
        for some in ("bits", "tones"):
            found, wanted = (b"".join(getattr(canvas, some)) for canvas in (together, one_by_one))
            differing += sum(a != b for a, b in zip(found, wanted, strict=True))
    # The sums of a smoothed curve round otherwise, and so do numpy's logarithms: a dot in thousands at the most.
    assert differing <= (6 if smooth or log else 0)
    assert any(map(any, one_by_one.bits))


@pytest.mark.parametrize("window", [(0, 999), (250, 400), (5000, 6000)])
def test_filled_together_as_each_by_itself(window: tuple[int, int]) -> None:
    draw = random.Random(1)
    curves = [points_of(random.Random(seed), draw.choice(COUNTS), seed) for seed in range(8)]
    curves += [Points(array("q", range(first, first + 500)), array("d", range(500))) for first in (0, 300)]
    for some in (curves, [curve for curve in curves if all(map(math.isfinite, curve.values))]):
        many = [(Columns(*window, 33), points) for points in some]
        fill_together(many)
        for columns, points in many:
            alone = Columns(*window, 33)
            alone.follow(points)
            for part in PARTS:
                found, wanted = (repr(getattr(one, part)) for one in (columns, alone))
                assert found == wanted or part == "total", (part, window)
            assert list(columns.total) == pytest.approx(list(alone.total))
            points.steps.append(1000)
            points.values.append(0.5)
            assert columns.follow(points), "and follows what comes later"


def test_a_crosshair_decimates_and_draws_no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(2)
    metrics = {f"run{place}": points_of(draw, 700, place) for place in range(20)}
    traces = tuple(Trace(name, name, "line", True, "", place, "abcdefghijklmnopqrst"[place])
                   for place, name in enumerate(metrics))  # fmt: skip
    panel = Panel("loss", traces, "nats", references=(Reference(10.0, "ten"),))
    plot = PlotDrawing()
    plot.resize(60, 20)
    plot.show(Scene(panel, 0, 999), metrics)
    before = plot.rows
    work: list[str] = []
    for owner, name in ((Columns, "_fill"), (plot_drawing, "draw_together"), (plot_drawing, "fill_together")):
        monkeypatch.setattr(owner, name, lambda *_, name=name: work.append(name))
    assert plot.show(Scene(panel, 0, 999, cross=500), metrics)
    assert work == []
    changed = [changed_spans(old, new, 60) for old, new in zip(before, plot.rows, strict=True)]
    assert changed[0], "the title says the values there"
    assert all(width == 1 for spans in changed[1:] for _, width in spans), "below it one cell in each line"
    assert sum(map(len, changed[1:])) > 3
    assert not plot.show(Scene(panel, 0, 999, cross=500), metrics)
    monkeypatch.undo()
    anew = PlotDrawing()
    anew.resize(60, 20)
    anew.show(Scene(panel, 0, 999, cross=500), metrics)
    assert anew.rows == plot.rows
    assert plot.show(Scene(panel, 0, 999), metrics)
    assert plot.rows == before


def test_changed_cells_behind_wide_characters_and_close_together() -> None:
    old, new = (PlotRow(text, bytes(5), "漢", 1) for text in ("abcde", "abXdY"))
    assert changed_spans(old, new, 7) == [(4, 3)]


@pytest.mark.parametrize("kind", [TIME, EPISODES])
def test_many_points_lie_over_time_and_episodes_where_few_do(kind: str) -> None:
    draw, at, lines = random.Random(7), 1e9, []
    for step in range(1, MANY // 20):
        at += draw.choice([0.25, 1.5, -3.0, 9e5])
        lines.append(line(step, at, loss=draw.random()))
    log, slow = log_of(*lines), log_of(*lines[:1])
    fast = AxisView(kind, log, episodes=32)
    followed = AxisView(kind, slow, episodes=32)
    for one in lines[1:]:
        slow.take([one])
        followed.follow()
        assert len(followed["loss"])
    assert fast["loss"].steps == followed["loss"].steps
    assert fast["loss"].values == followed["loss"].values
