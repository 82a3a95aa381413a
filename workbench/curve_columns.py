"""A curve brought down to the columns of a plot.

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
from functools import lru_cache
from typing import Any

from workbench.curves import Points

MANY = 20_000
"""From this many points on, columns are filled by numpy, whose import costs more than fewer points do."""
SOME = 500
"""From this many on it is faster, once it is loaded, or once so many points were added one by one as would pay for it.
"""
_LONG = 10_000
"""Points from which on a copy of their steps takes longer than to see that it is not needed."""
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


Block = tuple[Any, Any, int]
"""Arrays of low, high, first, last and total, each K curves by X columns, of their counts, and which curve it is."""
_BLOCK = {"low": 0, "high": 1, "first": 2, "last": 3, "total": 4, "count": 5}
_EMPTY = {"low": NAN, "high": NAN, "first": NAN, "last": NAN, "total": 0.0, "count": 0, "broken": 0}
"""What each list of columns holds where there is no value."""


class Columns:
    """The points of one metric between two steps, in columns of equal ranges of steps. NaN where there is none."""

    low: array[float]
    high: array[float]
    first: array[float]
    last: array[float]
    total: array[float]
    count: array[int]
    """Finite values."""
    broken: array[int]
    """Values that are no finite number."""

    def __init__(self, first_step: int, last_step: int, width: int) -> None:
        self.first_step, self.last_step, self.width = first_step, max(first_step + 1, last_step), max(1, width)
        self._points: Points | None = None
        self._taken = 0
        self.renewals = 0
        """How often the columns were filled anew, because the past of the curve changed."""
        self._clear()

    def _clear(self) -> None:
        for name in (*_BLOCK, "broken"):
            self.__dict__.pop(name, None)
        self._block: Block | None = None
        self.points = 0
        """Finite values in all columns."""
        self.breaks = 0
        """Values in all columns that are no finite number."""
        self.low_at_all, self.high_at_all = math.inf, -math.inf

    def __getattr__(self, name: str) -> Any:
        """The columns of `low` and the like, made when they are first asked for."""
        # Arrays, so that numpy fills and reads them where they are.
        row: array[Any]
        if name not in _EMPTY:
            raise AttributeError(name)
        if self._block is not None and name in _BLOCK:
            values, counts, k = self._block
            row = array("q", counts[k].tobytes()) if name == "count" else array("d", values[_BLOCK[name], k].tobytes())
        else:
            row = array("q" if name in ("count", "broken") else "d", [_EMPTY[name]]) * self.width
        setattr(self, name, row)
        return row

    @property
    def block(self) -> Block | None:
        """Where these columns lie together with those of other curves; None where they lie by themselves."""
        return self._block

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

    def take(self, points: Points, taken: int, block: Block, count: int, ends: tuple[float, float]) -> None:
        """Be filled by `fill_together`, which made the block, while new; `count` and `ends` are of all columns."""
        self._points, self._taken, self._block = points, taken, block
        self.renewals += 1
        self.points = count
        if count:
            self.low_at_all, self.high_at_all = ends

    def _own(self) -> None:
        """Lie by themselves, to be changed."""
        if self._block is not None:
            for name in _BLOCK:
                getattr(self, name)
            self._block = None

    def _fill(self, points: Points | None, count: int) -> None:
        if points is None:
            return
        self._own()
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
        values = np.frombuffer(points.values[begin:end], np.float64)
        bounds = _bounds(self.first_step, self.last_step, self.width)
        places = _places(np, points.steps, begin, end, bounds)
        if self._merge(np, places, values):
            return
        finite = np.isfinite(values)
        steps = np.frombuffer(points.steps[begin:end], np.int64)
        ends: Any = np.searchsorted(steps[~finite], bounds)
        broken = ends[1:] - ends[:-1]
        np.frombuffer(self.broken, np.int64)[:] += broken
        self.breaks += int(broken.sum())
        self._merge(np, np.searchsorted(steps[finite], bounds), values[finite], known_finite=True)

    def _merge(self, np: Any, bounds: Any, values: Any, *, known_finite: bool = False) -> bool:
        """Put finite values into the columns; those of column x lie between `bounds[x]` and `bounds[x + 1]`.

        False, and nothing is changed, where not all may be finite.
        """
        if not len(values):
            return True
        new = bounds[1:] - bounds[:-1]
        x = np.flatnonzero(new)
        starts, ends = bounds[x], bounds[x + 1]
        with np.errstate(all="ignore"):
            totals = np.add.reduceat(values, starts)
        if not known_finite and not np.isfinite(totals).all():  # what is no finite number is none in its sum either
            return False
        lows, highs = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        firsts = values[starts]
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
        return True


def fill_together(many: Sequence[tuple[Columns, Points]]) -> None:
    """Take in all points of many curves, each in columns that are new and alike: as `follow` does, in one go."""
    import numpy as np

    one, width = many[0][0], many[0][0].width
    bounds = _bounds(one.first_step, one.last_step, width)
    counts = [len(points) for _, points in many]
    places: Any = np.empty((len(many), width + 1), np.int64)
    parts, offset = [], 0
    before: Points | None = None
    for k, (_, points) in enumerate(many):
        # Runs that are looked at together mostly have the same steps; to see it is faster than to search them.
        if before is None or counts[k] != counts[k - 1] or points.steps != before.steps:
            begin = bisect_left(points.steps, one.first_step, 0, counts[k])
            end = bisect_right(points.steps, one.last_step, begin, counts[k])
            found_in = _places(np, points.steps, begin, end, bounds)
        before = points
        np.add(found_in, offset, out=places[k])
        parts.append(points.values[begin:end])
        offset += end - begin
    values = np.frombuffer(b"".join(parts), np.float64)
    new = places[:, 1:] - places[:, :-1]
    there: Any = np.flatnonzero(new)
    starts, ends = places[:, :-1].ravel(), places[:, 1:].ravel()
    if all_there := len(there) == new.size:
        there = slice(None)
    else:
        starts, ends = starts[there], ends[there]
    with np.errstate(all="ignore"):
        totals = np.add.reduceat(values, starts) if len(values) else values
    if not len(values) or not np.isfinite(totals).all():  # what is no finite number is none in its sum either
        for columns, points in many:
            columns.follow(points)
        return
    found = np.empty((5, new.size)) if all_there else np.full((5, new.size), NAN)
    found[0, there], found[1, there] = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    found[2, there], found[3, there] = values[starts], values[ends - 1]
    if not all_there:
        found[4] = 0.0
    found[4, there] = totals
    found = found.reshape(5, len(many), width)
    ends_of = zip(np.fmin.reduce(found[0], axis=1).tolist(), np.fmax.reduce(found[1], axis=1).tolist(), strict=True)
    in_all = new.sum(axis=1).tolist()
    for k, ((columns, points), both) in enumerate(zip(many, ends_of, strict=True)):
        columns.take(points, counts[k], (found, new, k), in_all[k], both)


def _places(np: Any, steps: array[int], begin: int, end: int, bounds: Any) -> Any:
    """Which of the points from `begin` to `end`, counted from `begin`, is the first in each column."""
    if end - begin >= _LONG and steps[end - 1] - steps[begin] == end - begin - 1:
        # Most likely there is a value at every step: then where each is needs no search, and no copy of the steps.
        likely = np.clip(bounds - steps[begin], 0, end - begin)
        if all(
            (not place or steps[begin + place - 1] < bound) and (begin + place == end or steps[begin + place] >= bound)
            for place, bound in zip(likely.tolist(), bounds.tolist(), strict=True)
        ):
            return likely
    return np.searchsorted(np.frombuffer(steps[begin:end], np.int64), bounds)


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
