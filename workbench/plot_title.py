"""The title of a panel of curves: what it is, its unit, and the last value of each curve with its mark.

Owns what is left out where there is little room. Invariant: what is returned is as wide as was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.run.safe_text import safe
from workbench.curve_panels import LONGEST_SOURCE, Panel
from workbench.plot_canvas import ASCII_MARKS
from workbench.text_wrapping import cells as cell_len
from workbench.text_wrapping import cut

POINTS = "◆◇○"
"""The marks of the first, second and third held-out curve of a panel."""
_LEGEND = {"line": "─", "dashes": "┄", "dots": "┈", "long-dashes": "╌"}
_PLAIN_LEGEND = {"line": "*", "dashes": "'", "dots": ":", "long-dashes": "-"}

LastValue = tuple[str, str, str]
"""(kind or mark, label, last value) of a curve."""


def title_parts(panel: Panel, unit: str, values: Sequence[LastValue], width: int, *, plain: bool) -> tuple[str, str]:
    """(title, legend) in less than `width` cells together; `unit` stands behind the title where there is room."""
    short = panel.short_title or panel.title
    if panel.by_name:
        whole = (panel.title + unit, LONGEST_SOURCE)
        for title, longest in (whole, *((short, cells) for cells in range(LONGEST_SOURCE, 1, -1))):
            legend = _legend([(kind, cut(label, longest), text) for kind, label, text in values], True, plain)
            if _fits(title, legend, width):
                return title, legend
    labelled, bare = (_legend(values, with_labels, plain) for with_labels in (True, False))
    for title in (panel.title, short):
        for legend in (labelled, bare):
            if _fits(title + unit, legend, width):
                return title + unit, legend
    left = short + unit
    room = width - min(cell_len(left), 16) - 3
    # Of many curves few fit: they are counted up, not tried from all of them down.
    shown = 1
    while shown < len(values) and cell_len(_legend(values[: shown + 1], False, plain)) <= room:
        shown += 1
    legend = _legend(values[:shown], False, plain, alone=len(values) == 1)
    return cut(left, width - cell_len(legend) - 3), legend


def _fits(title: str, legend: str, width: int) -> bool:
    return cell_len(safe(title)) + 2 + cell_len(legend) < width


def _legend(values: Sequence[LastValue], with_labels: bool, plain: bool, *, alone: bool = True) -> str:
    """A value each; one that is `alone` in its panel needs no mark, unless it is the letter of a run."""
    if len(values) == 1 and alone and values[0][0] in _LEGEND:
        return values[0][2]
    marks = _PLAIN_LEGEND if plain else _LEGEND
    parts = []
    for kind, label, text in values:
        mark = marks.get(kind) or (ASCII_MARKS.get(kind, kind) if plain else kind)
        parts.append(f"{mark}{f'{label} ' if with_labels and label else ''}{text}")
    return "  ".join(parts)
