"""What methods share: the order of examples, meters, and standard errors."""

from __future__ import annotations

import math
import random
import statistics

import pytest
import torch

from engine.methods.method import ExampleOrder, Meter, mean_and_error, ratio_standard_error, seed_of


class TestOrder:
    def test_every_epoch_takes_every_example_once(self) -> None:
        order = ExampleOrder(10, batch_size=4, epochs=2, steps=0, seed=3)
        assert order.total_steps == 5
        taken = [i for step in range(5) for i in order.indices(step)]
        assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
        assert taken[:10] != taken[10:]

    def test_a_step_is_a_pure_function_of_seed_and_number(self) -> None:
        forward = ExampleOrder(10, batch_size=3, epochs=3, steps=0, seed=3)
        backward = ExampleOrder(10, batch_size=3, epochs=3, steps=0, seed=3)
        steps = [forward.indices(step) for step in range(10)]
        assert [backward.indices(step) for step in reversed(range(10))] == steps[::-1]
        assert ExampleOrder(10, batch_size=3, epochs=3, steps=0, seed=4).indices(0) != steps[0]

    def test_parts_of_epochs_and_fixed_steps(self) -> None:
        assert ExampleOrder(10, batch_size=4, epochs=0.5, steps=0, seed=1).total_steps == 2
        last = ExampleOrder(10, batch_size=4, epochs=0.5, steps=0, seed=1).indices(1)
        assert len(last) == 1
        fixed = ExampleOrder(10, batch_size=4, epochs=9, steps=7, seed=1)
        assert fixed.total_steps == 7

    def test_used_are_the_examples_of_all_steps(self) -> None:
        order = ExampleOrder(100, batch_size=4, epochs=1, steps=3, seed=1)
        assert order.used() == sorted({i for step in range(3) for i in order.indices(step)})
        assert len(order.used()) == 12


def test_seeds_do_not_depend_on_the_process() -> None:
    assert seed_of(1, "rollout", 2) == seed_of(1, "rollout", 2)
    assert seed_of(1, "rollout", 2) != seed_of(1, "rollout2")
    assert 0 <= seed_of("x") < 2**63


def test_meter_divides_sums_by_counts() -> None:
    meter = Meter()
    meter.add({"a": (torch.tensor(3.0), 2.0), "b": (4.0, 1.0), "none": (torch.tensor(1.0), 0.0)})
    meter.add({"a": (torch.tensor(1.0), 2.0)})
    assert meter.read() == {"a": 1.0, "b": 4.0}


def test_standard_error_of_a_mean_is_the_usual_one() -> None:
    values = [1.0, 4.0, 2.0, 7.0]
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(3.5)
    assert error == pytest.approx(statistics.stdev(values) / 2)
    assert math.isnan(ratio_standard_error([1.0], [1.0]))


def test_standard_error_of_a_ratio_agrees_with_resampling() -> None:
    draw = random.Random(5)
    counts = [float(draw.randrange(3, 20)) for _ in range(400)]
    sums = [count * 0.4 + draw.gauss(0, 1) * math.sqrt(count) for count in counts]
    means = []
    for _ in range(400):
        chosen = [draw.randrange(400) for _ in range(400)]
        means.append(sum(sums[i] for i in chosen) / sum(counts[i] for i in chosen))
    assert ratio_standard_error(sums, counts) == pytest.approx(statistics.stdev(means), rel=0.12)
