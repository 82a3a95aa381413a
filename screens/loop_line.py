"""The loop drawn as one line of stations that closes upon itself, with what is in each below its name.

Owns the drawing: three lines, the station where something waits is marked by ▸ and by style. Narrow terminals get the
same line with shorter joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from workbench.text_wrapping import cut, fit

if TYPE_CHECKING:
    from workbench.loop_overview import Stop

WIDEST = 110


class LoopLine(Widget):
    """Stations in a row, joined; the last one leads back to the first."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"loop-line--joint", "loop-line--wanted", "loop-line--count"}
    DEFAULT_CSS = """
    LoopLine { height: 3; }
    LoopLine > .loop-line--joint { color: $text-muted; }
    LoopLine > .loop-line--wanted { color: $accent; text-style: bold; }
    LoopLine > .loop-line--count { color: $success; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._stops: tuple[Stop, ...] = ()
        self._wanted = ""

    def show(self, stops: Sequence[Stop], wanted: str) -> None:
        """`wanted` is the screen at which something waits."""
        if (tuple(stops), wanted) != (self._stops, self._wanted):
            self._stops, self._wanted = tuple(stops), wanted
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if not self._stops or y > 2:
            return Strip.blank(width, self.rich_style)
        room = min(width, WIDEST) - 6
        slot = room // len(self._stops)
        joint = self.get_component_rich_style("loop-line--joint")
        if y == 2:
            # The last slot is two cells wider, for the corner.
            line = "  ╰" + "─" * (slot * len(self._stops)) + "╯"
            return Strip([Segment(fit(line, width), joint)], width)
        segments = [Segment("  ", self.rich_style)]
        for place, stop in enumerate(self._stops):
            last = place == len(self._stops) - 1
            segments += self._named(stop, slot, last) if y == 0 else self._counted(stop, slot, place == 0, last)
        strip = Strip(segments)
        return strip.adjust_cell_length(width, self.rich_style)

    def _named(self, stop: Stop, slot: int, last: bool) -> list[Segment]:
        wanted = stop.station == self._wanted
        style = self.get_component_rich_style("loop-line--wanted") if wanted else self.rich_style
        name = cut(("▸" if wanted else "") + stop.name, slot - 2)
        rest = slot - cell_len(name)
        joint = " " + ("─" * rest + "╮" if last else "─" * (rest - 2) + " ")
        return [Segment(name, style), Segment(joint, self.get_component_rich_style("loop-line--joint"))]

    def _counted(self, stop: Stop, slot: int, first: bool, last: bool) -> list[Segment]:
        style = self.get_component_rich_style("loop-line--count" if stop.holds != "–" else "loop-line--joint")
        joint = self.get_component_rich_style("loop-line--joint")
        # A count may reach to the next one but for a space; the first loses two cells to the line on its left.
        room = slot - 2 if first else slot + 1 if last else slot
        segments = [Segment("│ ", joint)] if first else []
        segments.append(Segment(fit(cut(stop.holds, room - 1), room), style))
        return [*segments, Segment("│", joint)] if last else segments
