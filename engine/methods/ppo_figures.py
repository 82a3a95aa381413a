"""What a step of PPO says of its rollouts, before any update: the metrics of the step as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.methods.completion_figures import completion_figures
from engine.methods.method import Metric
from engine.methods.rewards import Rewards
from engine.methods.rollout import RolloutBatch
from engine.model.sampler import Completion
from engine.objectives.advantages import explained_variance
from engine.objectives.kl import ESTIMATORS
from engine.run.config_ppo import PpoConfig


def rollout_metrics(
    batches: Sequence[RolloutBatch],
    completions: Sequence[Completion],
    settings: PpoConfig,
    rewards: Rewards,
    kl_coef: torch.Tensor,
) -> dict[str, Metric]:
    """(sum, count) by name, over the rollouts of the step; `kl_coef` is the weight that the step's KL has."""
    n = float(len(completions))
    kl_D = torch.cat([b.batch.sum_by_document(b.log_probs_N - b.reference_N) for b in batches])
    score_D = torch.cat([b.score_D for b in batches])
    entropy_D = torch.cat([b.batch.sum_by_document(b.entropy_N) for b in batches])
    raw_DK = torch.cat([b.raw_DK for b in batches])
    values_S = torch.cat([b.values_S for b in batches])
    returns_S = torch.cat([b.returns_S for b in batches])
    # A KL in the loss is told by the estimator that the reward would have: k1, whose mean is the KL.
    estimator = ESTIMATORS[settings.kl_estimator if settings.kl_in == "reward" else "k1"]
    penalty = sum((estimator(b.log_probs_N, b.reference_N).sum() for b in batches), torch.zeros((), device=kl_D.device))
    non_score = -(kl_coef * penalty).to(penalty.dtype)
    return {
        "objective/kl": (kl_D.sum(), n),
        "objective/entropy": (entropy_D.sum(), n),
        "objective/scores": (score_D.sum(), n),
        "objective/scores_std": (score_D.std(unbiased=False), 1.0),
        "objective/raw_scores": (rewards.weighted(raw_DK).sum(), n),
        **rewards.metrics(raw_DK),
        "objective/non_score_reward": (non_score, n),
        "objective/rlhf_reward": (score_D.sum() + non_score, n),
        "objective/kl_coef": (kl_coef.clone(), 1.0),
        "objective/response_length": (float(sum(len(c.ids) for c in completions)), n),
        "val/num_eos_tokens": (float(sum(c.stopped for c in completions)), 1.0),
        **completion_figures(completions),
        "val/explained_variance": (explained_variance(values_S, returns_S), 1.0),
    }
