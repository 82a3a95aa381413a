"""How far people agree: percent, Cohen's kappa, Krippendorff's alpha with a bootstrap interval.

Pure functions over labels; they know no files and no verdicts. A unit is one thing that several people labeled, here a
pair on one criterion; its labels are given by person, and a person may be missing from a unit.

What agreement is not: where one label is nearly always right, kappa and alpha are low although people agree (the
"kappa paradox", Feinstein and Cicchetti 1990), so percent stands beside them; and with no variation at all they are
undefined, which is NaN here and never 1.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.statistics import quantile

Level = Literal["nominal", "ordinal"]
Label = int
"""For "ordinal" its order counts; for "nominal" only whether two are equal."""
Labels = Mapping[str, Label]
"""Person → label, of one unit."""


@dataclass(frozen=True)
class Agreement:
    """How far labels agree, chance included and taken off."""

    units: int
    """Units with two labels or more; the others say nothing."""
    percent: float
    """Share of agreeing pairs of labels, mean over units; 0 to 1."""
    alpha: float
    """Krippendorff's; 1 is perfect, 0 is chance."""
    alpha_low: float
    alpha_high: float
    """95 % bootstrap interval, units drawn with replacement."""


def agreement(units: Sequence[Labels], level: Level = "nominal", *, draws: int = 1000, seed: int = 1) -> Agreement:
    """Percent and Krippendorff's alpha with its interval."""
    usable = [tuple(labels.values()) for labels in units if len(labels) > 1]
    low, high = alpha_interval(units, level, draws=draws, seed=seed)
    return Agreement(len(usable), percent_agreement(units), krippendorff_alpha(units, level), low, high)


def percent_agreement(units: Sequence[Labels]) -> float:
    """Share of agreeing pairs of people, mean over units with two labels or more; NaN without one."""
    shares = [_agreeing_share(Counter(labels.values())) for labels in units if len(labels) > 1]
    return math.fsum(shares) / len(shares) if shares else math.nan


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Cohen's kappa (Cohen 1960, eq. 1): (p_o - p_c) / (1 - p_c), p_c from each person's own shares of labels.

    Both sequences have the labels of the same units in the same order. NaN without units, or where both people always
    say one and the same thing.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} labels beside {len(second)}: kappa needs both people's label of every unit")
    total = len(first)
    if not total:
        return math.nan
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / total
    left, right = Counter(first), Counter(second)
    chance = sum(left[label] * right[label] for label in left) / total**2
    return (observed - chance) / (1 - chance) if chance < 1 else math.nan


def krippendorff_alpha(units: Sequence[Labels], level: Level = "nominal") -> float:
    """Krippendorff's alpha by the coincidence matrix (Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability", section C), for any number of people and missing labels.

    alpha = 1 - (n - 1) sum o_ck d_ck / sum n_c n_k d_ck over label pairs c, k: o the coincidences within units, n their
    margins, d the squared difference of the level. NaN where nothing varies, or no unit has two labels.
    """
    return _alpha([Counter(labels.values()) for labels in units if len(labels) > 1], level)


def alpha_interval(
    units: Sequence[Labels], level: Level = "nominal", *, confidence: float = 0.95, draws: int = 1000, seed: int = 1
) -> tuple[float, float]:
    """Percentile interval of alpha when units are drawn with replacement; the same for the same seed.

    Units with the same labels are alike, so a draw is of kinds of units. A draw in which nothing varies has no alpha
    and is left out. (NaN, NaN) with fewer than two units, or where no draw has one.
    """
    kinds = Counter(frozenset(Counter(labels.values()).items()) for labels in units if len(labels) > 1)
    total = kinds.total()
    if total < 2:
        return math.nan, math.nan
    drawable = sorted(kinds, key=sorted)
    weights = [kinds[kind] for kind in drawable]
    from numpy.random import default_rng

    found = []
    for drawn in default_rng(seed).multinomial(total, [weight / total for weight in weights], size=draws).tolist():
        alpha = _alpha_of_kinds([(dict(drawable[kind]), times) for kind, times in enumerate(drawn) if times], level)
        if not math.isnan(alpha):
            found.append(alpha)
    if not found:
        return math.nan, math.nan
    found.sort()
    tail = (1 - confidence) / 2
    return quantile(found, tail), quantile(found, 1 - tail)


def _agreeing_share(counts: Counter[Label]) -> float:
    total = counts.total()
    return sum(count * (count - 1) for count in counts.values()) / (total * (total - 1))


def _alpha(units: Sequence[Counter[Label]], level: Level) -> float:
    return _alpha_of_kinds([(counts, 1) for counts in units], level)


def _alpha_of_kinds(kinds: Sequence[tuple[Mapping[Label, int], int]], level: Level) -> float:
    """Alpha of units given as (label → how many said it, how many such units)."""
    coincidences: defaultdict[tuple[Label, Label], float] = defaultdict(float)
    for counts, times in kinds:
        others = sum(counts.values()) - 1
        for c, of_c in counts.items():
            for k, of_k in counts.items():
                coincidences[c, k] += times * (of_c * (of_c - 1) if c == k else of_c * of_k) / others
    margins: defaultdict[Label, float] = defaultdict(float)
    for (c, _), count in coincidences.items():
        margins[c] += count
    total = math.fsum(margins.values())
    differ = _DIFFERENCES[level](margins)
    observed = math.fsum(count * differ(c, k) for (c, k), count in coincidences.items())
    expected = math.fsum(margins[c] * margins[k] * differ(c, k) for c in margins for k in margins)
    return 1 - (total - 1) * observed / expected if expected else math.nan


def _nominal(_: Mapping[Label, float]) -> Callable[[Label, Label], float]:
    return lambda c, k: float(c != k)


def _ordinal(margins: Mapping[Label, float]) -> Callable[[Label, Label], float]:
    """(sum of n_g from c to k, less half of n_c and n_k) squared: ranks apart, by how often they are used."""
    ranked = sorted(margins)
    place = {label: number for number, label in enumerate(ranked)}
    below = [0.0]
    for label in ranked:
        below.append(below[-1] + margins[label])

    def difference(c: Label, k: Label) -> float:
        low, high = sorted((c, k))
        between = below[place[high] + 1] - below[place[low]]
        return (between - (margins[low] + margins[high]) / 2) ** 2

    return difference


_DIFFERENCES: dict[Level, Callable[[Mapping[Label, float]], Callable[[Label, Label], float]]] = {
    "nominal": _nominal,
    "ordinal": _ordinal,
}
