"""A panel of curves as lines and texts in pixels: what a picture of it is made of.

Owns where each thing stands. Invariants: a spike is seen at any width, as on the screen: each column of pixels keeps
the least and the greatest value of its steps; curves differ by their dashes as well as by colours that the colour-blind
tell apart (Okabe and Ito 2008); values that are no numbers leave a gap and a mark. Refuses to know file formats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engine.run.safe_text import safe
from workbench.curve_columns import Columns, smoothed
from workbench.curve_panels import Trace
from workbench.curves import Points
from workbench.plot_canvas import PALETTE
from workbench.plot_drawing import NEAR, letter_places
from workbench.plot_scene import SMOOTH_OVER, Scene
from workbench.value_axis import Axis, axis, short_number

INK, MUTED, GRID, BAD = "#222222", "#666666", "#dddddd", "#c00000"
COLOURS = {"line": "#0072b2", "dashes": "#d55e00", "dots": "#009e73"}
POINTS = ("#cc79a7", "#e69f00", "#56b4e9")
FAINT = "#a9cfe6"
DASHES = {"line": (), "dashes": (7.0, 4.0), "dots": (2.0, 3.0), "long-dashes": (14.0, 5.0)}
OF_RUNS = tuple({"#f0e442": "#a89c00"}.get(colour, colour) for colour in PALETTE)
"""Of several runs, as on the screen, but for the yellow, which is not seen on white."""
FAINT_RUNS = "#e4e4e4"
LEFT, RIGHT, TOP, BOTTOM = 64.0, 12.0, 44.0, 24.0
TEXT, SMALL = 13.0, 11.0
PIXELS_A_TICK = 40
LETTER = 6.2
"""Pixels of a small letter, about."""
_EVENTS = {"checkpoint": MUTED, "resumed": "#0072b2", "alarm": BAD}


@dataclass(frozen=True)
class Stroke:
    """A line through points."""

    points: tuple[tuple[float, float], ...]
    colour: str
    width: float = 1.5
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Words:
    """Text whose base line begins, is centred or ends at a place."""

    x: float
    y: float
    text: str
    """Safe."""
    colour: str = INK
    size: float = TEXT
    anchor: str = "start"
    """start, middle or end."""
    bold: bool = False


@dataclass(frozen=True)
class Filled:
    """A filled polygon."""

    points: tuple[tuple[float, float], ...]
    colour: str


Shape = Stroke | Words | Filled


class PanelShapes:
    """The shapes of one panel in a rectangle of pixels."""

    def __init__(
        self, scene: Scene, metrics: Mapping[str, Points], x: float, y: float, width: float, height: float
    ) -> None:
        self.scene, self._metrics = scene, metrics
        self._left, self._right = x + LEFT, x + width - RIGHT
        self._top, self._bottom = y + TOP, y + height - BOTTOM
        self._x, self._y = x, y
        names = {name for trace in scene.panel.traces for name in (trace.metric, trace.error) if name}
        self._columns: dict[str, Columns] = {}
        for name in names:
            columns = Columns(scene.first_step, scene.last_step, max(2, int(self._right - self._left)))
            columns.follow(metrics.get(name))
            self._columns[name] = columns
        self._traces = [trace for trace in scene.panel.traces if self._columns[trace.metric].points]
        self._axis = self._range()

    def all(self) -> Iterator[Shape]:
        """Everything, in the order in which it is drawn."""
        yield from self._frame()
        if not self._traces:
            middle = (self._left + self._right) / 2, (self._top + self._bottom) / 2
            yield Words(*middle, safe(self.scene.empty), MUTED, TEXT, "middle")
        lines = [one for one in reversed(self._traces) if one.kind != "points"]
        for draw in (self._faint, self._strong, self._letters):
            for trace in lines:
                yield from draw(trace)
        for place, trace in enumerate([one for one in self._traces if one.kind == "points"]):
            yield from self._points(trace, place)
        yield from self._below()
        yield from self._title()

    def _range(self) -> Axis:
        low, high = math.inf, -math.inf
        for trace in self._traces:
            columns = self._columns[trace.metric]
            low, high = min(low, columns.low_at_all), max(high, columns.high_at_all)
            for x, error in self._errors(trace):
                low, high = min(low, columns.last[x] - error), max(high, columns.last[x] + error)
        span = high - low
        for reference in self.scene.panel.references if self._traces else ():
            if low - NEAR * span <= reference.value <= high + NEAR * span:
                low, high = min(low, reference.value), max(high, reference.value)
        ticks = max(2, int((self._bottom - self._top) / PIXELS_A_TICK))
        return axis(low, high, ticks, log=self.scene.log, share=self.scene.panel.share)

    def _errors(self, trace: Trace) -> list[tuple[int, float]]:
        if trace.error not in self._columns:
            return []
        errors, values = self._columns[trace.error], self._columns[trace.metric]
        return [(x, errors.last[x]) for x, count in enumerate(errors.count) if count and values.count[x]]

    def _level(self, value: float) -> float:
        return self._bottom - min(1.0, max(0.0, self._axis.share(value))) * (self._bottom - self._top)

    def _frame(self) -> Iterator[Shape]:
        scale = self.scene.panel.scale
        for tick in self._axis.ticks if self._traces else ():
            y = self._level(tick)
            yield Stroke(((self._left, y), (self._right, y)), GRID, 1.0)
            label = short_number(tick * scale, 6, self._axis.step * scale)
            yield Words(self._left - 6, y + SMALL / 3, label, MUTED, SMALL, "end")
        for reference in self.scene.panel.references if self._traces else ():
            if 0 <= self._axis.share(reference.value) <= 1:
                y = self._level(reference.value)
                yield Stroke(((self._left, y), (self._right, y)), MUTED, 1.0, (2.0, 4.0))
                yield Words(self._right, y - 3, safe(reference.label), MUTED, SMALL, "end")
        yield Stroke(((self._left, self._top), (self._left, self._bottom), (self._right, self._bottom)), MUTED, 1.0)

    def _is_smooth(self, trace: Trace) -> bool:
        columns = self._columns[trace.metric]
        return trace.smooth and columns.points >= columns.width / 4

    def _faint(self, trace: Trace) -> Iterator[Shape]:
        """What lies below every curve: errors, and the values that a smoothed one is of."""
        columns, faint = self._columns[trace.metric], FAINT_RUNS if trace.ink >= 0 else FAINT
        for x, error in self._errors(trace):
            at, value = self._left + x, columns.last[x]
            yield Stroke(((at, self._level(value - error)), (at, self._level(value + error))), faint, 2.0)
        if self._is_smooth(trace):
            yield from self._strokes(columns, faint, 1.0, DASHES[trace.kind])

    def _strong(self, trace: Trace) -> Iterator[Shape]:
        columns, colour, dash = self._columns[trace.metric], colour_of(trace), DASHES[trace.kind]
        if not self._is_smooth(trace):
            yield from self._strokes(columns, colour, 1.5, dash)
            return
        means = smoothed(columns, max(3.0, columns.width * SMOOTH_OVER))
        line = tuple((self._left + x, self._level(value)) for x, value in enumerate(means) if value == value)
        yield Stroke(line, colour, 2.0, dash)

    def _letters(self, trace: Trace) -> Iterator[Shape]:
        """The letter of a run, on its curve."""
        columns, lettered = self._columns[trace.metric], [one for one in self._traces if one.letter]
        means = smoothed(columns, max(3.0, columns.width * SMOOTH_OVER)) if self._is_smooth(trace) else columns.last
        for x in letter_places(columns, lettered.index(trace), len(lettered)) if trace.letter else ():
            y = self._level(means[x]) - 3
            yield Words(self._left + x, y, trace.letter, colour_of(trace), SMALL, "middle", bold=True)

    def _strokes(self, columns: Columns, colour: str, width: float, dash: tuple[float, ...]) -> Iterator[Shape]:
        line: list[tuple[float, float]] = []
        for x, count in enumerate(columns.count):
            if columns.broken[x] and line:
                yield self._stroke(line, colour, width, dash)
                line = []
            if count:
                ends = dict.fromkeys((columns.first[x], columns.low[x], columns.high[x], columns.last[x]))
                line += [(self._left + x, self._level(value)) for value in ends]
        if line:
            yield self._stroke(line, colour, width, dash)

    def _stroke(self, line: list[tuple[float, float]], colour: str, width: float, dash: tuple[float, ...]) -> Shape:
        if len(line) == 1:
            return _shape(*line[0], 0, colour)
        return Stroke(tuple(line), colour, width, dash)

    def _points(self, trace: Trace, place: int) -> Iterator[Shape]:
        columns = self._columns[trace.metric]
        for x, count in enumerate(columns.count):
            if count:
                for value in dict.fromkeys((columns.low[x], columns.high[x])):
                    yield _mark(self._left + x, self._level(value), place)

    def _below(self) -> Iterator[Shape]:
        scene, y = self.scene, self._bottom
        place = Columns(scene.first_step, scene.last_step, max(2, int(self._right - self._left))).place
        for event in scene.events:
            if scene.first_step <= event.step <= scene.last_step and event.kind in _EVENTS:
                x = self._left + place(event.step)
                yield Stroke(((x, y), (x, y - 6)), _EVENTS[event.kind], 2.0)
        broken = {x for trace in scene.panel.traces for x, n in enumerate(self._columns[trace.metric].broken) if n}
        for x in sorted(broken):
            at = self._left + x
            yield Stroke(((at - 3, y - 3), (at + 3, y + 3)), BAD, 1.5)
            yield Stroke(((at - 3, y + 3), (at + 3, y - 3)), BAD, 1.5)
        yield Words(self._left, y + 16, scene.x.words(scene.first_step), MUTED, SMALL)
        yield Words(self._right, y + 16, f"{scene.x.label} {scene.x.words(scene.last_step)}", MUTED, SMALL, "end")

    def _title(self) -> Iterator[Shape]:
        panel = self.scene.panel
        unit = f", {panel.unit}" if panel.unit else ""
        unit += ", log" if self._traces and self._axis.log else ""
        yield Words(self._x + 8, self._y + 16, safe(panel.title + unit), INK, TEXT, bold=True)
        x, place = self._x + 8, 0
        for trace in self._traces:
            last = self._metrics[trace.metric].last()
            label = trace.letter + trace.label
            text = f"{label} {short_number(last[1] * panel.scale)}".strip() if last else label
            if x + 24 + LETTER * len(text) > self._right + RIGHT:
                return
            if trace.kind == "points":
                yield _mark(x + 9, self._y + 29, place)
                place += 1
            else:
                yield Stroke(((x, self._y + 29), (x + 18, self._y + 29)), colour_of(trace), 2.0, DASHES[trace.kind])
            yield Words(x + 24, self._y + 33, safe(text), MUTED, SMALL)
            x += 36 + LETTER * len(text)


def colour_of(trace: Trace) -> str:
    """Of a curve: of its run where there are several."""
    return OF_RUNS[trace.ink % len(OF_RUNS)] if trace.ink >= 0 else COLOURS[trace.kind]


def _mark(x: float, y: float, place: int) -> Filled:
    """The mark of the first, second or third held-out curve of a panel: diamond, square, triangle."""
    return _shape(x, y, place % 3, POINTS[place % 3])


def _shape(x: float, y: float, kind: int, colour: str) -> Filled:
    corners = (
        ((0.0, -4.0), (4.0, 0.0), (0.0, 4.0), (-4.0, 0.0)),
        ((-3.0, -3.0), (3.0, -3.0), (3.0, 3.0), (-3.0, 3.0)),
        ((0.0, -4.0), (4.0, 3.0), (-4.0, 3.0)),
    )[kind]
    return Filled(tuple((x + dx, y + dy) for dx, dy in corners), colour)
