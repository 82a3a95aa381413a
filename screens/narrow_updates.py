"""Sending only the cells of a line that were asked for, and a style only where it changes.

Textual 8.2 sends a changed region from the left edge of its widget on (five times the bytes for a live plot), and with
every piece of text its whole style and a reset (a quarter of the bytes of a page in one style). Owns a compositor for
screens that refresh small regions often. Invariant: what is on the screen afterwards is the same, and the terminal is
left without a style.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from rich.color import ColorSystem
from rich.console import Console
from textual._compositor import Compositor, CompositorUpdate
from textual.geometry import Region
from textual.screen import Screen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

_OFF = {
    "1": "22", "2": "22", "3": "23", "4": "24", "5": "25", "6": "25", "7": "27", "8": "28", "9": "29",
    "21": "24", "51": "54", "52": "54", "53": "55",
}  # fmt: skip
"""Each attribute, and what takes it off; 22 takes off bold and dim."""
Span = tuple[int, int, int]
"""A line, its first cell that changes, and the one behind the last."""
Piece = tuple[int, int, Strip]
"""A line, a cell, and what stands from there on."""


def refresh_changed_lines(view: ScrollView, before: Sequence[object], after: Sequence[object]) -> None:
    """Draw those lines of what `view` shows again that are not what they were; its size has not changed."""
    for y in range(view.size.height):
        place = y + view.scroll_offset.y
        if before[place : place + 1] != after[place : place + 1]:
            view.refresh(Region(0, y, view.size.width, 1))


class NarrowUpdate(CompositorUpdate):
    """Pieces of lines, each where it begins; from left to right and from top to bottom."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces

    def render_segments(self, console: Console) -> str:
        parts: list[str] = []
        pen = _Pen(console._color_system or ColorSystem.TRUECOLOR)
        at = (-1, -1)
        for y, x, strip in self.pieces:
            if (y, x) != at:
                parts.append(f"\x1b[{y + 1};{x + 1}H")
            parts.append(pen.draw(strip))
            at = (y, x + strip.cell_length)
        return "".join([*parts, pen.lift()])


class _Pen:
    """The style in which the terminal writes now."""

    def __init__(self, colours: ColorSystem) -> None:
        self._colours = colours
        self._codes = ""

    def draw(self, strip: Strip) -> str:
        """What writes these pieces, with a style where it is not the one before."""
        parts: list[str] = []
        for text, style, _ in strip:
            if style is not None and style.link:
                parts += [self.lift(), Strip.render_style(style, text, self._colours)]
                continue
            codes = Strip.render_ansi(style, self._colours) if style is not None else ""
            if codes != self._codes:
                parts.append(_way(self._codes, codes))
                self._codes = codes
            parts.append(text)
        return "".join(parts)

    def lift(self) -> str:
        """What ends the style."""
        ended, self._codes = ("\x1b[0m" if self._codes else ""), ""
        return ended


class _Codes(NamedTuple):
    """A style as the terminal is told it."""

    attributes: tuple[str, ...]
    foreground: str
    background: str


@lru_cache(4096)
def _way(before: str, after: str) -> str:
    """The shortest sequence that leads from one style to another: only what differs, or all of it anew."""
    if not before or not after:
        return f"\x1b[{after or 0}m"
    had, has = _read_codes(before), _read_codes(after)
    off = dict.fromkeys(_OFF[one] for one in had.attributes if one not in has.attributes)
    told = [*off, *(one for one in has.attributes if one not in had.attributes or _OFF[one] in off)]
    told += [has.foreground or "39"] if has.foreground != had.foreground else []
    told += [has.background or "49"] if has.background != had.background else []
    return f"\x1b[{min(';'.join(told), '0;' + after, key=len)}m" if told else ""


def _read_codes(codes: str) -> _Codes:
    attributes, foreground, background = [], "", ""
    rest = codes.split(";")
    while rest:
        size = {"5": 3, "2": 5}.get(rest[1], 1) if rest[0] in ("38", "48") and len(rest) > 1 else 1
        group, rest = ";".join(rest[:size]), rest[size:]
        if group in _OFF:
            attributes.append(group)
        elif group[0] == "4" or group.startswith("10"):
            background = group
        else:
            foreground = group
    return _Codes(tuple(attributes), foreground, background)


class NarrowCompositor(Compositor):
    """Textual's own, but for what it asks widgets for and how much of a line it sends: the changed spans alone."""

    def render_partial_update(self) -> NarrowUpdate | None:  # type: ignore[override]  # all that is asked of it is drawn
        width, height = self.size
        spans = [
            (y, max(0, first), min(last, width))
            for y, first, last in self._regions_to_spans(self._dirty_regions)
            if 0 <= y < height
        ]
        self._dirty_regions.clear()
        return NarrowUpdate(list(self._pieces(spans))) if spans else None

    def _pieces(self, spans: Sequence[Span]) -> Iterator[Piece]:
        """What stands in the spans, each cell by the widget in front there."""
        shown = [(widget, region, region.intersection(clip)) for widget, (region, clip) in self.visible_widgets.items()]
        parts = [part for span in spans for part in _by_widget(span, [seen for _, _, seen in shown])]
        lines: dict[int, list[int]] = {}
        reach: dict[int, tuple[int, int]] = {}
        for place, (y, first, last) in parts:
            lines.setdefault(place, []).append(y)
            begin, end = reach.get(place, (first, last))
            reach[place] = min(begin, first), max(end, last)
        strips: dict[int, list[Strip]] = {}
        for place, ys in lines.items():
            widget, region, _ = shown[place]
            begin, end = reach[place]
            wanted = Region(begin - region.x, ys[0] - region.y, end - begin, ys[-1] - ys[0] + 1)
            strips[place] = widget.render_lines(wanted)
        for place, (y, first, last) in parts:
            begin = reach[place][0]
            yield y, first, strips[place][y - lines[place][0]].crop(first - begin, last - begin)


def _by_widget(span: Span, shown: Sequence[Region]) -> list[tuple[int, Span]]:
    """The parts of a span from left to right, each with the place of the first of the regions that has it."""
    y, *bounds = span
    found: list[tuple[int, Span]] = []
    open_parts = [(bounds[0], bounds[1])]
    for place, (x, top, width, height) in enumerate(shown):
        if not top <= y < top + height:
            continue
        still_open = []
        for first, last in open_parts:
            begin, end = max(first, x), min(last, x + width)
            if begin >= end:
                still_open.append((first, last))
                continue
            found.append((place, (y, begin, end)))
            still_open += [part for part in ((first, begin), (end, last)) if part[0] < part[1]]
        if not still_open:
            break
        open_parts = still_open
    return sorted(found, key=lambda part: part[1])


def draw_now(screen: Screen[Any], *widgets: Widget) -> bool:
    """Send what these widgets have to draw again at once, and not when their queues and a timer of Textual's get there.

    False, and nothing is sent, where it must wait: for a layout, a screen in front, or a batch of changes.
    """
    waits = screen._layout_required or screen._scroll_required or screen._repaint_required or screen.app._batch_count
    if waits or not screen.is_current or any(widget._layout_required for widget in widgets):
        return False
    # One that is not seen would have the whole arrangement reckoned anew.
    seen = [widget for widget in widgets if widget in screen._compositor.visible_widgets]
    screen._compositor.update_widgets({*screen._dirty_widgets, *seen})
    screen._compositor_refresh()
    return True
