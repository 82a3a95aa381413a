"""Lines of a plot as they are shown, and what differs between two of them.

Owns the comparison: what lies close together is sent as one, since moving the cursor costs as much as a few cells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import ne

from workbench.plot_canvas import ASCII_MARKS, LABEL, REFERENCE, TITLE
from workbench.text_wrapping import cells as cell_len
from workbench.text_wrapping import cut

TAPE = 8
"""Changes so many cells from each other, or nearer, are sent as one."""
_CLOSE_TOGETHER = re.compile(rb"\x01(?:\x00{0,%d}\x01)*" % TAPE)


@dataclass(frozen=True)
class PlotRow:
    """One line as it is shown: a tone for each cell. `wide` holds text in which a character may be two cells."""

    text: str
    tones: bytes
    wide: str = ""
    wide_tone: int = TITLE


def changed_spans(old: PlotRow, new: PlotRow, width: int) -> list[tuple[int, int]]:
    """Where two rows differ: (first cell, cells), with what lies close together taken as one."""
    if (old.wide, old.wide_tone) != (new.wide, new.wide_tone) or len(old.text) != len(new.text):
        return [(0, width)]
    offset = cell_len(new.wide)
    other = bytes(map(ne, zip(old.text, old.tones, strict=True), zip(new.text, new.tones, strict=True)))
    return [(offset + found.start(), found.end() - found.start()) for found in _CLOSE_TOGETHER.finditer(other)]


def crossed(row: PlotRow, at: int, *, plain: bool) -> PlotRow:
    """The row with the crosshair in a cell, where nothing but a reference line is drawn."""
    if row.tones[at] > REFERENCE:
        return row
    mark = ASCII_MARKS["┊"] if plain else "┊"
    tones = row.tones[:at] + bytes([LABEL]) + row.tones[at + 1 :]
    return PlotRow(row.text[:at] + mark + row.text[at + 1 :], tones, row.wide, row.wide_tone)


def centred(words: str, width: int) -> PlotRow:
    """A row with words in its middle."""
    text = cut(words, width).center(width)[:width]
    return PlotRow(text, bytes([LABEL]) * width)
