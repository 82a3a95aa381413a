"""The optimizer: schedules by hand, refusal of what is not finite, and a state that comes back bit for bit."""

from __future__ import annotations

import math

import pytest
import torch

from engine.errors import CheckpointError
from engine.optimizer import Optimizer, learning_rate
from engine.run.config import OptimConfig


def parameters() -> dict[str, torch.nn.Parameter]:
    return {"a": torch.nn.Parameter(torch.tensor([1.0, -2.0])), "head.b": torch.nn.Parameter(torch.tensor([0.5]))}


def give_gradients(named: dict[str, torch.nn.Parameter], value: float) -> None:
    for parameter in named.values():
        parameter.grad = torch.full_like(parameter, value)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 2 / 3, 1 / 3]),
        ("cosine", [0.5, 1.0, 1.0, 0.75, 0.25]),
    ],
)
def test_schedules_by_hand(schedule: str, expected: list[float]) -> None:
    settings = OptimConfig(lr=1.0, schedule=schedule, warmup_share=0.4)
    assert [learning_rate(settings, step, 5) for step in range(5)] == pytest.approx(expected)


def test_the_first_step_of_adamw_moves_by_the_learning_rate() -> None:
    named = parameters()
    optimizer = Optimizer(named, OptimConfig(lr=0.1, schedule="constant", warmup_share=0.0, max_grad_norm=0.0), 1)
    give_gradients(named, 2.0)
    stepped = optimizer.step(0)
    assert stepped is not None
    assert stepped == pytest.approx((math.sqrt(3 * 4.0), 0.1))
    assert named["a"].tolist() == pytest.approx([0.9, -2.1], abs=1e-6)
    assert named["a"].grad is None


def test_a_rate_of_its_own_is_followed_and_clipped_alone() -> None:
    named = parameters()
    settings = OptimConfig(lr=0.1, schedule="linear", warmup_share=0.0, max_grad_norm=1.0)
    optimizer = Optimizer(named, settings, 2, own_rates={"head.": 0.01})
    named["a"].grad = torch.tensor([3.0, 4.0])
    named["head.b"].grad = torch.tensor([1e6])
    stepped = optimizer.step(1)
    assert stepped == pytest.approx((5.0, 0.05))
    assert named["a"].tolist() == pytest.approx([0.95, -2.05], abs=1e-5)
    assert named["head.b"].tolist() == pytest.approx([0.495], abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["a", "head.b"])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float, where: str) -> None:
    named = parameters()
    optimizer = Optimizer(named, OptimConfig(lr=0.1), 4, own_rates={"head.": 0.01})
    give_gradients(named, 1.0)
    optimizer.step(0)
    before = {name: p.detach().clone() for name, p in named.items()}
    state = optimizer.state_tensors()
    give_gradients(named, 1.0)
    named[where].grad = torch.full_like(named[where], bad)
    assert optimizer.step(1) is None
    assert all(torch.equal(before[name], p) for name, p in named.items())
    assert all(torch.equal(value, optimizer.state_tensors()[name]) for name, value in state.items())


def test_state_comes_back_bit_for_bit() -> None:
    def three_steps(resume_after: int | None) -> list[float]:
        named = parameters()
        optimizer = Optimizer(named, OptimConfig(lr=0.1), 3, own_rates={"head.": 0.01})
        for step in range(3):
            if step == resume_after:
                again = {name: torch.nn.Parameter(p.detach().clone()) for name, p in named.items()}
                fresh = Optimizer(again, OptimConfig(lr=0.1), 3, own_rates={"head.": 0.01})
                fresh.load_state_tensors(optimizer.state_tensors())
                named, optimizer = again, fresh
            give_gradients(named, 0.3 * (step + 1))
            optimizer.step(step)
        return [x for p in named.values() for x in p.tolist()]

    assert three_steps(1) == three_steps(2) == three_steps(None)


def test_state_of_another_model_is_refused() -> None:
    optimizer = Optimizer(parameters(), OptimConfig(lr=0.1), 3)
    with pytest.raises(CheckpointError, match="does not train: elsewhere"):
        optimizer.load_state_tensors({"elsewhere:exp_avg": torch.zeros(2)})
