"""What the training loop asks of a method, and the pieces that every method shares.

A step is a list of updates (one for dataset methods; epochs x mini-batches for PPO). An update is a list of
micro-batches with exact denominators known before any forward pass: accumulation, packing and micro-batch size cannot
change the loss. Data order is a pure function of (seed, epoch) and a step number, so resuming needs no replay.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from engine.data.mixture import MixedSource, Mixture
from engine.ranks import merged_sums, rank, world_size

Metric = tuple[torch.Tensor | float, float]
"""A sum and the count it is to be divided by."""


@dataclass(frozen=True)
class Terms:
    """What one micro-batch adds to an update."""

    losses: Mapping[str, torch.Tensor]
    """Unnormalised loss sums, one for each denominator of the update."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """(sum, count) per metric, detached."""


@dataclass(frozen=True)
class Update:
    """One optimizer step."""

    counts: Mapping[str, float]
    """The denominator of each loss, over all micro-batches of the update."""
    micro_batches: Sequence[Callable[[], Terms]]
    """Each runs its forward pass when called."""
    tokens: int
    """Tokens that go forward and backward, in all processes."""
    shared_out: bool = False
    """`micro_batches` are this process's share already: what they need was measured here. Else each process that trains
    along is given all of them."""

    def own(self) -> Sequence[Callable[[], Terms]]:
        """The micro-batches that this process runs."""
        return self.micro_batches if self.shared_out else self.micro_batches[rank() :: world_size()]


class Method(Protocol):
    """A source of updates and their evaluation."""

    total_steps: int

    def modules(self) -> Mapping[str, nn.Module]:
        """Modules beside the base, by name: a reward head, a value function. Their parameters train, their buffers are
        what else the method has learned; both are in the checkpoint."""
        ...

    def updates(self, step: int) -> Iterator[Update]:
        """The updates of step `step` (0-based), made lazily."""
        ...

    def step_metrics(self) -> Mapping[str, Metric]:
        """Metrics of the step as a whole, after its updates have run."""
        ...

    def evaluate(self, check: Callable[[], None]) -> dict[str, float]:
        """Held-out metrics with `eval_` names; calls `check` between batches, which may raise StopRequested."""
        ...


@dataclass(frozen=True)
class HeldOutSources:
    """Which held-out examples came from which dataset, for figures of each beside those of the whole."""

    places: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Label of a source -> indices of its held-out examples; empty where the run has one source."""

    def figures(self, measure: Callable[[Sequence[int]], Mapping[str, float]]) -> dict[str, float]:
        """What `measure` finds for the examples of each source, as NAME/LABEL."""
        return {
            f"{name}/{label}": value
            for label, places in self.places.items()
            if places
            for name, value in measure(places).items()
        }


@runtime_checkable
class Reporting(Protocol):
    """A method whose evaluation finds more than single numbers."""

    def report(self) -> Mapping[str, Any]:
        """What the last evaluation found, as plain values for an event; empty before the first."""
        ...


class Meter:
    """Adds up (sum, count) pairs on the device; one copy to the host when read."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor | float] = {}
        self._counts: dict[str, float] = {}

    def add(self, metrics: Mapping[str, Metric]) -> None:
        """Add a micro-batch's metrics."""
        for name, (total, count) in metrics.items():
            value = total.detach() if isinstance(total, torch.Tensor) else total
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0.0) + count

    def fetch(self, *others: torch.Tensor) -> list[float]:
        """The values of `others` and all that was added so far, in one copy to the host; returns those of `others`."""
        names = [name for name, total in self._sums.items() if isinstance(total, torch.Tensor)]
        columns = [torch.as_tensor(self._sums[name]) for name in names] + list(others)
        if not columns:
            return []
        values: list[float] = torch.stack([column.double().reshape(()) for column in columns]).tolist()
        self._sums.update(zip(names, values, strict=False))
        return values[len(names) :]

    def add_over_ranks(self) -> None:
        """Take in what the other processes that train together have measured. Once, and by all of them."""
        self.fetch()
        sums = {name: (float(total), self._counts[name]) for name, total in self._sums.items()}
        merged = merged_sums(sums)
        self._sums = {name: total for name, (total, _) in merged.items()}
        self._counts = {name: count for name, (_, count) in merged.items()}

    def read(self) -> dict[str, float]:
        """Each metric's mean; a metric without a count is left out."""
        self.fetch()
        return {name: float(self._sums[name]) / count for name, count in self._counts.items() if count > 0}


class ExampleOrder:
    """Which examples each step takes: an endless shuffled stream cut into batches."""

    def __init__(
        self,
        examples: int,
        *,
        batch_size: int,
        epochs: float,
        steps: int,
        seed: int,
        mixed: Sequence[MixedSource] = (),
    ) -> None:
        """`steps` > 0 fixes the length of the run; otherwise `epochs` passes over `examples` do, or epochs of the
        mixture of the sources in `mixed`."""
        assert examples > 0
        self._examples = examples
        self._batch_size = batch_size
        self._seed = seed
        self.mixture = Mixture(mixed, self._shuffled_source) if mixed else None
        whole = round(epochs * examples) if self.mixture is None else self.mixture.position(epochs)
        self._total = steps * batch_size if steps > 0 else max(1, whole)
        self.total_steps = math.ceil(self._total / batch_size)
        self._epoch_order: tuple[int, list[int]] | None = None

    def indices(self, step: int) -> list[int]:
        """Example indices of step `step`; the last step of a run may hold fewer."""
        start = step * self._batch_size
        return [self._index(position) for position in range(start, min(start + self._batch_size, self._total))]

    def used(self) -> list[int]:
        """Every example that the run will take, ascending: a short run takes a part of the data only."""
        return sorted({index for step in range(self.total_steps) for index in self.indices(step)})

    def first_epoch(self) -> npt.NDArray[np.int64]:
        """Every example of the first epoch, whether or not the run is that long, in order."""
        return np.asarray(self._order_of(0), dtype=np.int64)

    def _index(self, position: int) -> int:
        epoch, offset = self.mixture.place(position) if self.mixture else divmod(position, self._examples)
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            self._epoch_order = (epoch, self._order_of(epoch))
        return self._epoch_order[1][offset]

    def _order_of(self, epoch: int) -> list[int]:
        if self.mixture is not None:
            return self.mixture.order(epoch)
        return _shuffled(self._examples, seed_of(self._seed, "order", epoch))

    def _shuffled_source(self, source: int, number: int, examples: int) -> list[int]:
        return _shuffled(examples, seed_of(self._seed, "mixture", source, number))


def _shuffled(examples: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(examples, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def seed_of(*parts: object) -> int:
    """A 63-bit seed that is a pure function of `parts`, whatever the platform."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def ratio_standard_error(sums: Sequence[float], counts: Sequence[float]) -> float:
    """Standard error of sum(sums)/sum(counts) over independent clusters (linearised ratio estimator)."""
    n = len(sums)
    if n < 2:
        return math.nan
    mean = sum(sums) / sum(counts)
    residuals = sum((s - mean * c) ** 2 for s, c in zip(sums, counts, strict=True))
    return math.sqrt(residuals * n / (n - 1)) / sum(counts)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error over independent values."""
    return sum(values) / len(values), ratio_standard_error(values, [1.0] * len(values))


def clustered_mean_and_error(values: Sequence[float], groups: Sequence[str]) -> tuple[float, float]:
    """Mean and its standard error where values of one group are not independent; NaN with a single group."""
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for value, group in zip(values, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + value
        counts[group] = counts.get(group, 0.0) + 1.0
    return math.fsum(values) / len(values), ratio_standard_error(list(sums.values()), list(counts.values()))


def sum_of_ratios(
    terms: Sequence[tuple[float, Sequence[float], Sequence[float]]], groups: Sequence[str]
) -> tuple[float, float]:
    """Sum over terms (weight, sums, counts) of weight x sum(sums) / sum(counts), and its standard error where entries
    of one group are not independent (linearised ratio estimators); NaN with a single group.
    """
    n = len(groups)
    total, deviations = 0.0, dict.fromkeys(groups, 0.0)
    for weight, sums, counts in terms:
        ratio, mean_count = sum(sums) / sum(counts), sum(counts) / n
        total += weight * ratio
        for group, s, c in zip(groups, sums, counts, strict=True):
            deviations[group] += weight * (s - ratio * c) / mean_count
    return total, ratio_standard_error(list(deviations.values()), [n / len(deviations)] * len(deviations))
