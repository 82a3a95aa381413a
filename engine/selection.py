"""Which evaluation is the best so far, and whether the run has ceased to improve.

Owns the comparison by `checkpoint.metric` and the count of evaluations without improvement. Pure: what follows from a
standing (a checkpoint, an early end) is the loop's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import ConfigError
from engine.run.config import CheckpointConfig


@dataclass(frozen=True)
class Standing:
    """What is known after an evaluation."""

    best: dict[str, Any] | None
    """{"step", "metric", "value"} of the best evaluation so far."""
    stale: int
    """Evaluations in a row, up to the last one, that were no better."""
    improved: bool = False
    """The last evaluation is the best."""

    def spent(self, patience: int) -> bool:
        """No better `patience` times in a row; 0 is endless patience."""
        return 0 < patience <= self.stale


def judged(before: Standing, settings: CheckpointConfig, step: int, metrics: Mapping[str, float]) -> Standing:
    """The standing after the held-out `metrics` of `step`; a value that is no finite number is no improvement.

    Raises ConfigError where the run measures held-out data but not `checkpoint.metric`.
    """
    if not settings.metric or not metrics:
        return Standing(before.best, before.stale)
    if settings.metric not in metrics:
        names = ", ".join(sorted(name for name in metrics if not name.endswith("_standard_error")))
        raise ConfigError(
            f'[checkpoint] metric = "{settings.metric}": this run does not measure it. It measures: {names}. '
            'Choose one of them, or "" to take the last checkpoint'
        )
    value = metrics[settings.metric]
    sign = 1.0 if settings.goal == "min" else -1.0
    if not math.isfinite(value) or (before.best is not None and sign * value >= sign * before.best["value"]):
        return Standing(before.best, before.stale + 1)
    return Standing({"step": step, "metric": settings.metric, "value": value}, 0, improved=True)
