"""A curve brought down to the columns of a plot, and the axis it is drawn against.

Owns the decimation: each column keeps the least and the greatest value of its steps, so that a spike is never hidden,
with the first, the last, the mean and how many were no finite number. Invariants: new points cost only themselves; the
columns are filled anew only where the range, the width or the past of the curve changes. Refuses to know how a column
is drawn.
"""

from __future__ import annotations

import math
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from workbench.curves import Points

LOG_FROM = 3.0
"""A logarithmic axis is for values whose greatest is so many times the least."""
MANY = 20_000
"""From this many points on, columns are filled by numpy, whose import costs more than fewer points do."""
SOME = 500
"""From this many on it is faster, once it is loaded, or once so many points were added one by one as would pay for it.
"""
NAN = math.nan
_added_singly = [0]
"""Points that this process has added one by one."""


def is_worth_numpy(new: int) -> bool:
    """Whether so many points are taken in faster by numpy, its import counted where it is not there yet."""
    return new >= MANY or (new >= SOME and ("numpy" in sys.modules or _added_singly[0] >= MANY))


def column_of(step: int, first_step: int, last_step: int, width: int) -> int:
    """The column of a step: the first step is in the first column, the last in the last."""
    span = max(1, last_step - first_step)
    return ((step - first_step) * (width - 1) * 2 + span) // (2 * span)


@lru_cache(maxsize=64)
def _bounds(first_step: int, last_step: int, width: int) -> Any:
    """The least step of each column, and behind the last one the step with which the axis has ended."""
    import numpy as np

    span, gaps = last_step - first_step, 2 * (width - 1)
    # place(step) >= x where (step - first) * gaps + span >= 2 * span * x; rounded up.
    inner = [first_step - (-(span * (2 * x - 1)) // gaps) for x in range(1, width)]
    return np.array([first_step, *inner, last_step + 1], np.int64)


class Columns:
    """The points of one metric between two steps, in columns of equal ranges of steps. NaN where there is none."""

    def __init__(self, first_step: int, last_step: int, width: int) -> None:
        self.first_step, self.last_step, self.width = first_step, max(first_step + 1, last_step), max(1, width)
        self._points: Points | None = None
        self._taken = 0
        self.renewals = 0
        """How often the columns were filled anew, because the past of the curve changed."""
        self._clear()

    def _clear(self) -> None:
        width = self.width
        # Arrays, so that numpy fills and reads them where they are.
        self.low = array("d", [NAN]) * width
        self.high = array("d", [NAN]) * width
        self.first = array("d", [NAN]) * width
        self.last = array("d", [NAN]) * width
        self.total = array("d", [0.0]) * width
        self.count = array("q", [0]) * width
        """Finite values."""
        self.broken = array("q", [0]) * width
        """Values that are no finite number."""
        self.points = 0
        """Finite values in all columns."""
        self.breaks = 0
        """Values in all columns that are no finite number."""
        self.low_at_all, self.high_at_all = math.inf, -math.inf

    def place(self, step: int) -> int:
        """The column of a step."""
        return column_of(step, self.first_step, self.last_step, self.width)

    def follow(self, points: Points | None) -> bool:
        """Take in what `points` has that is not here yet; whether anything was."""
        count = 0 if points is None else len(points)
        if points is not self._points:
            if self._points is not None:
                self._clear()
            self._points, self._taken = points, 0
            self.renewals += 1
            self._fill(points, count)
            return True
        if points is None or count <= self._taken:
            return False
        self._fill(points, count)
        return True

    def take(
        self, points: Points, taken: int, filled: Sequence[bytes], count: bytes, ends: tuple[float, float]
    ) -> None:
        """Be filled by `fill_together`: with the bytes of low, high, first, last and total; `ends` are of all."""
        self._points, self._taken = points, taken
        self.renewals += 1
        self.low, self.high, self.first, self.last, self.total = (array("d", some) for some in filled)
        self.count = array("q", count)
        self.points = sum(self.count)
        if self.points:
            self.low_at_all, self.high_at_all = ends

    def _fill(self, points: Points | None, count: int) -> None:
        if points is None:
            return
        new = count - self._taken
        if is_worth_numpy(new):
            self._fill_many(points, self._taken, count)
        else:
            _added_singly[0] += new
            for place in range(self._taken, count):
                self._add(points.steps[place], points.values[place])
        self._taken = count

    def _add(self, step: int, value: float) -> None:
        if not self.first_step <= step <= self.last_step:
            return
        x = self.place(step)
        if not math.isfinite(value):
            self.broken[x] += 1
            self.breaks += 1
            return
        if self.count[x]:
            self.low[x] = min(self.low[x], value)
            self.high[x] = max(self.high[x], value)
        else:
            self.low[x] = self.high[x] = self.first[x] = value
        self.last[x] = value
        self.total[x] += value
        self.count[x] += 1
        self.points += 1
        self.low_at_all = min(self.low_at_all, value)
        self.high_at_all = max(self.high_at_all, value)

    def _fill_many(self, points: Points, begin: int, end: int) -> None:
        import numpy as np

        begin = bisect_left(points.steps, self.first_step, begin, end)
        end = bisect_right(points.steps, self.last_step, begin, end)
        # Copies: a view of a growing array would keep the thread that reads the file from appending to it.
        steps = np.frombuffer(points.steps[begin:end], np.int64)
        values = np.frombuffer(points.values[begin:end], np.float64)
        bounds = _bounds(self.first_step, self.last_step, self.width)
        finite = np.isfinite(values)
        if not finite.all():
            ends: Any = np.searchsorted(steps[~finite], bounds)
            broken = ends[1:] - ends[:-1]
            np.frombuffer(self.broken, np.int64)[:] += broken
            self.breaks += int(broken.sum())
            steps, values = steps[finite], values[finite]
        if len(values):
            self._merge(np, np.searchsorted(steps, bounds), values)

    def _merge(self, np: Any, bounds: Any, values: Any) -> None:
        """Put finite values into the columns; those of column x lie between `bounds[x]` and `bounds[x + 1]`."""
        new = bounds[1:] - bounds[:-1]
        x = np.flatnonzero(new)
        starts, ends = bounds[x], bounds[x + 1]
        lows, highs = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        firsts, totals = values[starts], np.add.reduceat(values, starts)
        low, high, first, last, total = (
            np.frombuffer(some, np.float64) for some in (self.low, self.high, self.first, self.last, self.total)
        )
        if self.points:
            # fmin and fmax: what is in a column that was empty is no number.
            lows, highs = np.fmin(low[x], lows), np.fmax(high[x], highs)
            firsts = np.where(first[x] == first[x], first[x], firsts)
            totals = totals + total[x]
        low[x], high[x], first[x], last[x], total[x] = lows, highs, firsts, values[ends - 1], totals
        np.frombuffer(self.count, np.int64)[:] += new
        self.points += len(values)
        self.low_at_all = min(self.low_at_all, float(lows.min()))
        self.high_at_all = max(self.high_at_all, float(highs.max()))


def fill_together(many: Sequence[tuple[Columns, Points]]) -> None:
    """Take in all points of many curves, each in columns that are new and alike: as `follow` does, in one go."""
    import numpy as np

    one, width = many[0][0], many[0][0].width
    bounds = _bounds(one.first_step, one.last_step, width)
    counts = [len(points) for _, points in many]
    places: Any = np.empty((len(many), width + 1), np.int64)
    parts, offset = [], 0
    for k, (_, points) in enumerate(many):
        begin = bisect_left(points.steps, one.first_step, 0, counts[k])
        end = bisect_right(points.steps, one.last_step, begin, counts[k])
        if end > begin and points.steps[end - 1] - points.steps[begin] == end - begin - 1:
            # A value at every step: where each is needs no search.
            np.clip(bounds - points.steps[begin], 0, end - begin, out=places[k])
        else:
            places[k] = np.searchsorted(np.frombuffer(points.steps[begin:end], np.int64), bounds)
        places[k] += offset
        parts.append(points.values[begin:end])
        offset += end - begin
    values = np.frombuffer(b"".join(parts), np.float64)
    new = places[:, 1:] - places[:, :-1]
    there = new > 0
    starts, ends = places[:, :-1][there], places[:, 1:][there]
    with np.errstate(all="ignore"):
        totals = np.add.reduceat(values, starts) if len(values) else values
    if not len(values) or not np.isfinite(totals).all():  # what is no finite number is none in its sum either
        for columns, points in many:
            columns.follow(points)
        return
    found = np.full((5, len(many), width), NAN)
    for place, some in enumerate((
        np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts), values[starts], values[ends - 1],
        totals,
    )):  # fmt: skip
        found[place][there] = some
    found[4][~there] = 0.0
    ends_of = zip(np.fmin.reduce(found[0], axis=1).tolist(), np.fmax.reduce(found[1], axis=1).tolist(), strict=True)
    for k, ((columns, points), both) in enumerate(zip(many, ends_of, strict=True)):
        columns.take(points, counts[k], [part.tobytes() for part in found[:, k]], new[k].tobytes(), both)


def smoothed(columns: Columns, over: float) -> list[float]:
    """A mean of the columns' means in which a column counts less by a factor e for each `over` columns it lies back.

    NaN where a column is empty. Only what lies to the left of a column enters it, so that new points change the end
    alone.
    """
    result = [NAN] * columns.width
    value = weight = 0.0
    before = 0
    for x, count in enumerate(columns.count):
        if count:
            fade = math.exp((before - x) / over)
            value = value * fade + columns.total[x] / count
            weight = weight * fade + 1.0
            result[x] = value / weight
            before = x
    return result


@dataclass(frozen=True)
class Axis:
    """The range of values that a plot shows, and where its ticks are."""

    low: float
    high: float
    ticks: tuple[float, ...]
    step: float = 0.0
    """Between ticks; 0 on a logarithmic axis."""

    @property
    def log(self) -> bool:
        return self.step == 0

    def share(self, value: float) -> float:
        """How far up a value lies: 0 at `low`, 1 at `high`; may lie outside."""
        if self.log:
            if value <= 0:
                return -1.0
            return (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return (value - self.low) / (self.high - self.low)


def axis(low: float, high: float, most_ticks: int, *, log: bool = False, share: bool = False) -> Axis:
    """A range with round ends that holds `low` to `high`, and ticks at 1, 2 or 5 times a power of ten.

    `share` keeps it between 0 and 1. With `log` the values must be above 0 and far apart, else the axis is linear.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = 0.0, 1.0
    if log and low > 0 and high >= LOG_FROM * low:
        return _log_axis(low, high, most_ticks)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        reach = abs(high) / 2 or 1.0
        low, high = low - reach, high + reach
    if high - low == math.inf:
        low, high = low / 4, high / 4
    step = nice_step((high - low) / max(1, most_ticks))
    half = step / 2
    bottom, top = math.floor(low / half + 1e-9) * half, math.ceil(high / half - 1e-9) * half
    if share:
        bottom, top = max(0.0, bottom), min(1.0, top)
        if bottom >= top:
            bottom, top = 0.0, 1.0
    first = math.ceil(bottom / step - 1e-9)
    ticks = tuple(place * step for place in range(first, math.floor(top / step + 1e-9) + 1))
    return Axis(bottom, top, ticks, step)


def nice_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    if least <= 0 or not math.isfinite(least):
        return 1.0
    power = math.pow(10.0, math.floor(math.log10(least)))
    for factor in (1.0, 2.0, 5.0, 10.0):
        if factor * power >= least * (1 - 1e-9):
            return factor * power
    return 10.0 * power


def _log_axis(low: float, high: float, most_ticks: int) -> Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    candidates = [factor * 10.0**power for power in range(first, last + 1) for factor in (1.0, 2.0, 5.0)]
    bottom = max((c for c in candidates if c <= low * (1 + 1e-9)), default=low)
    top = min((c for c in candidates if c >= high * (1 - 1e-9)), default=high)
    if bottom >= top:
        bottom, top = bottom / 2, top * 2
    inside = [c for c in candidates if bottom <= c <= top]
    if len(inside) > most_ticks:
        decades = [10.0**power for power in range(first, last + 1) if bottom <= 10.0**power <= top]
        every = -(-len(decades) // max(1, most_ticks))
        inside = decades[::every] or inside[:: len(inside) - 1]
    return Axis(bottom, top, tuple(inside))


_SUFFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def short_number(value: float, width: int = 6, step: float = 0.0) -> str:
    """A number in at most `width` (6 or more) cells. With `step` it has the decimals that tell ticks apart."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 10_000 or (step and step >= 1e-3 and abs(value) < 10_000):
        decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 6
        text = f"{value:.{decimals}f}" if step else _significant(value)
        if len(text) <= width:
            return text
        return _significant(value)[:width].rstrip(".")
    for size, suffix in _SUFFIXES:
        if size <= abs(value) < size * 1000:
            return _significant(value / size, 3) + suffix
    text = f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e").replace(".0e", "e")
    return text if len(text) <= width else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _significant(value: float, digits: int = 4) -> str:
    """`value`, of ordinary size, with that many digits that matter and three decimals at most."""
    whole = max(1, math.floor(math.log10(abs(value))) + 1)
    return f"{value:.{min(3, max(0, digits - whole))}f}"
