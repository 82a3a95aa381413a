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


def apply(optimizer: Optimizer, step: int) -> tuple[list[float], float]:
    """One step as the loop takes it: (norms before clipping, learning rate)."""
    norms = [float(norm) for norm in optimizer.gradient_norms()]
    return norms, optimizer.step(step, norms)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 2 / 3, 1 / 3]),
        ("cosine", [0.5, 1.0, 1.0, 0.75, 0.25]),
        ("wsd", [0.5, 1.0, 1.0, 1.0, 0.5]),
    ],
)
def test_schedules_by_hand(schedule: str, expected: list[float]) -> None:
    for warmup in ({"warmup_share": 0.4}, {"warmup_share": 0.0, "warmup_steps": 2}):
        settings = OptimConfig(lr=1.0, schedule=schedule, decay_share=0.4, **warmup)
        assert [learning_rate(settings, step, 5) for step in range(5)] == pytest.approx(expected)


def test_schedules_fall_to_the_least_rate() -> None:
    def rates(schedule: str, **given: float) -> list[float]:
        settings = OptimConfig(lr=2.0, schedule=schedule, warmup_share=0.0, min_lr_share=0.5, **given)
        return [learning_rate(settings, step, 4) for step in range(4)]

    assert rates("linear") == pytest.approx([2.0, 1.75, 1.5, 1.25])
    assert rates("cosine")[2] == pytest.approx(1.5)
    assert rates("constant") == [2.0] * 4
    assert rates("wsd", decay_share=0.5) == pytest.approx([2.0, 2.0, 2.0, 1.5])
    # A decay over the whole run is the linear schedule.
    assert rates("wsd", decay_share=1.0) == rates("linear")


def test_a_decay_that_meets_the_warmup_begins_where_that_ends() -> None:
    settings = OptimConfig(lr=1.0, schedule="wsd", warmup_share=0.5, decay_share=1.0)
    assert [learning_rate(settings, step, 4) for step in range(4)] == pytest.approx([0.5, 1.0, 1.0, 0.5])


def test_the_first_step_of_adamw_moves_by_the_learning_rate() -> None:
    named = parameters()
    optimizer = Optimizer(named, OptimConfig(lr=0.1, schedule="constant", warmup_share=0.0, max_grad_norm=0.0), 1)
    give_gradients(named, 2.0)
    norms, rate = apply(optimizer, 0)
    assert norms == pytest.approx([math.sqrt(3 * 4.0)])
    assert rate == 0.1
    assert named["a"].tolist() == pytest.approx([0.9, -2.1], abs=1e-6)
    assert named["a"].grad is None


def test_a_rate_of_its_own_is_followed_and_clipped_alone() -> None:
    named = parameters()
    settings = OptimConfig(lr=0.1, schedule="linear", warmup_share=0.0, max_grad_norm=1.0)
    optimizer = Optimizer(named, settings, 2, own_rates={"head.": 0.01})
    named["a"].grad = torch.tensor([3.0, 4.0])
    named["head.b"].grad = torch.tensor([1e6])
    norms, rate = apply(optimizer, 1)
    assert norms == pytest.approx([5.0, 1e6])
    assert rate == pytest.approx(0.05)
    assert named["a"].tolist() == pytest.approx([0.95, -2.05], abs=1e-5)
    assert named["head.b"].tolist() == pytest.approx([0.495], abs=1e-6)


def test_gradients_are_clipped_as_torch_clips_them() -> None:
    named, plain = parameters(), parameters()
    given = {"lr": 0.1, "beta1": 0.0, "beta2": 0.0, "eps": 1.0, "warmup_share": 0.0}
    optimizer = Optimizer(named, OptimConfig(max_grad_norm=0.5, **given), 4)
    other = torch.optim.AdamW(plain.values(), lr=0.1, betas=(0.0, 0.0), eps=1.0, weight_decay=0.0, fused=True)
    give_gradients(named, 3.0)
    give_gradients(plain, 3.0)
    apply(optimizer, 0)
    torch.nn.utils.clip_grad_norm_(plain.values(), 0.5)
    other.step()
    assert all(torch.equal(named[name], plain[name]) for name in named)


def test_only_matrices_decay() -> None:
    named = {"weight": torch.nn.Parameter(torch.ones(2, 2)), "norm": torch.nn.Parameter(torch.ones(2))}
    settings = OptimConfig(lr=0.1, weight_decay=0.5, schedule="constant", warmup_share=0.0)
    optimizer = Optimizer(named, settings, 1)
    give_gradients(named, 0.0)
    norms, _ = apply(optimizer, 0)
    assert norms == [0.0]
    assert named["weight"].tolist() == [[pytest.approx(1 - 0.1 * 0.5)] * 2] * 2
    assert named["norm"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(("where", "seen"), [("a", [False, True]), ("head.b", [True, False])])
def test_a_gradient_that_is_not_finite_is_seen_in_the_norm_of_its_rate(
    bad: float, where: str, seen: list[bool]
) -> None:
    named = parameters()
    optimizer = Optimizer(named, OptimConfig(lr=0.1), 4, own_rates={"head.": 0.01})
    give_gradients(named, 1.0)
    named[where].grad = torch.full_like(named[where], bad)
    assert [math.isfinite(float(norm)) for norm in optimizer.gradient_norms()] == seen


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
            apply(optimizer, step)
        return [x for p in named.values() for x in p.tolist()]

    assert three_steps(1) == three_steps(2) == three_steps(None)


def test_state_of_another_model_is_refused() -> None:
    optimizer = Optimizer(parameters(), OptimConfig(lr=0.1), 3)
    with pytest.raises(CheckpointError, match="does not train: elsewhere"):
        optimizer.load_state_tensors({"elsewhere:exp_avg": torch.zeros(2)})
