"""The last door before the terminal: every styled segment of every line passes here.

Owns two promises that hold for every widget, Textual's own among them: no control, bidirectional or unseen character of
a stranger's text reaches the terminal, and a terminal without UTF-8 gets ASCII of the same width. Widgets make text
visible with `engine.run.safe_text.safe` long before; what arrives here unsafe was forgotten somewhere and is dropped,
because a stand-in of another width would shift the line.
"""

from __future__ import annotations

import re

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from engine.run.safe_text import safe
from workbench.ascii_text import to_ascii

_MAYBE_UNSAFE = re.compile(r"[^\x20-\x7e\u00a0-\u00ac\u00ae-\u034e\u2010-\u2027\u2030-\u205f\u2190-\u2bff]")


class TerminalDoor(LineFilter):
    """Drops what must not reach a terminal; with `ascii_only` also writes everything in ASCII."""

    def __init__(self, *, ascii_only: bool = False) -> None:
        super().__init__()
        self.ascii_only = ascii_only

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [self._passed(segment) for segment in segments]

    def _passed(self, segment: Segment) -> Segment:
        text = segment.text
        if segment.control or (text.isascii() and text.isprintable()):
            return segment
        if not _MAYBE_UNSAFE.search(text):
            if not self.ascii_only:
                return segment
        else:
            text = "".join(letter for letter in text if safe(letter) == letter)
        if self.ascii_only:
            text = to_ascii(text)
        return Segment(text, segment.style)
