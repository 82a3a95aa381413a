"""Kahneman-Tversky optimisation: answers that were judged one by one, without a pair.

Ethayarajh et al. 2024 (arXiv:2402.01306). Log-ratios are log p_policy - log p_reference of whole answers, in nats.
"""

from __future__ import annotations

import torch


def kto_baseline(mismatched_log_ratio_B: torch.Tensor) -> torch.Tensor:
    """z0 = max(0, mean of the log-ratios of answers to other prompts), a scalar without gradient: what the paper takes
    for KL(policy || reference). The answers are not sampled from the policy, so it is no estimate of that KL.
    """
    return mismatched_log_ratio_B.detach().mean().clamp(min=0)


def kto_loss(
    log_ratio_B: torch.Tensor,
    desirable_B: torch.Tensor,
    baseline: torch.Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> torch.Tensor:
    """w_D (1 - s(beta (r - z0))) for a desirable answer, w_U (1 - s(beta (z0 - r))) for another, s the logistic
    function. `desirable_B` is boolean. Shape (B,), unreduced; the weights are in the loss and not
    in its denominator, which is the number of examples.
    """
    gain_B = beta * (log_ratio_B - baseline)
    desired_B = desirable_weight * torch.sigmoid(-gain_B)
    return torch.where(desirable_B, desired_B, undesirable_weight * torch.sigmoid(gain_B))
