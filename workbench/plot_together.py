"""Many curves of one panel drawn at once: as `plot_drawing` and `Canvas.curve` draw one, over whole arrays.

Owns that drawing alone. Invariant: dot for dot what drawing one curve after the other gives; a smoothed curve, whose
sums are taken in another order, may round to the dot beside. Shapes: K curves, X columns of dots, Y rows of dots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from workbench.curve_columns import Columns
from workbench.plot_canvas import DOTS, DOWN, FAINT, REFERENCE, RUNS, Canvas
from workbench.value_axis import Axis

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
        bottoms, tops, firsts, lasts = _dots(np, scale, table.ends, rows)
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
        values, counts = _lying_together(columns) or _joined_up(np, columns)
        self.ends, self.total, self.count = values[:4], values[4], counts
        broken = None
        if any(one.breaks for one in columns):
            broken = np.stack([np.frombuffer(one.broken, np.int64) for one in columns])
        self.filled = self.count > 0
        at = np.arange(self.count.shape[1])
        here = np.where(self.filled, at, -1)
        reached = np.maximum.accumulate(here, axis=1)
        self.before = np.concatenate([np.full((len(columns), 1), -1), reached[:, :-1]], axis=1)
        """The last column with a value that lies before this one; -1 where there is none."""
        self.joins = self.filled & (self.before >= 0)
        """Columns whose values are joined to those before."""
        if broken is not None:
            self.joins &= np.maximum.accumulate(np.where(broken > 0, at, -1), axis=1) <= self.before
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


def _lying_together(columns: Sequence[Columns]) -> tuple[Any, Any] | None:
    """Values and counts of columns that lie in one block, in this order or the other way; None where they do not."""
    first, last = columns[0].block, columns[-1].block
    if first is None or last is None:
        return None
    by = 1 if last[2] >= first[2] else -1
    wanted = range(first[2], last[2] + by, by)
    blocks = [one.block for one in columns]
    if [block and (id(block[0]), block[2]) for block in blocks] != [(id(first[0]), k) for k in wanted]:
        return None
    which = slice(wanted.start, wanted.stop if wanted.stop >= 0 else None, by)
    return first[0][:, which], first[1][which]


def _joined_up(np: Any, columns: Sequence[Columns]) -> tuple[Any, Any]:
    """Values and counts of columns, put together."""
    joined = b"".join([getattr(one, name) for name in ("low", "high", "first", "last", "total") for one in columns])
    shape = (len(columns), columns[0].width)
    counts = np.frombuffer(b"".join([one.count for one in columns]), np.int64)
    return np.frombuffer(joined, np.float64).reshape(5, *shape), counts.reshape(shape)


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
    if len(table.gaps[0]):
        k, x = np.nonzero(table.joins)
        x0 = table.before[k, x]
        y = np.zeros_like(lasts)
        y[k, x] = _between(np, x0, lasts[k, x0], x, firsts[k, x], x - 1)
    else:  # every column is joined to the one beside it
        y = np.concatenate([lasts[:, :1], lasts[:, :-1]], axis=1)
    tops = np.where(table.joins & (y < tops), y + 1, tops)
    bottoms = np.where(table.joins & (y > bottoms), y - 1, bottoms)
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
    there = table.filled & (drawn | (bottoms - tops > 2))
    if len(table.gaps[0]):
        through = np.zeros(tops.shape, bool)
        through[table.gaps[0], table.gaps[1]] = True
        there |= through & drawn
    flat = np.flatnonzero(there & which[:, None])
    k, x = np.divmod(flat, tops.shape[1])
    return x, tops.ravel()[flat], bottoms.ravel()[flat], tones[k]


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
    old_bits, old_tones = (
        np.frombuffer(b"".join(rows), np.uint8).reshape(bits.shape) for rows in (canvas.bits, canvas.tones)
    )
    gives_way = (bits > 0) & (old_tones == REFERENCE)
    new_bits, new_tones = np.where(gives_way, bits, old_bits | bits), np.maximum(old_tones, weightiest)
    for row in range(canvas.height):
        canvas.bits[row][:], canvas.tones[row][:] = new_bits[row].tobytes(), new_tones[row].tobytes()


def _filled(np: Any, x: Any, tops: Any, bottoms: Any, high: int, wide: int) -> Any:
    """Whether each place of a grid lies in one of the strokes."""
    size = (high + 1) * wide
    ends = np.bincount(tops * wide + x, minlength=size) - np.bincount((bottoms + 1) * wide + x, minlength=size)
    return np.cumsum(ends.reshape(high + 1, wide)[:-1], axis=0) > 0
