"""Text cut into lines of a given width, as a terminal counts it.

Owns wrapping and cutting by cells: a wide character is two, a combining one none. Everything that comes out is safe to
write, whatever went in. How wide a character is has one answer, rich's, which is also what draws the screens; it is
imported where a text is not ASCII. Refuses to know about styles.
"""

from __future__ import annotations

import re

from engine.run.safe_text import safe

LONGEST = 262_144
"""Characters of one text that are laid out; the rest is told as its size. A cell of 1 MB must not stop the screen."""
EMOJI_STYLE = "\ufe0f"
"""Makes the character before it an emoji, which may be a cell wider."""
_WORDS = re.compile(r"\s*\S+\s*")


def cells(text: str) -> int:
    """How many cells `text`, which is safe already, takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def wrap(text: str, width: int, limit: int = LONGEST) -> list[str]:
    """The lines of `text`, none wider than `width` cells; an empty text has one empty line."""
    width = max(1, width)
    lines: list[str] = []
    for paragraph in safe(text, limit, newlines=True).split("\n"):
        lines += [paragraph.rstrip()] if cells(paragraph) <= width else _wrap_paragraph(paragraph, width)
    return lines


def cut(text: str, width: int) -> str:
    """One line of `text`, at most `width` cells; a longer one ends in "…"."""
    # The longest text that could fit, so that a cell of a megabyte costs no more than a short one.
    line = safe(text[: 4 * width + 16])
    if len(text) <= 4 * width + 16 and cells(line) <= width:
        return line
    return "" if width < 1 else fit(line, width - 1).rstrip() + "…"


def cut_head(text: str, width: int) -> str:
    """One line of `text`, at most `width` cells; a longer one begins with "…" and keeps its end, as a path should."""
    line = safe(text[-4 * width - 16 :])
    if cells(line) <= width and len(text) <= 4 * width + 16:
        return line
    while cells(line) > width - 1 and line:
        line = line[1:]
    return "…" + line if width > 0 else ""


def fit(text: str, width: int) -> str:
    """`text`, which is safe already, padded or cropped to exactly `width` cells."""
    if text.isascii():
        return text[:width].ljust(width)
    from rich.cells import set_cell_size

    return set_cell_size(text, width)


def _wrap_paragraph(paragraph: str, width: int) -> list[str]:
    lines: list[str] = []
    line, room = "", width
    # Without its blank end: the pattern needs quadratic time for a text that is blank all through.
    for found in _WORDS.finditer(paragraph.rstrip()):
        word = found[0]
        needed = cells(word.rstrip())
        if needed > room and line:
            lines.append(line.rstrip())
            line, room, word = "", width, word.lstrip()
            needed = cells(word.rstrip())
        if needed > room:
            body = word.rstrip()
            *whole, rest = _pieces(body, width)
            lines += whole
            word = rest + word[len(body) :]
        line += word
        room = width - cells(line)
    if line.rstrip() or not lines:
        lines.append(line.rstrip())
    return lines


def _pieces(word: str, width: int) -> list[str]:
    """A word without blanks at its end in pieces of at most `width` cells and at least one character, in one pass."""
    if word.isascii():
        return [word[start : start + width] for start in range(0, len(word), width)]
    pieces: list[str] = []
    start = used = 0
    for place, letter in enumerate(word):
        wide = 1 if letter == EMOJI_STYLE else cells(letter)
        if used + wide > width and place > start:
            pieces.append(word[start:place])
            start, used = place, 0
        used += wide
    return [*pieces, word[start:]]
