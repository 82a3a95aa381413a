"""Means, differences and rates with their uncertainty: every figure of a report that says "plus or minus".

Owns the arithmetic and nothing else: numbers and cluster names in, numbers out, standard library only. Invariant: rows
that share a cluster are never counted as independent. A standard error that cannot be had is NaN, never 0.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Estimate:
    """A mean and how far it can be trusted."""

    mean: float
    """The mean over rows, or the ratio of two sums."""
    standard_error: float
    """Of the mean, over clusters; NaN with fewer than two clusters."""
    n: int
    """Rows."""
    clusters: int
    """Independent groups of rows; equal to `n` where rows are independent."""

    @property
    def in_standard_errors(self) -> float:
        """The mean divided by its standard error: how clearly it differs from 0."""
        if self.standard_error > 0:
            return self.mean / self.standard_error
        return math.nan if math.isnan(self.standard_error) or self.mean == 0 else math.copysign(math.inf, self.mean)

    def as_json(self) -> dict[str, float | int | None]:
        """Plain numbers; what is not finite is null."""
        error = self.standard_error
        return {
            "mean": self.mean if math.isfinite(self.mean) else None,
            "standard_error": error if math.isfinite(error) else None,
            "n": self.n,
            "clusters": self.clusters,
        }


def ratio_estimate(
    sums: Sequence[float], counts: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """Sum of `sums` over sum of `counts`, with its standard error over clusters.

    The linearised ratio estimator: with R the ratio and r_g the sum over cluster g of (s - R c), the variance is
    G/(G-1) * sum of r_g^2 / (sum of c)^2. With every count 1 it is the clustered error of a mean, and with every row
    its own cluster the usual s/sqrt(n). Without `clusters` every row is its own.
    """
    total, count = math.fsum(sums), math.fsum(counts)
    if not sums or count == 0:
        return Estimate(math.nan, math.nan, len(sums), 0)
    ratio = total / count
    names: Sequence[Hashable] = range(len(sums)) if clusters is None else clusters
    residuals: defaultdict[Hashable, float] = defaultdict(float)
    for value, weight, name in zip(sums, counts, names, strict=True):
        residuals[name] += value - ratio * weight
    groups = len(residuals)
    if groups < 2:
        return Estimate(ratio, math.nan, len(sums), groups)
    squares = math.fsum(residual * residual for residual in residuals.values())
    return Estimate(ratio, math.sqrt(squares * groups / (groups - 1)) / abs(count), len(sums), groups)


def mean_estimate(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """The mean of `values` with its standard error over clusters."""
    return ratio_estimate(values, [1.0] * len(values), clusters)


def paired_difference(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """Mean of `after - before`, row by row, with its standard error over clusters: what both share cancels out."""
    return mean_estimate([b - a for a, b in zip(before, after, strict=True)], clusters)


def wilson_interval(wins: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a rate of `wins` in `n` independent trials (Wilson 1927, eq. for the score test).

    `wins` may hold halves (a tie): the interval is then a little wider than it need be. (0, 1) without trials.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = wins / n
    middle = rate + z * z / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def bootstrap_interval(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 1,
) -> tuple[float, float]:
    """Percentile interval of the mean when whole clusters are drawn with replacement; the same for the same seed.

    (NaN, NaN) with fewer than two clusters, where a draw would say nothing.
    """
    sums: defaultdict[Hashable, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for value, name in zip(values, clusters, strict=True):
        sums[name][0] += value
        sums[name][1] += 1
    groups = list(sums.values())
    if len(groups) < 2:
        return math.nan, math.nan
    rng = random.Random(seed)
    means = []
    for _ in range(draws):
        drawn = rng.choices(groups, k=len(groups))
        means.append(math.fsum(total for total, _ in drawn) / math.fsum(count for _, count in drawn))
    means.sort()
    tail = (1 - confidence) / 2
    return quantile(means, tail), quantile(means, 1 - tail)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between the two nearest of `ordered`."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
