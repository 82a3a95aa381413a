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
from typing import Protocol

import torch
from torch import nn

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
    """Tokens that go forward and backward."""


class Method(Protocol):
    """A source of updates and their evaluation."""

    total_steps: int

    def modules(self) -> Mapping[str, nn.Module]:
        """Trainable modules beside the base, by name: a reward head, a value head."""
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

    def read(self) -> dict[str, float]:
        """Each metric's mean; a metric without a count is left out."""
        names = [name for name, count in self._counts.items() if count > 0]
        tensors = [name for name in names if isinstance(self._sums[name], torch.Tensor)]
        values: dict[str, float] = {name: float(self._sums[name]) for name in names if name not in tensors}
        if tensors:
            column = torch.stack([torch.as_tensor(self._sums[name]).double().reshape(()) for name in tensors])
            values.update(zip(tensors, column.tolist(), strict=True))
        return {name: values[name] / self._counts[name] for name in names}


class ExampleOrder:
    """Which examples each step takes: an endless shuffled stream cut into batches."""

    def __init__(self, examples: int, *, batch_size: int, epochs: float, steps: int, seed: int) -> None:
        """`steps` > 0 fixes the length of the run; otherwise `epochs` passes over `examples` do."""
        assert examples > 0
        self._examples = examples
        self._batch_size = batch_size
        self._seed = seed
        self._total = steps * batch_size if steps > 0 else max(1, round(epochs * examples))
        self.total_steps = math.ceil(self._total / batch_size)
        self._epoch_order: tuple[int, list[int]] | None = None

    def indices(self, step: int) -> list[int]:
        """Example indices of step `step`; the last step of a run may hold fewer."""
        start = step * self._batch_size
        return [self._index(position) for position in range(start, min(start + self._batch_size, self._total))]

    def used(self) -> list[int]:
        """Every example that the run will take, ascending: a short run takes a part of the data only."""
        return sorted({index for step in range(self.total_steps) for index in self.indices(step)})

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, self._examples)
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of(self._seed, "order", epoch))
            self._epoch_order = (epoch, torch.randperm(self._examples, generator=generator).tolist())
        return self._epoch_order[1][offset]


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
