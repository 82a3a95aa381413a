"""A text to read and scroll, in blocks of different styles: a conversation, a log, a page of help.

Owns wrapping to its width and scrolling by line and page. Markup in a text means nothing; a text longer than
`text_wrapping.LONGEST` is cut and says how long it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from screens.narrow_updates import refresh_changed_lines
from workbench.text_wrapping import fit, wrap


@dataclass(frozen=True)
class Block:
    """A paragraph or more in one style."""

    text: str
    style: str = "plain"
    """plain, faint, title, good, bad or accent."""
    indent: int = 0
    """Cells before each line."""


class TextView(ScrollView, can_focus=True):
    """Blocks of text, wrapped and scrollable by the keys of a list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "by(1)", "down", show=False, id="text.down", tooltip="A line down."),
        Binding("k,up", "by(-1)", "up", show=False, id="text.up", tooltip="A line up."),
        Binding(
            "ctrl+d,pagedown,space", "page(1)", "page down", show=False, id="text.page_down", tooltip="A page down."
        ),
        Binding("ctrl+u,pageup", "page(-1)", "page up", show=False, id="text.page_up", tooltip="A page up."),
        Binding("g,home", "edge(-1)", "top", show=False, id="text.first", tooltip="The beginning."),
        Binding("G,end", "edge(1)", "end", show=False, id="text.last", tooltip="The end."),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"text-view--{name}" for name in ("faint", "title", "good", "bad", "accent")
    }
    DEFAULT_CSS = """
    TextView { height: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size: 1 1; scrollbar-gutter: stable; }
    TextView > .text-view--faint { color: $text-muted; }
    TextView > .text-view--title { color: $primary; text-style: bold; }
    TextView > .text-view--good { color: $success; }
    TextView > .text-view--bad { color: $error; }
    TextView > .text-view--accent { color: $accent; }
    """

    def __init__(self, blocks: Sequence[Block] = (), *, id: str | None = None, follow: bool = False) -> None:
        """With `follow` the view stays at its end while it is there, as a log does."""
        super().__init__(id=id)
        self._blocks = tuple(blocks)
        self._follow = follow
        self._lines: list[tuple[str, str]] = []
        self._width = self._height = -1

    @property
    def text(self) -> str:
        """Everything it shows, wrapped as it is shown."""
        return "\n".join(line for line, _ in self._lines)

    def show(self, blocks: Sequence[Block]) -> None:
        """Replace the text; the view goes to its beginning, or with `follow` stays at its end."""
        if tuple(blocks) == self._blocks:
            return
        at_end = self.scroll_offset.y >= self.max_scroll_y
        self._blocks = tuple(blocks)
        self._lay_out()
        if not self._follow:
            self.scroll_to(y=0, animate=False, immediate=True)
        elif at_end:
            self.scroll_end(animate=False, immediate=True)

    def action_by(self, lines: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + lines, animate=False, immediate=True)

    def action_page(self, by: int) -> None:
        self.action_by(by * max(1, self.size.height - 1))

    def action_edge(self, end: int) -> None:
        self.scroll_to(y=self.max_scroll_y if end > 0 else 0, animate=False, immediate=True)

    def on_resize(self, event: Resize) -> None:
        room = self.scrollable_content_region
        if (room.width, room.height) != (self._width, self._height):
            at_end = self.scroll_offset.y >= self.max_scroll_y
            self._lay_out()
            if self._follow and at_end:
                self.scroll_end(animate=False, immediate=True)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        place = y + self.scroll_offset.y
        if not 0 <= place < len(self._lines):
            return Strip.blank(width, self.rich_style)
        text, style = self._lines[place]
        return Strip([Segment(fit(text, width), self._style(style))], width)

    def _style(self, name: str) -> Style:
        return self.rich_style if name == "plain" else self.get_component_rich_style(f"text-view--{name}")

    def _lay_out(self) -> None:
        self._width = self.scrollable_content_region.width
        if self._width <= 0:
            return
        self._put(
            [
                (" " * block.indent + line, block.style)
                for block in self._blocks
                for line in wrap(block.text, self._width - block.indent)
            ]
        )

    def _put(self, lines: list[tuple[str, str]]) -> None:
        """Show these lines, and draw those that are not what stands there."""
        before, self._lines = self._lines, lines
        self._height = self.scrollable_content_region.height
        # At least as high as the view: texts that fit differ in no size, and nothing around them is drawn anew.
        size = Size(self._width, max(len(lines), self._height))
        if size != self.virtual_size:
            self.virtual_size = size
            self.refresh()
            return
        refresh_changed_lines(self, before, lines)
