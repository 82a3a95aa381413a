"""The axis of values of a plot: its range with round ends, its ticks, and numbers as they are written beside it.

Owns what is round. Refuses to know curves and cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LOG_FROM = 3.0
"""A logarithmic axis is for values whose greatest is so many times the least."""


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
