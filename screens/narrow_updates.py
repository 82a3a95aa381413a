"""Sending only the cells of a line that were asked for, and a style only where it changes.

Textual 8.2 sends a changed region from the left edge of its widget on (five times the bytes for a live plot), and with
every piece of text its whole style and a reset (a quarter of the bytes of a page in one style). Owns a compositor for
screens that refresh small regions often. Invariant: what is on the screen afterwards is the same, and the terminal is
left without a style.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.color import ColorSystem
from rich.console import Console
from textual._compositor import ChopsUpdate, Compositor
from textual.geometry import Region
from textual.scroll_view import ScrollView
from textual.strip import Strip


def refresh_changed_lines(view: ScrollView, before: Sequence[object], after: Sequence[object]) -> None:
    """Draw those lines of what `view` shows again that are not what they were; its size has not changed."""
    for y in range(view.size.height):
        place = y + view.scroll_offset.y
        if before[place : place + 1] != after[place : place + 1]:
            view.refresh(Region(0, y, view.size.width, 1))


class NarrowUpdate(ChopsUpdate):
    """The changed spans of some lines, each from its first cell to its last."""

    def render_segments(self, console: Console) -> str:
        parts: list[str] = []
        pen = _Pen(console._color_system or ColorSystem.TRUECOLOR)
        for y, first, last in self.spans:
            at = -1
            for end, (begin, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                if strip is None or begin >= last or end <= first:
                    continue
                left, right = max(begin, first), min(end, last)
                if left != at:
                    parts.append(f"\x1b[{y + 1};{left + 1}H")
                parts.append(pen.draw(_part(strip, left - begin, right - begin)))
                at = right
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
                parts.append(f"\x1b[{'0;' if self._codes and codes else ''}{codes or 0}m")
                self._codes = codes
            parts.append(text)
        return "".join(parts)

    def lift(self) -> str:
        """What ends the style."""
        ended, self._codes = ("\x1b[0m" if self._codes else ""), ""
        return ended


class NarrowCompositor(Compositor):
    """Textual's own, but for how much of a line it sends."""

    def render_partial_update(self) -> ChopsUpdate | None:
        update = super().render_partial_update()
        return None if update is None else NarrowUpdate(update.chops, update.spans, update.chop_ends)


def _part(strip: Strip, begin: int, end: int) -> Strip:
    return strip if begin == 0 and end >= strip.cell_length else strip.crop(begin, end)
