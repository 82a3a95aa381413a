"""One panel of curves as a widget: what `workbench.plot_drawing` draws, in colours.

Owns what of a panel is sent to the terminal. Invariants: only cells that changed are sent, or whole lines where most of
them changed; a line is what Textual makes of a widget without borders, padding and opacity, which a panel has none of.
Refuses to know how a panel is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.color import BLACK, Color
from textual.events import Resize
from textual.filter import LineFilter
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from workbench.curves import Points
from workbench.plot_canvas import (
    BAD,
    BLANK,
    FAINT,
    HELD_OUT,
    LABEL,
    LINE,
    PALETTE,
    REFERENCE,
    RUNS,
    SECOND,
    THIRD,
    TITLE,
    VALUE,
)
from workbench.plot_drawing import PlotDrawing
from workbench.plot_rows import PlotRow, changed_spans
from workbench.plot_scene import Scene
from workbench.text_wrapping import cells as cell_len

_CLASSES = {
    REFERENCE: "reference", FAINT: "faint", LINE: "line", SECOND: "second", THIRD: "third", HELD_OUT: "held-out",
    BAD: "bad", LABEL: "label", TITLE: "title", VALUE: "value",
    **{tone: f"run-{place}" for place, tone in enumerate(RUNS)},
}  # fmt: skip

_SAME_TONE = re.compile(rb"(.)\1*", re.DOTALL)


_NOTHING = PlotRow("", b"")
MOSTLY, MANY_CELLS = 0.7, 0.4
"""Shares of the lines that differ, and of the cells of some of them, from which on all lines are drawn again, whole."""


class _Looks(NamedTuple):
    """What lines are made for."""

    width: int
    beneath: Color
    background: Color
    filters: tuple[LineFilter, ...]


class Plot(Widget):
    """A panel of curves. `show` draws it again, as far as it has changed."""

    COMPONENT_CLASSES = {f"plot--{name}" for name in _CLASSES.values()}  # noqa: RUF012 (Textual's own declaration)
    DEFAULT_CSS = """
    Plot { width: 1fr; height: 1fr; }
    Plot > .plot--title { color: $foreground; text-style: bold; }
    Plot > .plot--value { color: $foreground; }
    Plot > .plot--label { color: $text-muted; }
    Plot > .plot--reference { color: $text-muted; }
    Plot > .plot--faint { color: $primary 45%; }
    Plot > .plot--line { color: $primary; }
    Plot > .plot--second { color: $error; }
    Plot > .plot--third { color: $success; }
    Plot > .plot--held-out { color: $accent; }
    Plot > .plot--bad { color: $error; text-style: bold; }
    """ + "".join(f"Plot > .plot--run-{place} {{ color: {colour}; }}\n" for place, colour in enumerate(PALETTE))

    def __init__(self, *, plain: bool = False, id: str | None = None) -> None:
        """`plain` draws with ASCII alone."""
        super().__init__(id=id)
        self.drawing = PlotDrawing(plain=plain)
        self._shown: list[PlotRow] = []
        self._strips: dict[int, Strip] = {}
        self._inks: dict[int, Style] = {}
        self._looks = _Looks(0, BLACK, BLACK, ())

    @property
    def text(self) -> str:
        """What it shows, as lines."""
        return self.drawing.text

    def show(self, scene: Scene | None, metrics: Mapping[str, Points]) -> None:
        """Show a panel with the points that there are now."""
        if self.drawing.show(scene, metrics):
            self._put(self.drawing.rows)

    def on_resize(self, event: Resize) -> None:
        self.drawing.resize(self.size.width, self.size.height)
        self._put(self.drawing.rows)

    def notify_style_update(self) -> None:
        self._inks, self._strips = {}, {}
        super().notify_style_update()

    def render_lines(self, crop: Region) -> list[Strip]:
        looks = _Looks(self.size.width, *self.background_colors, tuple(self.get_line_filters()))
        if looks != self._looks:
            self._looks, self._inks, self._strips = looks, {}, {}
        return [self.render_line(y).crop(crop.x, crop.right) for y in crop.line_range]

    def render_line(self, y: int) -> Strip:
        if y not in self._strips:
            self._strips[y] = self._strip(self._shown[y] if y < len(self._shown) else _NOTHING)
        return self._strips[y]

    def _strip(self, row: PlotRow) -> Strip:
        width = self._looks.width
        segments = [Segment(row.wide, self._ink(row.wide_tone))] if row.wide else []
        for same in _SAME_TONE.finditer(row.tones):
            begin, end = same.span()
            segments.append(Segment(row.text[begin:end], self._ink(row.tones[begin])))
        # Measured once: Textual would measure every piece.
        length = cell_len(row.wide) + cell_len(row.text)
        if length < width:
            segments.append(Segment(" " * (width - length), self._ink(BLANK)))
        for line_filter in self._looks.filters:
            segments = line_filter.apply(segments, self._looks.background)
        return Strip(segments, max(length, width)).crop(0, width)

    def _ink(self, tone: int) -> Style:
        if tone not in self._inks:
            name = _CLASSES.get(tone)
            ink = self.rich_style if name is None else self.get_component_rich_style(f"plot--{name}")
            ground = (self._looks.beneath + self._looks.background).rich_color
            self._inks[tone] = Style.from_color(bgcolor=ground) + ink
        return self._inks[tone]

    def _put(self, rows: list[PlotRow]) -> None:
        """Show other rows; only what differs is drawn again."""
        before, self._shown = self._shown, rows
        if len(before) != len(rows):
            self._strips = {}
            self.refresh()
            return
        other = [y for y, (old, new) in enumerate(zip(before, rows, strict=True)) if old != new]
        for y in other:
            self._strips.pop(y, None)
        width = self.size.width
        if len(other) > MOSTLY * len(rows):
            # As after a zoom: to find the few cells that stayed takes longer than to send them. Three lines tell.
            some = [other[len(other) * part // 4] for part in (1, 2, 3)]
            found = sum(wide for y in some for _, wide in changed_spans(before[y], rows[y], width))
            if found > MANY_CELLS * len(some) * width:
                self.refresh(Region(0, other[0], width, other[-1] - other[0] + 1))
                return
        if other:
            spans = [(y, *span) for y in other for span in changed_spans(before[y], rows[y], width)]
            self.refresh(*(Region(x, y, wide, 1) for y, x, wide in spans))
