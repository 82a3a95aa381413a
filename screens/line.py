"""One line of text in parts, each with a style: headers, key lines, messages.

Owns how parts become content. A part is a text, or a text with a style in Textual's words ("bold", "$accent",
"$text-muted"). Every text passes `safe`; markup in it means nothing.
"""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from engine.run.safe_text import safe

Part = str | tuple[str, str]
LONGEST_PART = 2000


def content_of(*parts: Part) -> Content:
    """Safe content of parts, one line."""
    pieces = [(part, "") if isinstance(part, str) else part for part in parts]
    return Content.assemble(*((safe(text, LONGEST_PART), style) for text, style in pieces))


class Line(Static):
    """One line; `show` replaces it, and sends nothing to the terminal where it says what it said."""

    DEFAULT_CSS = """
    Line { height: 1; width: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *parts: Part, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(content_of(*parts), id=id, classes=classes, markup=False)
        self._parts: tuple[Part, ...] = parts

    @property
    def text(self) -> str:
        """What it says, without styles."""
        return "".join(part if isinstance(part, str) else part[0] for part in self._parts)

    def show(self, *parts: Part) -> None:
        """Say something else."""
        if parts != self._parts:
            self._parts = parts
            self.update(content_of(*parts), layout=False)
