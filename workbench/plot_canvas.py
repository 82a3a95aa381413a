"""A grid of braille dots with a tone for each cell: what a plot is drawn on before it becomes text.

Owns dots, tones and marks. A cell has one tone: that of the weightiest thing in it. Invariant: a dot that was set stays
set, whatever is drawn over it, but for a reference line, which gives way to any curve. Refuses to know values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

BLANK, REFERENCE, FAINT, THIRD, SECOND, LINE, HELD_OUT, BAD, LABEL, TITLE, VALUE = range(11)
"""Tones, the later the weightier."""
RUNS = tuple(range(11, 18))
"""Tones of the curves of several runs: no run outweighs another by more than its place."""
PALETTE = ("#56b4e9", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#f0e442", "#0072b2")
"""Their colours: Okabe and Ito's, which people of any colour vision tell apart."""
DOWN = 4
"""Dots in a cell, one above the other; there are two beside each other."""
DOTS = (0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80)
"""Bits of the dots of a cell, from above: those on the left, those on the right."""
_RUNS = tuple(tuple(tuple(sum(side[a : b + 1]) for b in range(DOWN)) for a in range(DOWN)) for side in DOTS)
"""Bits of the dots a to b of one half of a cell."""
_BRAILLE = tuple(chr(0x2800 + bits) if bits else " " for bits in range(256))


def _plain(bits: int) -> str:
    """A cell in ASCII: where in the cell the dots are."""
    upper, lower = bits & 0x1B, bits & 0xE4
    return " " if not bits else "|" if upper and lower else "'" if upper else "."


_ASCII = tuple(map(_plain, range(256)))
ASCII_MARKS = {"◆": "x", "◇": "o", "○": "u", "●": "@", "×": "X", "┊": ":", "◊": "~"}
"""What stands for a mark where there is only ASCII."""


def in_ascii(text: str) -> str:
    """`text` with its marks as they are drawn where there is only ASCII."""
    return text.translate({ord(mark): plain for mark, plain in ASCII_MARKS.items()})


class Canvas:
    """Dots, `width` cells by `height` cells; x and y of dots count from the upper left."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.bits = [bytearray(width) for _ in range(height)]
        self.tones = [bytearray(width) for _ in range(height)]
        self.marks: list[dict[int, str]] = [{} for _ in range(height)]

    @property
    def dots(self) -> tuple[int, int]:
        """Dots beside each other, and above each other."""
        return 2 * self.width, DOWN * self.height

    def vertical(self, x: int, top: int, bottom: int, tone: int) -> None:
        """Set the dots of one column from `top` to `bottom`; what lies outside is left out."""
        # The innermost loop of every panel: without calls.
        most = DOWN * self.height - 1
        top, bottom = (top if top > 0 else 0), (bottom if bottom < most else most)
        if top > bottom:
            return
        cell, side = x >> 1, _RUNS[x & 1]
        first, last = top >> 2, bottom >> 2
        for row in range(first, last + 1):
            dots = side[top & 3 if row == first else 0][bottom & 3 if row == last else 3]
            tones, bits = self.tones[row], self.bits[row]
            before = tones[cell]
            bits[cell] = dots if before == REFERENCE else bits[cell] | dots
            if tone > before:
                tones[cell] = tone

    def level(self, y: int) -> None:
        """A dotted line across, where nothing is drawn yet."""
        if 0 <= y < DOWN * self.height:
            row, bit = y >> 2, DOTS[0][y & 3]
            for cell in range(self.width):
                if not self.tones[row][cell]:
                    self.bits[row][cell], self.tones[row][cell] = bit, REFERENCE

    def mark(self, x: int, y: int, mark: str, tone: int) -> None:
        """A character in the cell of a dot."""
        if 0 <= y < DOWN * self.height:
            self.marks[y >> 2][x >> 1] = mark
            self.tones[y >> 2][x >> 1] = tone

    def write(self, row: int, text: str, tone: int) -> None:
        """Text at the right end of a row, where only a reference line or nothing is."""
        begin = self.width - len(text)
        if begin > 0 and 0 <= row < self.height and max(self.tones[row][begin - 1 :]) <= REFERENCE:
            for place, letter in enumerate(text):
                self.marks[row][begin + place] = letter
                self.tones[row][begin + place] = tone

    def line(self, row: int, *, plain: bool) -> str:
        """A row as text, one character for each cell."""
        characters = _ASCII if plain else _BRAILLE
        letters = [characters[bits] for bits in self.bits[row]]
        if plain:
            for cell, tone in enumerate(self.tones[row]):
                if tone == REFERENCE:
                    letters[cell] = "-" if cell % 2 else " "
                elif tone >= LINE and letters[cell] in "'.|":
                    letters[cell] = "*"
        for cell, mark in self.marks[row].items():
            letters[cell] = ASCII_MARKS.get(mark, mark) if plain else mark
        return "".join(letters)

    def curve(
        self, tops: Sequence[int], bottoms: Sequence[int], firsts: Sequence[int], lasts: Sequence[int],
        filled: Sequence[int], broken: Sequence[int], tone: int, *, gap: int = 0,
    ) -> None:  # fmt: skip
        """A curve of columns of dots, each joined to the one before; a break in the values is a break in the curve.

        With `gap` every so many columns are left out, but never one that is taller than the line itself: a spike
        shows however the curve is drawn.
        """
        before_x, before_y = -1, 0
        for x, count in enumerate(filled):
            if broken[x]:
                before_x = -1
            if not count:
                continue
            top, bottom = tops[x], bottoms[x]
            if before_x >= 0:
                for between in range(before_x + 1, x):
                    begin = _between(before_x, before_y, x, firsts[x], between - 1)
                    end = _between(before_x, before_y, x, firsts[x], between)
                    self._stroke(between, begin, end, tone, gap)
                y = _between(before_x, before_y, x, firsts[x], x - 1)
                top, bottom = min(top, y + 1 if y < top else top), max(bottom, y - 1 if y > bottom else bottom)
            if not gap or x // gap % 2 == 0 or bottom - top > 2:
                self.vertical(x, top, bottom, tone)
            before_x, before_y = x, lasts[x]

    def _stroke(self, x: int, begin: int, end: int, tone: int, gap: int) -> None:
        """A column of a straight line that comes from `begin` in the column before."""
        if gap and x // gap % 2:
            return
        if begin < end:
            self.vertical(x, begin + 1, end, tone)
        elif begin > end:
            self.vertical(x, end, begin - 1, tone)
        else:
            self.vertical(x, end, end, tone)


def _between(x0: int, y0: int, x1: int, y1: int, x: int) -> int:
    return y0 + math.floor((y1 - y0) * (x - x0) / (x1 - x0) + 0.5)
