"""The last door before the terminal: every styled segment of every line passes here.

Owns two promises that hold for every widget, Textual's own among them: no control, bidirectional or unseen character of
a stranger's text reaches the terminal, and a terminal without UTF-8 gets ASCII of the same width. Widgets make text
visible with `engine.run.safe_text.safe` long before; what arrives here unsafe was forgotten somewhere and is dropped,
because a stand-in of another width would shift the line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from engine.run.safe_text import safe

_MAYBE_UNSAFE = re.compile(r"[^\x20-\x7e\u00a0-\u00ac\u00ae-\u034e\u2190-\u2bff]")
_ASCII: dict[str, str] = {
    **dict.fromkeys("─━═┄┅┈┉╌╍▁▔", "-"),
    **dict.fromkeys("│┃║┆┇┊┋╎╏▏▕▌▐", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰╔╗╚╝╠╣╦╩╬┏┓┗┛┣┫┳┻╋", "+"),
    **dict.fromkeys("▲△", "^"),
    **dict.fromkeys("▼▽", "v"),
    **dict.fromkeys("▶▸►→›»", ">"),
    **dict.fromkeys("◀◂◄←‹«", "<"),
    **dict.fromkeys("●◉■█▇▆▅◆★", "#"),
    **dict.fromkeys("○◌□▄▃▂◇☆", "o"),
    **dict.fromkeys("–—−", "-"),
    **dict.fromkeys("‘’", "'"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("·•∙", "."),
    "…": "$",
    "✓": "+",
    "✗": "x",
    "×": "x",
    "±": "~",
    "≈": "~",
    "↑": "^",
    "↓": "v",
    "⏎": ">",
    "␛": "?",
}
"""Characters the screens draw with, and what stands for each where the terminal has only ASCII."""


def lacks_utf8(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this terminal shows ASCII alone: its locale names another encoding, or its TERM is a console."""
    if environment.get("TERM", "") in ("linux", "vt100", "vt220"):
        return True
    if environment.get("LANG") in ("C", "POSIX") and not environment.get("LC_ALL"):
        # Python itself writes an LC_CTYPE of UTF-8 into the environment of a process in the C locale (PEP 538).
        return environment.get("LC_CTYPE", "") in ("", "C", "POSIX", "C.UTF-8", "C.utf8", "UTF-8")
    named = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or ""
    return "utf-8" not in named.lower().replace("utf8", "utf-8") and named != ""


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
        if _MAYBE_UNSAFE.search(text):
            text = "".join(letter for letter in text if safe(letter) == letter)
        if self.ascii_only:
            text = to_ascii(text)
        return Segment(text, segment.style)


def to_ascii(text: str) -> str:
    """`text` in ASCII, each character as wide as it was."""
    return "".join(letter if letter.isascii() else _ascii_of(letter) for letter in text)


def _ascii_of(letter: str) -> str:
    if letter in _ASCII:
        return _ASCII[letter]
    if "\u2800" <= letter <= "\u28ff":
        return " " if letter == "\u2800" else ("*" if (ord(letter) & 0xFF).bit_count() > 3 else ".")
    return "?" * cell_len(letter)
