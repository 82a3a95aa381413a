"""Sending only the cells of a line that were asked for, also where they do not begin at the widget's left edge.

Textual 8.2 sends a changed region from the left edge of its widget on: for a live plot that is five times the bytes.
Owns a compositor for screens that refresh small regions often. Invariant: what is on the screen afterwards is the same.
"""

from __future__ import annotations

from rich.console import Console
from textual._compositor import ChopsUpdate, Compositor
from textual.strip import Strip


class NarrowUpdate(ChopsUpdate):
    """The changed spans of some lines, each from its first cell to its last."""

    def render_segments(self, console: Console) -> str:
        parts: list[str] = []
        for y, first, last in self.spans:
            at = -1
            for end, (begin, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                if strip is None or begin >= last or end <= first:
                    continue
                left, right = max(begin, first), min(end, last)
                if left != at:
                    parts.append(f"\x1b[{y + 1};{left + 1}H")
                parts.append(_part(strip, left - begin, right - begin).render(console))
                at = right
        return "".join(parts)


class NarrowCompositor(Compositor):
    """Textual's own, but for how much of a line it sends."""

    def render_partial_update(self) -> ChopsUpdate | None:
        update = super().render_partial_update()
        return None if update is None else NarrowUpdate(update.chops, update.spans, update.chop_ends)


def _part(strip: Strip, begin: int, end: int) -> Strip:
    return strip if begin == 0 and end >= strip.cell_length else strip.crop(begin, end)
