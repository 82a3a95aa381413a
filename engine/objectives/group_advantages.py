"""From the scores of several completions of each prompt to advantages: what GRPO, RLOO and their kin compare with.

Shapes: P prompts, G completions of each, so a group is a row; N tokens of completions laid end to end, D = P * G
completions. Scores have no unit. An advantage of a completion is that of each of its tokens.

The group's mean counts the completion itself, so the expected advantage of a completion is (G - 1)/G times its score
less the policy's mean. A KL that stands in the loss is not scaled with it: its coefficient then acts as if it were
G/(G - 1) times as large. Leave-one-out has no such factor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.objectives.advantages import generalized_advantages, shaped_rewards, whitened

SCALE_EPSILON = 1e-4
"""Added to the standard deviation that scores are divided by, as TRL does."""


def group_relative(score_PG: torch.Tensor, *, scale: str) -> torch.Tensor:
    """Score less its group's mean; over a standard deviation (unbiased) where `scale` is not "none". (P, G).

    "group": over the group's own, sec. 4.1.2 of DeepSeekMath (arXiv:2402.03300). "batch": over that of all P * G
    scores. "none": Dr. GRPO (arXiv:2503.20783), which shows that dividing favours prompts that are easy or hard.
    """
    centred_PG = score_PG - score_PG.mean(dim=1, keepdim=True)
    if scale == "none":
        return centred_PG
    if scale == "batch":
        return centred_PG / (score_PG.std() + SCALE_EPSILON)
    assert scale == "group", scale
    return centred_PG / (score_PG.std(dim=1, keepdim=True) + SCALE_EPSILON)


def leave_one_out(score_PG: torch.Tensor) -> torch.Tensor:
    """Score less the mean of the group's other scores: RLOO, Ahmadian et al. 2024 (arXiv:2402.14740). (P, G)."""
    others = score_PG.shape[1] - 1
    assert others > 0, "a group of one has no others"
    return score_PG - (score_PG.sum(dim=1, keepdim=True) - score_PG) / others


def batch_normalised_returns(
    kl_N: torch.Tensor, score_D: torch.Tensor, last_N: torch.Tensor, lengths: Sequence[int], *, kl_coef: float
) -> torch.Tensor:
    """Score less the KL penalty still to come at each token, to mean 0 and deviation 1 over all tokens: REINFORCE++, Hu
    et al. 2025 (arXiv:2501.03262). It compares with the batch and needs no groups. (N,).
    """
    rewards_N = shaped_rewards(kl_N, score_D, last_N, kl_coef=kl_coef)
    # Without values and discount, the advantages of GAE are the rewards to come.
    to_come_N, _ = generalized_advantages(rewards_N, torch.zeros_like(rewards_N), lengths, gamma=1.0, lam=1.0)
    return whitened(to_come_N)


def without_spread(score_PG: torch.Tensor) -> torch.Tensor:
    """Which groups have equal scores, but for rounding, and so teach nothing. Bool, (P,)."""
    return torch.isclose(score_PG.amax(dim=1), score_PG.amin(dim=1), rtol=1e-5, atol=1e-6)
