"""The best evaluation and the end of improvement, by hand."""

from __future__ import annotations

import math

import pytest

from engine.errors import ConfigError
from engine.run.config import CheckpointConfig
from engine.selection import Standing, judged


def after(values: list[float], settings: CheckpointConfig) -> Standing:
    standing = Standing(None, 0)
    for step, value in enumerate(values, start=1):
        standing = judged(standing, settings, step, {settings.metric: value})
    return standing


def test_the_least_is_the_best_and_a_tie_is_no_improvement() -> None:
    standing = after([3.0, 1.0, 2.0, 1.0], CheckpointConfig())
    assert standing == Standing({"step": 2, "metric": "eval_loss", "value": 1.0}, 2)
    assert standing.spent(2)
    assert not standing.spent(3)
    assert not standing.spent(0)


def test_the_greatest_where_more_is_better() -> None:
    standing = after([0.5, 0.7, 0.6, 0.9], CheckpointConfig(metric="eval_accuracy", goal="max"))
    assert standing == Standing({"step": 4, "metric": "eval_accuracy", "value": 0.9}, 0, improved=True)


def test_what_is_not_finite_is_no_improvement() -> None:
    assert after([math.nan, math.inf], CheckpointConfig()) == Standing(None, 2)


def test_without_held_out_data_or_metric_nothing_is_judged() -> None:
    before = Standing({"step": 1, "metric": "eval_loss", "value": 1.0}, 1, improved=True)
    assert judged(before, CheckpointConfig(), 2, {}) == Standing(before.best, 1)
    assert judged(before, CheckpointConfig(metric=""), 2, {"eval_loss": 0.1}) == Standing(before.best, 1)


def test_a_metric_that_is_not_there_is_an_error_with_those_that_are() -> None:
    measured = {"eval_loss": 1.0, "eval_loss_standard_error": 0.1}
    with pytest.raises(ConfigError, match=r'metric = "eval_los": .* It measures: eval_loss\. Choose'):
        judged(Standing(None, 0), CheckpointConfig(metric="eval_los"), 1, measured)
