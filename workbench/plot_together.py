"""Many curves of one panel drawn at once: as `plot_drawing` and `Canvas.curve` draw one, over whole arrays.

Owns that drawing alone. Invariant: dot for dot what drawing one curve after the other gives; a smoothed curve, whose
sums are taken in another order, may round to the dot beside. Shapes: K curves, X columns of dots, Y rows of dots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from workbench.curve_columns import Axis, Columns
from workbench.plot_canvas import DOTS, DOWN, FAINT, REFERENCE, RUNS, Canvas

MANY_CURVES = 6
"""From so many curves on a panel is drawn so; numpy is imported for it."""
TONES = RUNS[-1] + 1
_FARTHEST = 1e6
"""Dots from the canvas at which a curve is as good as gone."""


@dataclass(frozen=True)
class Curve:
    """One curve as it is drawn."""

    columns: Columns
    tone: int
    gap: int
    """Every so many columns of dots are left out; 0 for none."""
    smooth: bool
    """Draw it faint, and its smoothed curve over it."""


def draw_together(canvas: Canvas, curves: Sequence[Curve], scale: Axis, over: float) -> None:
    """Draw curves, the smoothed ones with a reach of `over` columns."""
    import numpy as np

    table = _Table(np, [curve.columns for curve in curves])
    rows = canvas.dots[1]
    smooth = np.array([curve.smooth for curve in curves])
    strong = np.array([curve.tone for curve in curves])
    gaps = np.array([curve.gap for curve in curves])
    with np.errstate(all="ignore"):
        tones = np.where(smooth, FAINT, strong)
        tops, bottoms, firsts, lasts = _dots(np, scale, table.ends, rows)
        joined = _joined(np, tops, bottoms, firsts, lasts, table)
        strokes = [_strokes(np, *joined, table, tones, gaps, np.ones_like(smooth))]
        if smooth.any():
            means = _dots(np, scale, table.smoothed(np, over), rows)
            joined = _joined(np, means, means, means, means, table)
            strokes.append(_strokes(np, *joined, table, strong, np.zeros_like(gaps), smooth))
    _put(np, canvas, *(np.concatenate(parts) for parts in zip(*strokes, strict=True)))


class _Table:
    """The columns of curves, K by X."""

    def __init__(self, np: Any, columns: Sequence[Columns]) -> None:
        def whole(kind: Any, *names: str) -> Any:
            joined = b"".join([getattr(one, name) for name in names for one in columns])
            return np.frombuffer(joined, kind).reshape(len(names), len(columns), columns[0].width)

        self.ends = whole(np.float64, "high", "low", "first", "last")
        self.total = whole(np.float64, "total")[0]
        self.count, broken = whole(np.int64, "count", "broken")
        self.filled = self.count > 0
        at = np.arange(self.count.shape[1])
        here = np.where(self.filled, at, -1)
        reached = np.maximum.accumulate(here, axis=1)
        self.before = np.concatenate([np.full((len(columns), 1), -1), reached[:, :-1]], axis=1)
        """The last column with a value that lies before this one; -1 where there is none."""
        cut = np.maximum.accumulate(np.where(broken > 0, at, -1), axis=1)
        self.joins = self.filled & (self.before >= 0) & (cut <= self.before)
        """Columns whose values are joined to those before."""
        far = at[-1] + 1
        behind = np.minimum.accumulate(np.where(self.filled, at, far)[:, ::-1], axis=1)[:, ::-1]
        k, x = np.nonzero(~self.filled & (behind < far))
        joined = self.joins[k, behind[k, x]]
        self.gaps = (k[joined], x[joined], behind[k, x][joined])
        """(curve, column, the next column with a value) of empty columns that a curve goes through."""

    def smoothed(self, np: Any, over: float) -> Any:
        """As `curve_columns.smoothed`, of every curve."""
        fades = _fades(self.count.shape[1], over)
        means = np.where(self.filled, self.total / np.maximum(self.count, 1), 0.0)
        return np.where(self.filled, means @ fades / (self.filled @ fades), np.nan)


@lru_cache(maxsize=16)
def _fades(width: int, over: float) -> Any:
    """How much each column, a row, still counts in each other one."""
    import numpy as np

    back = np.arange(width) - np.arange(width)[:, None]
    return np.where(back >= 0, np.exp(-np.maximum(back, 0) / over), 0.0)


def _dots(np: Any, scale: Axis, values: Any, rows: int) -> Any:
    """Rows of dots of values, 0 at the top; 0 where there is none."""
    if scale.log:
        low, high = np.log10(scale.low), np.log10(scale.high)
        shares = np.where(values > 0, (np.log10(values) - low) / (high - low), -1.0)
        shares = np.where(np.isnan(values), np.nan, shares)
    else:
        shares = (values - scale.low) / (scale.high - scale.low)
    dots = np.floor((1 - shares) * (rows - 1) + 0.5)
    return np.where(dots == dots, np.clip(dots, -_FARTHEST, _FARTHEST), 0.0).astype(np.int64)


def _joined(np: Any, tops: Any, bottoms: Any, firsts: Any, lasts: Any, table: _Table) -> tuple[Any, Any]:
    """Uppermost and lowest dot of each column, so that it meets the column before, with the way through empty ones."""
    tops, bottoms = tops.copy(), bottoms.copy()
    k, x = np.nonzero(table.joins)
    x0 = table.before[k, x]
    y = lasts[k, x0]
    if len(table.gaps[0]):  # else every column is joined to the one beside it
        y = _between(np, x0, y, x, firsts[k, x], x - 1)
    top, bottom = tops[k, x], bottoms[k, x]
    tops[k, x] = np.minimum(top, np.where(y < top, y + 1, top))
    bottoms[k, x] = np.maximum(bottom, np.where(y > bottom, y - 1, bottom))
    k, x, x1 = table.gaps
    if not len(k):
        return tops, bottoms
    x0 = table.before[k, x]
    begin = _between(np, x0, lasts[k, x0], x1, firsts[k, x1], x - 1)
    end = _between(np, x0, lasts[k, x0], x1, firsts[k, x1], x)
    tops[k, x] = np.where(begin < end, begin + 1, end)
    bottoms[k, x] = np.where(begin > end, begin - 1, end)
    return tops, bottoms


def _between(np: Any, x0: Any, y0: Any, x1: Any, y1: Any, x: Any) -> Any:
    return y0 + np.floor((y1 - y0) * (x - x0) / (x1 - x0) + 0.5).astype(np.int64)


def _strokes(
    np: Any, tops: Any, bottoms: Any, table: _Table, tones: Any, gaps: Any, which: Any
) -> tuple[Any, Any, Any, Any]:
    """(column, uppermost dot, lowest dot, tone) of all that is drawn of the curves that are meant."""
    at = np.arange(tops.shape[1])
    drawn = (gaps[:, None] == 0) | (at // np.maximum(gaps, 1)[:, None] % 2 == 0)
    through = np.zeros(tops.shape, bool)
    through[table.gaps[0], table.gaps[1]] = True
    there = (table.filled & (drawn | (bottoms - tops > 2))) | (through & drawn)
    k, x = np.nonzero(there & which[:, None])
    return x, tops[k, x], bottoms[k, x], tones[k]


def _put(np: Any, canvas: Canvas, x: Any, tops: Any, bottoms: Any, tones: Any) -> None:
    """Set the dots of strokes; a cell takes the weightiest tone in it, and a reference line gives way."""
    wide, high = canvas.dots
    tops, bottoms = np.maximum(tops, 0), np.minimum(bottoms, high - 1)
    inside = tops <= bottoms
    x, tops, bottoms, tones = (some[inside] for some in (x, tops, bottoms, tones))
    cells = (canvas.height, DOWN, canvas.width, 2)
    dots = _filled(np, x, tops, bottoms, high, wide).reshape(cells) * np.array(DOTS, np.uint8).T[None, :, None, :]
    halves = dots[..., 0] | dots[..., 1]
    bits = halves[:, 0] | halves[:, 1] | halves[:, 2] | halves[:, 3]
    # The cells of every tone at once, a layer for each; of those that lie over each other the weightiest shows.
    layer = tones * (canvas.height + 1)
    layers = _filled(np, x >> 1, layer + (tops >> 2), layer + (bottoms >> 2), TONES * (canvas.height + 1), canvas.width)
    layers = layers.reshape(TONES, canvas.height + 1, canvas.width)[:, :-1]
    weightiest = (layers * np.arange(TONES, dtype=np.uint8)[:, None, None]).max(axis=0)
    for row in range(canvas.height):
        old_bits, old_tones = np.frombuffer(canvas.bits[row], np.uint8), np.frombuffer(canvas.tones[row], np.uint8)
        gives_way = (bits[row] > 0) & (old_tones == REFERENCE)
        old_bits[:] = np.where(gives_way, bits[row], old_bits | bits[row])
        old_tones[:] = np.maximum(old_tones, weightiest[row])


def _filled(np: Any, x: Any, tops: Any, bottoms: Any, high: int, wide: int) -> Any:
    """Whether each place of a grid lies in one of the strokes."""
    size = (high + 1) * wide
    ends = np.bincount(tops * wide + x, minlength=size) - np.bincount((bottoms + 1) * wide + x, minlength=size)
    return np.cumsum(ends.reshape(high + 1, wide)[:-1], axis=0) > 0
