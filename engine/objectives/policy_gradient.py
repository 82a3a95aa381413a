"""The clipped objectives of PPO, per token."""

from __future__ import annotations

import torch


def clipped_policy_loss(
    log_probs_N: torch.Tensor, old_log_probs_N: torch.Tensor, advantages_N: torch.Tensor, *, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """max(-A rho, -A clamp(rho, 1-clip, 1+clip)), eq. 7 of Schulman et al. 2017 (arXiv:1707.06347), negated.

    rho is p_new/p_old of the sampled token. Returns the loss (N,) and the ratio (N,), both unreduced.
    """
    ratio_N = torch.exp(log_probs_N - old_log_probs_N)
    free_N = -advantages_N * ratio_N
    bound_N = -advantages_N * torch.clamp(ratio_N, 1.0 - clip, 1.0 + clip)
    return torch.maximum(free_N, bound_N), ratio_N


def clipped_value_loss(
    values_N: torch.Tensor, old_values_N: torch.Tensor, returns_N: torch.Tensor, *, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of max((V-R)^2, (clamp(V, V_old +- clip)-R)^2), as in Ziegler et al. 2019 (arXiv:1909.08593).

    Returns the loss (N,), unreduced, and a 0/1 mask (N,) of where the clipped branch is the larger. `clip` = 0 means
    no clipping.
    """
    free_N = (values_N - returns_N).square()
    if clip <= 0.0:
        return 0.5 * free_N, torch.zeros_like(free_N)
    near_N = torch.maximum(torch.minimum(values_N, old_values_N + clip), old_values_N - clip)
    bound_N = (near_N - returns_N).square()
    return 0.5 * torch.maximum(free_N, bound_N), (bound_N > free_N).float()
