"""A curve brought down to the columns of a plot, and the axis it is drawn against.

Owns the decimation: each column keeps the least and the greatest value of its steps, so that a spike is never hidden,
with the first, the last, the mean and how many were no finite number. Invariants: new points cost only themselves; the
columns are filled anew only where the range, the width or the past of the curve changes. Refuses to know how a column
is drawn.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
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
        self.low = [NAN] * width
        self.high = [NAN] * width
        self.first = [NAN] * width
        self.last = [NAN] * width
        self.total = [0.0] * width
        self.count = [0] * width
        """Finite values."""
        self.broken = [0] * width
        """Values that are no finite number."""
        self.low_at_all, self.high_at_all = math.inf, -math.inf

    def place(self, step: int) -> int:
        """The column of a step: the first step is in the first column, the last in the last."""
        span = self.last_step - self.first_step
        return ((step - self.first_step) * (self.width - 1) * 2 + span) // (2 * span)

    def follow(self, points: Points | None) -> bool:
        """Take in what `points` has that is not here yet; whether anything was."""
        count = 0 if points is None else len(points)
        if points is not self._points:
            self._points, self._taken = points, 0
            self.renewals += 1
            self._clear()
            self._fill(points, count)
            return True
        if points is None or count <= self._taken:
            return False
        self._fill(points, count)
        return True

    @property
    def points(self) -> int:
        """Finite values in all columns."""
        return sum(self.count)

    @property
    def breaks(self) -> int:
        """Values in all columns that are no finite number."""
        return sum(self.broken)

    def _fill(self, points: Points | None, count: int) -> None:
        if points is None:
            return
        new = count - self._taken
        if new >= MANY or (new >= SOME and ("numpy" in sys.modules or _added_singly[0] >= MANY)):
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
            return
        if self.count[x]:
            self.low[x] = min(self.low[x], value)
            self.high[x] = max(self.high[x], value)
        else:
            self.low[x] = self.high[x] = self.first[x] = value
        self.last[x] = value
        self.total[x] += value
        self.count[x] += 1
        self.low_at_all = min(self.low_at_all, value)
        self.high_at_all = max(self.high_at_all, value)

    def _fill_many(self, points: Points, begin: int, end: int) -> None:
        import numpy as np

        # Copies: a view of a growing array would keep the thread that reads the file from appending to it.
        steps = np.frombuffer(points.steps[begin:end].tobytes(), np.int64)
        values = np.frombuffer(points.values[begin:end].tobytes(), np.float64)
        inside = slice(
            int(np.searchsorted(steps, self.first_step)), int(np.searchsorted(steps, self.last_step, "right"))
        )
        steps, values = steps[inside], values[inside]
        span = self.last_step - self.first_step
        x = ((steps - self.first_step) * ((self.width - 1) * 2) + span) // (2 * span)
        finite = np.isfinite(values)
        if not finite.all():
            for column, broken in zip(*np.unique(x[~finite], return_counts=True), strict=True):
                self.broken[int(column)] += int(broken)
            x, values = x[finite], values[finite]
        if len(x):
            self._merge(np, x, values)

    def _merge(self, np: Any, x: Any, values: Any) -> None:
        """Put finite values, in order of their columns `x`, into the columns."""
        starts = np.flatnonzero(np.diff(x, prepend=-1))
        ends = np.append(starts[1:], len(x))
        lows, highs = np.minimum.reduceat(values, starts).tolist(), np.maximum.reduceat(values, starts).tolist()
        totals = np.add.reduceat(values, starts).tolist()
        firsts, lasts = values[starts].tolist(), values[ends - 1].tolist()
        counts = (ends - starts).tolist()
        for i, column in enumerate(x[starts].tolist()):
            if self.count[column]:
                self.low[column] = min(self.low[column], lows[i])
                self.high[column] = max(self.high[column], highs[i])
            else:
                self.low[column], self.high[column], self.first[column] = lows[i], highs[i], firsts[i]
            self.last[column] = lasts[i]
            self.total[column] += totals[i]
            self.count[column] += counts[i]
        self.low_at_all = min(self.low_at_all, *lows)
        self.high_at_all = max(self.high_at_all, *highs)


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
