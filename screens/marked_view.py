"""Lines in pieces of different styles, to read and scroll: texts in which words or tokens are marked.

Owns the drawing alone. Invariants: the pieces are safe already; only lines that changed are drawn again; a mark is said
by bold or underline, too, where there is no colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from screens.narrow_updates import refresh_changed_lines

Line = Sequence[tuple[str, str]]
STYLES = ("faint", "title", "accent", "changed", "up", "down", "up-much", "down-much")


class MarkedView(ScrollView, can_focus=True):
    """Lines of pieces. `show` replaces them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+d,pagedown", "page(1)", "page down", show=False, id="marked.page_down", tooltip="A page down."),
        Binding("ctrl+u,pageup", "page(-1)", "page up", show=False, id="marked.page_up", tooltip="A page up."),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"marked-view--{name}" for name in STYLES}
    DEFAULT_CSS = """
    MarkedView { height: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size: 1 1; scrollbar-gutter: stable; }
    MarkedView > .marked-view--faint { color: $text-muted; }
    MarkedView > .marked-view--title { color: $primary; text-style: bold; }
    MarkedView > .marked-view--accent { color: $accent; }
    MarkedView > .marked-view--changed { color: $warning; text-style: bold underline; }
    MarkedView > .marked-view--up { color: $success; }
    MarkedView > .marked-view--up-much { color: $success; text-style: bold underline; }
    MarkedView > .marked-view--down { color: $error; }
    MarkedView > .marked-view--down-much { color: $error; text-style: bold underline; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: tuple[Line, ...] = ()

    @property
    def text(self) -> str:
        """Everything it shows."""
        return "\n".join("".join(text for text, _ in line).rstrip() for line in self._lines)

    @property
    def room(self) -> int:
        """Cells in which a line must fit."""
        return max(1, self.scrollable_content_region.width)

    def show(self, lines: Sequence[Line], *, top: bool = False) -> None:
        """Show other lines; with `top` from their beginning."""
        before, self._lines = self._lines, tuple(lines)
        size = Size(self.room, max(len(self._lines), self.scrollable_content_region.height))
        if top and self.scroll_offset.y:
            self.scroll_to(y=0, animate=False, immediate=True)
            self.refresh()
        if size != self.virtual_size:
            self.virtual_size = size
            self.refresh()
            return
        refresh_changed_lines(self, before, self._lines)

    def action_page(self, by: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + by * max(1, self.size.height - 1), animate=False, immediate=True)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        place = y + self.scroll_offset.y
        if not 0 <= place < len(self._lines):
            return Strip.blank(self.room, self.rich_style)
        pieces = [Segment(text, self._style(name)) for text, name in self._lines[place] if text]
        return Strip(pieces).adjust_cell_length(self.room, self.rich_style)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"marked-view--{name}") if name in STYLES else self.rich_style
