"""What stands for a character where a terminal has only ASCII, and whether it has.

Owns the table. Invariant: what stands for a character is as wide as it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from workbench.text_wrapping import cells

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
    "≠": "!",
    "◊": "~",
    "↑": "^",
    "↓": "v",
    "⏎": ">",
    "␛": "?",
}
"""Characters that are drawn with, and what stands for each where the terminal has only ASCII."""


def lacks_utf8(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this terminal shows ASCII alone: its locale names another encoding, or its TERM is a console."""
    if environment.get("TERM", "") in ("linux", "vt100", "vt220"):
        return True
    if environment.get("LANG") in ("C", "POSIX") and not environment.get("LC_ALL"):
        # Python itself writes an LC_CTYPE of UTF-8 into the environment of a process in the C locale (PEP 538).
        return environment.get("LC_CTYPE", "") in ("", "C", "POSIX", "C.UTF-8", "C.utf8", "UTF-8")
    named = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or ""
    return "utf-8" not in named.lower().replace("utf8", "utf-8") and named != ""


def to_ascii(text: str) -> str:
    """`text` in ASCII, each character as wide as it was."""
    return "".join(letter if letter.isascii() else _ascii_of(letter) for letter in text)


def _ascii_of(letter: str) -> str:
    if letter in _ASCII:
        return _ASCII[letter]
    if "\u2800" <= letter <= "\u28ff":
        return " " if letter == "\u2800" else ("*" if (ord(letter) & 0xFF).bit_count() > 3 else ".")
    return "?" * cells(letter)
