"""What methods share: the order of examples, meters, and standard errors."""

from __future__ import annotations

import math
import random
import statistics

import pytest
import torch

from engine.data.mixture import MixedSource
from engine.methods.method import (
    ExampleOrder,
    Meter,
    clustered_mean_and_error,
    mean_and_error,
    ratio_standard_error,
    seed_of,
    sum_of_ratios,
)


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

    def test_without_weights_the_order_is_what_it_always_was(self) -> None:
        """A run that was begun before there were mixtures goes on in its order."""
        order = ExampleOrder(10, batch_size=4, epochs=2, steps=0, seed=3)
        assert [order.indices(step) for step in range(3)] == [[0, 7, 4, 1], [8, 3, 2, 6], [5, 9, 8, 9]]

    def test_a_mixture_is_cut_into_batches_that_hold_its_shares(self) -> None:
        mixed = [MixedSource(0, [1] * 30, 1.0), MixedSource(30, [1] * 6, 3.0)]
        order = ExampleOrder(36, batch_size=4, epochs=1.5, steps=0, seed=3, mixed=mixed)
        batches = [order.indices(step) for step in range(order.total_steps)]
        assert order.total_steps == 14  # of 54 examples
        assert all(sum(index < 30 for index in batch) == 1 for batch in batches[:-1])
        again = ExampleOrder(36, batch_size=4, epochs=1.5, steps=0, seed=3, mixed=mixed)
        assert [again.indices(step) for step in reversed(range(14))] == batches[::-1]
        other = ExampleOrder(36, batch_size=4, epochs=1.5, steps=0, seed=4, mixed=mixed)
        assert other.indices(0) != batches[0]

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


def test_meter_fetches_all_with_what_else_is_wanted_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    to_list = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: copies.append(True) or to_list(tensor))
    meter = Meter()
    meter.add({"a": (torch.tensor(3.0), 2.0), "b": (4.0, 1.0)})
    assert meter.fetch(torch.tensor(0.5), torch.tensor(7.0)) == [0.5, 7.0]
    meter.add({"loss": (0.5, 1.0)})
    assert meter.read() == {"a": 1.5, "b": 4.0, "loss": 0.5}
    assert len(copies) == 1


def test_standard_error_of_a_mean_is_the_usual_one() -> None:
    values = [1.0, 4.0, 2.0, 7.0]
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(3.5)
    assert error == pytest.approx(statistics.stdev(values) / 2)
    assert math.isnan(ratio_standard_error([1.0], [1.0]))


def test_the_error_of_a_sum_of_ratios_counts_what_they_share() -> None:
    values, ones = [1.0, 4.0, 2.0, 7.0], [1.0] * 4
    apart = ["a", "b", "c", "d"]
    assert sum_of_ratios([(1.0, values, ones)], apart) == pytest.approx(mean_and_error(values))
    # The same quantity twice: the error doubles, as it would not if the two were independent.
    total, error = sum_of_ratios([(1.0, values, ones), (0.5, [2 * v for v in values], ones)], apart)
    assert (total, error) == pytest.approx((7.0, 2 * mean_and_error(values)[1]))
    lone = sum_of_ratios([(1.0, [3.0, 1.0, 2.0], [2.0, 1.0, 4.0])], apart[:3])
    assert lone == pytest.approx((6 / 7, ratio_standard_error([3.0, 1.0, 2.0], [2.0, 1.0, 4.0])))
    groups = ["a", "b", "a", "c"]
    assert sum_of_ratios([(1.0, values, ones)], groups) == pytest.approx(clustered_mean_and_error(values, groups))


def test_standard_error_of_a_ratio_agrees_with_resampling() -> None:
    draw = random.Random(5)
    counts = [float(draw.randrange(3, 20)) for _ in range(400)]
    sums = [count * 0.4 + draw.gauss(0, 1) * math.sqrt(count) for count in counts]
    means = []
    for _ in range(400):
        chosen = [draw.randrange(400) for _ in range(400)]
        means.append(sum(sums[i] for i in chosen) / sum(counts[i] for i in chosen))
    assert ratio_standard_error(sums, counts) == pytest.approx(statistics.stdev(means), rel=0.12)
