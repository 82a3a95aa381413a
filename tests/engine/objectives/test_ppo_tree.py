"""Where PPO comes to rest, on a world whose completions can be enumerated: the best policy pi*, reached.

Rewards, advantages, returns and both losses are the engine's; the policy is a table of logits and the value one of
prefixes. Once every completion counts by its chance, once they are sampled, with whitened advantages and mini-batches.
"""

from __future__ import annotations

import pytest
import torch

from engine.objectives.advantages import generalized_advantages, shaped_rewards, whitened
from engine.objectives.kl import ESTIMATORS
from engine.objectives.policy_gradient import clipped_policy_loss, clipped_value_loss
from tests.engine.objectives.token_tree import (
    LEAVES,
    LENGTH,
    REFERENCE_L3,
    SCORE_L,
    V,
    best_policy,
    distance,
    reference_tables,
    token_log_probs,
)

BETA = 0.5
_LEAF = torch.arange(LEAVES)
STATE_L3 = torch.stack([torch.zeros_like(_LEAF), 1 + _LEAF // (V * V), 1 + V + _LEAF // V], 1)
"""The prefix before each token: the empty one, those of one token, those of two."""


class Learner:
    """A policy and a value as tables, PPO's steps on them."""

    def __init__(self, lr: float, steps: int) -> None:
        self.tables = [table.clone().requires_grad_() for table in reference_tables()]
        self.values = torch.zeros(1 + V + V * V, dtype=torch.float64, requires_grad=True)
        self.optimizer = torch.optim.Adam([*self.tables, self.values], lr=lr)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps, eta_min=lr / 50)

    def step(self, leaves_D: torch.Tensor, weight_D: torch.Tensor, *, whiten: bool, minibatches: int = 1) -> None:
        """Two epochs over these completions, which the present policy is taken to have sampled."""
        with torch.no_grad():
            old_N = token_log_probs(self.tables)[leaves_D].reshape(-1)
            values_N = self.values[STATE_L3[leaves_D].reshape(-1)]
        kl_N = ESTIMATORS["k1"](old_N, REFERENCE_L3[leaves_D].reshape(-1))
        last_D = torch.arange(1, len(leaves_D) + 1) * LENGTH - 1
        rewards_N = shaped_rewards(kl_N, SCORE_L[leaves_D], last_D, kl_coef=BETA)
        advantages_N, returns_N = generalized_advantages(
            rewards_N, values_N, [LENGTH] * len(leaves_D), gamma=1.0, lam=0.95
        )
        if whiten:
            advantages_N = whitened(advantages_N)
        for _ in range(2):
            for part_D in torch.arange(len(leaves_D)).chunk(minibatches):
                part_N = (part_D[:, None] * LENGTH + torch.arange(LENGTH)).reshape(-1)
                now_N = token_log_probs(self.tables)[leaves_D[part_D]].reshape(-1)
                policy_N, _ = clipped_policy_loss(now_N, old_N[part_N], advantages_N[part_N], clip=0.2)
                value_N, _ = clipped_value_loss(
                    self.values[STATE_L3[leaves_D[part_D]].reshape(-1)], values_N[part_N], returns_N[part_N], clip=0.0
                )
                weight_N = weight_D[part_D].repeat_interleave(LENGTH)
                self.optimizer.zero_grad()
                ((policy_N + value_N) * weight_N).sum().backward()
                self.optimizer.step()
        self.schedule.step()

    @property
    def policy_L(self) -> torch.Tensor:
        return token_log_probs(self.tables).detach().sum(1).exp()


@pytest.fixture(scope="module")
def at_rest() -> Learner:
    """After 150 steps in which every completion counts by its chance."""
    learner = Learner(lr=0.2, steps=150)
    for _ in range(150):
        learner.step(_LEAF, learner.policy_L, whiten=False)
    return learner


def test_ppo_reaches_the_best_policy(at_rest: Learner) -> None:
    assert distance(at_rest.policy_L, best_policy(BETA)) < 0.005
    assert distance(at_rest.policy_L, best_policy(1.2 * BETA)) > 0.05


def test_its_value_of_the_beginning_is_beta_log_z(at_rest: Learner) -> None:
    """At rest what is to come is worth beta log of the reference's mean of exp(score / beta)."""
    expected = BETA * torch.logsumexp(REFERENCE_L3.sum(1) + SCORE_L / BETA, 0)
    assert float(at_rest.values[0].detach()) == pytest.approx(float(expected), abs=0.02)


@pytest.mark.slow
def test_ppo_from_samples_with_whitened_advantages_and_mini_batches() -> None:
    steps, rollouts = 250, 2000
    learner = Learner(lr=0.1, steps=steps)
    mean_L = torch.zeros(LEAVES, dtype=torch.float64)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        leaves_D = torch.multinomial(learner.policy_L, rollouts, replacement=True, generator=generator)
        weight_D = torch.full((rollouts,), 2 / rollouts, dtype=torch.float64)
        learner.step(leaves_D, weight_D, whiten=True, minibatches=2)
        if step >= steps - steps // 4:
            mean_L += learner.policy_L / (steps // 4)
    assert distance(mean_L, best_policy(BETA)) < 0.02
