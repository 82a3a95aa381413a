"""Where RLOO and GRPO come to rest, on a world whose completions can be enumerated: their fixed points, reached.

Each is learnt by exact expectations, a completion's advantage being what the engine's function gives it on average
over all groups (`test_grouped_policy` enumerates that); RLOO and GRPO also from sampled groups, whose advantages the
engine's function makes.
"""

from __future__ import annotations

import pytest
import torch

from engine.objectives.group_advantages import group_relative, leave_one_out
from engine.objectives.grouped_policy import GroupedObjective
from tests.engine.objectives.token_tree import (
    LEAVES,
    REFERENCE_L3,
    SCORE_L,
    Draw,
    best_policy,
    distance,
    learnt,
    rest_of_k3,
    rest_of_token_kl,
)

BETA, G = 0.5, 4
FACTOR = (G - 1) / G
RLOO = GroupedObjective("sequence_sum", added_up="sequences")


def grpo(estimator: str) -> GroupedObjective:
    return GroupedObjective(kl_coef=BETA, kl_estimator=estimator)


def expected(*, factor: float, kl_in_reward: bool) -> Draw:
    """Every completion, weighed by its chance, with its mean advantage over all groups of others."""

    def draw(log_probs_L3: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        log_ratio_L = (log_probs_L3 - REFERENCE_L3).sum(1)
        score_L = SCORE_L - BETA * log_ratio_L if kl_in_reward else SCORE_L
        chance_L = log_probs_L3.sum(1).exp()
        return torch.arange(LEAVES), chance_L, factor * (score_L - (chance_L * score_L).sum())

    return draw


def sampled(groups: int, *, kl_in_reward: bool) -> Draw:
    """Groups of G completions of the present policy."""

    def draw(log_probs_L3: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        chance_L = log_probs_L3.sum(1).exp()
        leaves_D = torch.multinomial(chance_L, groups * G, replacement=True, generator=generator)
        log_ratio_L = (log_probs_L3 - REFERENCE_L3).sum(1)
        score_PG = (SCORE_L - BETA * log_ratio_L if kl_in_reward else SCORE_L)[leaves_D].view(groups, G)
        advantage_PG = leave_one_out(score_PG) if kl_in_reward else group_relative(score_PG, scale="none")
        return leaves_D, torch.full((groups * G,), 1 / (groups * G), dtype=torch.float64), advantage_PG.flatten()

    return draw


def test_the_fixed_points_are_apart() -> None:
    beta = BETA / FACTOR
    policies = [
        best_policy(BETA),
        best_policy(beta),
        rest_of_k3(beta),
        rest_of_token_kl(beta),
        REFERENCE_L3.sum(1).exp(),
    ]
    assert all(p.sum().item() == pytest.approx(1.0, abs=1e-9) for p in policies)
    assert all(distance(p, q) > 0.05 for i, p in enumerate(policies) for q in policies[:i])


def test_rloo_reaches_the_best_policy() -> None:
    found = learnt(RLOO, expected(factor=1.0, kl_in_reward=True), steps=300, lr=0.1)
    assert distance(found, best_policy(BETA)) < 0.002


def test_grpo_reaches_that_of_a_larger_coefficient() -> None:
    found = learnt(grpo("k3_prefix"), expected(factor=FACTOR, kl_in_reward=False), steps=300, lr=0.1)
    assert distance(found, best_policy(BETA / FACTOR)) < 0.002
    assert distance(found, best_policy(BETA)) > 0.05


@pytest.mark.parametrize("estimator", ["k2", "k3_token"])
def test_a_kl_of_the_next_token_alone_has_its_own_fixed_point(estimator: str) -> None:
    found = learnt(grpo(estimator), expected(factor=FACTOR, kl_in_reward=False), steps=300, lr=0.1)
    assert distance(found, rest_of_token_kl(BETA / FACTOR)) < 0.002


def test_plain_k3_has_its_own_fixed_point() -> None:
    found = learnt(grpo("k3"), expected(factor=FACTOR, kl_in_reward=False), steps=300, lr=0.1)
    assert distance(found, rest_of_k3(BETA / FACTOR)) < 0.002


def test_rloo_from_sampled_groups() -> None:
    found = learnt(RLOO, sampled(1000, kl_in_reward=True), steps=200, lr=0.1)
    assert distance(found, best_policy(BETA)) < 0.02


@pytest.mark.slow
def test_grpo_from_sampled_groups() -> None:
    found = learnt(grpo("k3_prefix"), sampled(3000, kl_in_reward=False), steps=400, lr=0.1)
    assert distance(found, best_policy(BETA / FACTOR)) < 0.02
    assert distance(found, best_policy(BETA)) > 0.05
