"""One panel of curves in braille: title with last values, y ticks, curves, and the steps below.

Owns how a panel is drawn, for the screen and for a terminal without one. Invariants: new points cost only themselves; a
spike is seen at any width; values that are no numbers leave a gap and a mark on the axis. Refuses to know files, which
panels there are, and how lines reach a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.run.safe_text import safe
from workbench.curve_axes import value_at
from workbench.curve_columns import Columns, fill_together, smoothed
from workbench.curve_panels import Panel, Trace
from workbench.curves import Points
from workbench.plot_bottom import bottom_row
from workbench.plot_canvas import (
    BAD,
    FAINT,
    HELD_OUT,
    LABEL,
    LINE,
    RUNS,
    SECOND,
    THIRD,
    TITLE,
    VALUE,
    Canvas,
)
from workbench.plot_rows import PlotRow, centred, crossed
from workbench.plot_scene import Scene
from workbench.plot_title import POINTS, LastValue, title_parts
from workbench.plot_together import MANY_CURVES, Curve, draw_together
from workbench.text_wrapping import cells, cut
from workbench.value_axis import Axis, axis, short_number

GUTTER = 7
LEAST_WIDTH, LEAST_HEIGHT = 20, 4
ROWS_A_TICK = 2
NEAR = 1.0
"""A reference line is shown where it is no further from the curves than so many times their range."""
ROOM = 0.25
"""Room beyond a value that left the axis, as a share of the range: each other axis is a whole panel sent."""
FILLED = 0.25
"""Share of the axis below which the curves get a narrower one."""
_TONES = {"line": LINE, "dashes": SECOND, "dots": THIRD, "points": HELD_OUT}
_GAPS = {"line": 0, "dashes": 3, "dots": 1, "long-dashes": 6}
LETTERS_A_PANEL = 16
"""Letters that tell the curves of several runs apart, in a panel, before they are repeated."""


@dataclass(frozen=True)
class _Ground:
    """A panel without its crosshair."""

    rows: tuple[PlotRow, ...]
    """Those between title and axis."""
    breaks: tuple[int, ...]
    """Of each column of dots the values that are no finite number."""


class PlotDrawing:
    """A panel as lines of text. `show` and `resize` draw it again, as far as it has changed."""

    def __init__(self, *, plain: bool = False) -> None:
        """`plain` draws with ASCII alone."""
        self._plain = plain
        self._width = self._height = 0
        self._scene: Scene | None = None
        self._scale: Axis | None = None
        self._scale_key: tuple[object, ...] = ()
        """While it is the same the axis changes only where a value lies beyond it."""
        self._metrics: Mapping[str, Points] = {}
        self._columns: dict[str, Columns] = {}
        self._ground: _Ground | None = None
        """What the crosshair moves over: moving it draws no curve again."""
        self.rows: list[PlotRow] = []

    @property
    def text(self) -> str:
        """What it shows, as lines."""
        return "\n".join((row.wide + row.text).rstrip() for row in self.rows)

    @property
    def scale(self) -> Axis | None:
        """The axis of values it was drawn against; None before there was anything to draw."""
        return self._scale

    def show(self, scene: Scene | None, metrics: Mapping[str, Points]) -> bool:
        """Draw a panel with the points that there are now; whether anything was drawn anew."""
        before, self._scene, self._metrics = self._scene, scene, metrics
        if self._follow() or scene is None or before is None:
            self._draw()
            return True
        if scene == before:
            return False
        if self._ground is not None and replace(before, cross=scene.cross) == scene:
            self._set(scene, self._ground)
        else:
            self._draw()
        return True

    def resize(self, width: int, height: int) -> None:
        """Draw in so many cells."""
        self._width, self._height = width, height
        self._columns = {}
        self._follow()
        self._draw()

    # From points to columns.

    @property
    def _canvas_size(self) -> tuple[int, int]:
        return self._width - GUTTER, self._height - 2

    def _follow(self) -> bool:
        """Take in new points; whether any curve has changed."""
        width, height = self._canvas_size
        if self._scene is None or width < LEAST_WIDTH - GUTTER or height < LEAST_HEIGHT - 2:
            return True
        wanted = (self._scene.first_step, self._scene.last_step, 2 * width)
        # In the order of the curves, so that what is filled together lies as it is drawn.
        traces = self._scene.panel.traces
        names = dict.fromkeys(name for trace in traces for name in (trace.metric, trace.error) if name)
        new = []
        for name in names:
            columns = self._columns.get(name)
            if columns is None or (columns.first_step, columns.last_step, columns.width) != wanted:
                new.append(name)
                self._columns[name] = Columns(*wanted)
        # Panel by panel: the points of one lie in a processor's cache, those of nine do not.
        with_points = [(self._columns[name], points) for name in new if (points := self._metrics.get(name))]
        if len(with_points) >= MANY_CURVES:
            fill_together(with_points)
        # All of them: what is new above may have grown meanwhile.
        followed = [self._columns[name].follow(self._metrics.get(name)) for name in names]
        for name in set(self._columns) - set(names):
            del self._columns[name]
        return bool(new) or any(followed)

    # From columns to rows of text.

    def _draw(self) -> None:
        width, height = self._canvas_size
        self._ground = None
        if self._scene is None:
            self.rows = []
        elif width < LEAST_WIDTH - GUTTER or height < LEAST_HEIGHT - 2:
            self.rows = [PlotRow("", b"", cut(self._scene.panel.title, self._width))]
        else:
            self._ground = self._drawn(self._scene, width, height)
            self._set(self._scene, self._ground)

    def _set(self, scene: Scene, ground: _Ground) -> None:
        """Put title, crosshair and axis around the curves."""
        width, rows = self._canvas_size[0], ground.rows
        if scene.cross is not None and scene.first_step <= scene.cross <= scene.last_step:
            at = GUTTER + (scene.place(scene.cross, 2 * width) >> 1)
            rows = tuple(crossed(row, at, plain=self._plain) for row in rows)
        self.rows = [self._title(scene), *rows, bottom_row(scene, width, ground.breaks, plain=self._plain)]

    def _drawn(self, scene: Scene, width: int, height: int) -> _Ground:
        canvas = Canvas(width, height)
        traces = [trace for trace in scene.panel.traces if self._columns[trace.metric].points]
        scale = self._scale = self._axis(scene, traces, height)
        breaks = [0] * (2 * width)
        for columns in [self._columns[trace.metric] for trace in scene.panel.traces]:
            if columns.breaks:
                breaks = [some + more for some, more in zip(breaks, columns.broken, strict=True)]
        if traces:
            self._references(canvas, scene, scale)
            self._curves(canvas, [one for one in reversed(traces) if one.kind != "points"], scale, scene.smoothing)
            self._letters(canvas, [one for one in traces if one.letter], scale)
            for place, trace in enumerate([one for one in traces if one.kind == "points"]):
                self._marks(canvas, self._columns[trace.metric], scale, POINTS[place % 3], HELD_OUT)
            for reference in scene.panel.references:
                if 0 <= scale.share(reference.value) <= 1:
                    canvas.write(_dot(scale, reference.value, 4 * height) >> 2, f" {reference.label}", LABEL)
        rows = self._with_gutter(canvas, scale if traces else None, scene.panel.scale)
        if not traces:
            broken = sum(breaks)
            elsewhere = any(self._metrics.get(trace.metric) for trace in scene.panel.traces)
            empty = "no value in this part" if elsewhere else scene.empty
            words = f"no finite value in {broken:,}" if broken else empty
            rows[height // 2] = centred(words, width + GUTTER)
        return _Ground(tuple(rows), tuple(breaks))

    def _axis(self, scene: Scene, traces: Sequence[Trace], height: int) -> Axis:
        low, high = math.inf, -math.inf
        for trace in traces:
            columns = self._columns[trace.metric]
            low, high = min(low, columns.low_at_all), max(high, columns.high_at_all)
            for x, error in self._errors(trace):
                low, high = min(low, columns.last[x] - error), max(high, columns.last[x] + error)
        if traces:
            span = high - low
            for reference in scene.panel.references:
                if low - NEAR * span <= reference.value <= high + NEAR * span:
                    low, high = min(low, reference.value), max(high, reference.value)
        before, key = self._scale, self._scale_key
        same = (scene.panel, scene.first_step, scene.last_step, scene.log)
        self._scale_key = (*same, height, sum(columns.renewals for columns in self._columns.values()))
        if before is not None and key == self._scale_key and traces:
            if not (before.low <= low and high <= before.high):
                low, high = _with_room(low, high, before)
            elif before.log or high - low >= FILLED * (before.high - before.low):
                return before
        return axis(low, high, max(2, height // ROWS_A_TICK), log=scene.log, share=scene.panel.share)

    def _errors(self, trace: Trace) -> list[tuple[int, float]]:
        """Columns that have a standard error, and the error."""
        if trace.error not in self._columns:
            return []
        errors, values = self._columns[trace.error], self._columns[trace.metric]
        return [(x, errors.last[x]) for x, count in enumerate(errors.count) if count and values.count[x]]

    def _references(self, canvas: Canvas, scene: Scene, scale: Axis) -> None:
        for reference in scene.panel.references:
            if 0 <= scale.share(reference.value) <= 1:
                canvas.level(_dot(scale, reference.value, canvas.dots[1]))

    def _curves(self, canvas: Canvas, traces: Sequence[Trace], scale: Axis, smoothing: float) -> None:
        for trace in traces:
            self._error_bars(canvas, trace, scale)
        lines = [trace for trace in traces if self._columns[trace.metric].points > 1]
        smooth = [
            trace.smooth and smoothing > 0 and self._columns[trace.metric].points >= self._columns[trace.metric].width
            for trace in lines
        ]
        over = max(3.0, canvas.dots[0] * smoothing)
        curves = [
            Curve(self._columns[trace.metric], _tone(trace), _GAPS[trace.kind], soft)
            for trace, soft in zip(lines, smooth, strict=True)
        ]
        if len(curves) >= MANY_CURVES:
            draw_together(canvas, curves, scale, over)
        else:
            for curve in curves:
                _draw_curve(canvas, curve, scale, over)
        for trace in traces:
            if self._columns[trace.metric].points == 1:
                self._marks(canvas, self._columns[trace.metric], scale, "●", _tone(trace))

    def _error_bars(self, canvas: Canvas, trace: Trace, scale: Axis) -> None:
        columns, rows = self._columns[trace.metric], canvas.dots[1]
        for x, error in self._errors(trace):
            value = columns.last[x]
            canvas.vertical(x, _dot(scale, value + error, rows), _dot(scale, value - error, rows), FAINT)

    def _letters(self, canvas: Canvas, traces: Sequence[Trace], scale: Axis) -> None:
        """On each curve its letter, not two of them in one place: so curves differ where there is no colour."""
        for order, trace in enumerate(traces):
            columns = self._columns[trace.metric]
            for x in letter_places(columns, order, len(traces)):
                canvas.mark(x, _dot(scale, columns.last[x], canvas.dots[1]), trace.letter, _tone(trace))

    def _marks(self, canvas: Canvas, columns: Columns, scale: Axis, mark: str, tone: int) -> None:
        for x, count in enumerate(columns.count):
            if count:
                for value in {columns.low[x], columns.high[x]}:
                    canvas.mark(x, _dot(scale, value, canvas.dots[1]), mark, tone)

    def _with_gutter(self, canvas: Canvas, scale: Axis | None, factor: float) -> list[PlotRow]:
        labels: dict[int, str] = {}
        if scale is not None:
            for tick in scale.ticks:
                labels[_dot(scale, tick, canvas.dots[1]) >> 2] = short_number(tick * factor, 6, scale.step * factor)
        rows = []
        for row in range(canvas.height):
            label = labels.get(row)
            gutter = " " * 6 + "│" if label is None else f"{label:>6}┤"
            text = gutter + canvas.line(row, plain=self._plain)
            rows.append(PlotRow(text, bytes([LABEL]) * GUTTER + bytes(canvas.tones[row])))
        return rows

    # The title: what it is, its unit, and the last values.

    def _title(self, scene: Scene) -> PlotRow:
        panel, width = scene.panel, self._width
        unit = f", {panel.unit}" if panel.unit else ""
        unit += ", log" if self._scale is not None and self._scale.log else ""
        left, right = title_parts(panel, unit, self._values(panel, scene.cross), width, plain=self._plain)
        left = ("!" if scene.marked else " ") + safe(left)
        padding = " " * (width - 1 - cells(left) - cells(right))
        tones = bytes([VALUE]) * (width - cells(left))
        return PlotRow(padding + right + " ", tones, left, BAD if scene.marked else TITLE)

    def _values(self, panel: Panel, cross: int | None) -> list[LastValue]:
        """(kind or mark, label, value) of each trace that has one: the last, or that at the crosshair, exactly."""
        found = []
        marks = iter(POINTS * len(panel.traces))
        for trace in [one for one in panel.traces if self._columns.get(one.metric)]:
            kind = next(marks) if trace.kind == "points" and self._columns[trace.metric].points else trace.kind
            if kind == "points":
                continue
            last = self._value(trace.metric, cross)
            if last is not None:
                text = _number(last[1] * panel.scale, cross)
                error = self._value(trace.error, cross) if trace.error else None
                if error is not None and error[0] == last[0] and math.isfinite(error[1]):
                    text += f"±{_number(error[1] * panel.scale, cross)}"
                found.append((trace.letter or kind, safe(trace.label), text))
        return found

    def _value(self, metric: str, cross: int | None) -> tuple[int, float] | None:
        points = self._metrics.get(metric)
        if cross is not None:
            return value_at(points, cross)
        return None if points is None else points.last()


def _draw_curve(canvas: Canvas, curve: Curve, scale: Axis, over: float) -> None:
    columns, rows = curve.columns, canvas.dots[1]
    fill = (columns.count, columns.broken)
    tops, bottoms = _dots(scale, columns.high, rows), _dots(scale, columns.low, rows)
    firsts, lasts = _dots(scale, columns.first, rows), _dots(scale, columns.last, rows)
    canvas.curve(tops, bottoms, firsts, lasts, *fill, FAINT if curve.smooth else curve.tone, gap=curve.gap)
    if curve.smooth:
        means = _dots(scale, smoothed(columns, over), rows)
        canvas.curve(means, means, means, means, *fill, curve.tone)


def letter_places(columns: Columns, order: int, curves: int) -> list[int]:
    """Columns at which the letter of a curve, the `order`-th of so many, stands on it."""
    again = max(1, LETTERS_A_PANEL // max(1, curves))
    wanted = [int(((order + 0.5) / curves + turn) / again * columns.width) for turn in range(again)]
    return list(dict.fromkeys(_nearest(columns.count, place) for place in wanted))


def _nearest(counts: Sequence[int], wanted: int) -> int:
    """The column with a value that is nearest; of two the lower one."""
    if counts[wanted]:
        return wanted
    for away in range(len(counts)):
        for x in (wanted - away, wanted + away):
            if 0 <= x < len(counts) and counts[x]:
                return x
    return wanted


def _tone(trace: Trace) -> int:
    return RUNS[trace.ink % len(RUNS)] if trace.ink >= 0 else _TONES[trace.kind]


def _number(value: float, cross: int | None) -> str:
    """A value: as a glance needs it, or at the crosshair with six digits that matter."""
    return short_number(value) if cross is None or not math.isfinite(value) else f"{value:.6g}"


def _with_room(low: float, high: float, before: Axis) -> tuple[float, float]:
    """A range with room where values have just gone beyond the axis, so that the next ones need no other at once."""
    if before.log:
        return low, high
    room = ROOM * (high - low)
    lower = low - room if low < before.low else low
    return (max(0.0, lower) if low >= 0 else lower), (high + room if high > before.high else high)


def _dot(scale: Axis, value: float, rows: int) -> int:
    """The row of dots of a value, 0 at the top."""
    return math.floor((1 - scale.share(value)) * (rows - 1) + 0.5)


def _dots(scale: Axis, values: Sequence[float], rows: int) -> list[int]:
    if scale.log:
        return [0 if value != value else _dot(scale, value, rows) for value in values]
    # As `_dot`, written out: every column of every curve asks for it.
    low, span, most = scale.low, scale.high - scale.low, rows - 1
    return [0 if v != v else math.floor((1 - (v - low) / span) * most + 0.5) for v in values]
