"""From rewards and values to advantages and returns, over packed completions.

All tensors are laid end to end, completion after completion: `lengths` says how many tokens each has. Token t of a
completion is an action; its value is the value of the state *before* it. Undiscounted by default; no unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.data.host_copies import queued


def shaped_rewards(kl_N: torch.Tensor, score_D: torch.Tensor, last_N: torch.Tensor, *, kl_coef: float) -> torch.Tensor:
    """-kl_coef * kl at each token, plus the completion's score at its last token (its end-of-turn, where it has one).

    The setting of Stiennon et al. 2020 (arXiv:2009.01325). `last_N` is the index into N of each completion's last
    token, shape (D,). Returns (N,).
    """
    rewards_N = -kl_coef * kl_N
    return rewards_N.index_add(0, last_N, score_D.to(rewards_N.dtype))


def generalized_advantages(
    rewards_N: torch.Tensor, values_N: torch.Tensor, lengths: Sequence[int], *, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """GAE(gamma, lambda) inside each completion, eq. 16 of Schulman et al. 2015 (arXiv:1506.02438).

    delta_t = r_t + gamma V_{t+1} - V_t with V = 0 after the last token; A_t = sum_l (gamma lambda)^l delta_{t+l}.
    Returns (advantages (N,), returns (N,)), returns being advantages + values before any whitening.
    """
    longest = max(lengths, default=0)
    count = len(lengths)
    # Right-aligned columns, so that one backward sweep serves all completions whatever their lengths. Where each token
    # stands is worked out on the host: an index by a mask would make the host wait for the device.
    mask_DL = torch.arange(longest) >= longest - torch.tensor(lengths, dtype=torch.int64).unsqueeze(1)
    places_N = queued(mask_DL.flatten().nonzero().squeeze(1), rewards_N.device)
    mask_DL = queued(mask_DL, rewards_N.device)

    def in_columns(tokens_N: torch.Tensor) -> torch.Tensor:
        return tokens_N.new_zeros(count * longest).index_copy(0, places_N, tokens_N).view(count, longest)

    rewards_DL, values_DL = in_columns(rewards_N), in_columns(values_N)
    advantages_DL = torch.zeros_like(rewards_DL)
    running_D = rewards_N.new_zeros(count)
    following_D = values_N.new_zeros(count)
    for t in range(longest - 1, -1, -1):
        delta_D = rewards_DL[:, t] + gamma * following_D - values_DL[:, t]
        running_D = torch.where(mask_DL[:, t], delta_D + gamma * lam * running_D, running_D)
        following_D = torch.where(mask_DL[:, t], values_DL[:, t], following_D)
        advantages_DL[:, t] = running_D
    advantages_N = advantages_DL.flatten().index_select(0, places_N)
    return advantages_N, advantages_N + values_N


def whitened(values_N: torch.Tensor, *, epsilon: float = 1e-8) -> torch.Tensor:
    """Mean 0 and (unbiased) variance 1 over the whole batch; a single value is only centred."""
    centred_N = values_N - values_N.mean()
    if values_N.numel() < 2:
        return centred_N
    return centred_N / torch.sqrt(values_N.var(unbiased=True) + epsilon)


def explained_variance(values_N: torch.Tensor, returns_N: torch.Tensor) -> torch.Tensor:
    """1 - Var(returns - values) / Var(returns): 1 is a perfect value function, below 0 is worse than a constant."""
    variance = returns_N.var(unbiased=False)
    return 1.0 - (returns_N - values_N).var(unbiased=False) / variance.clamp_min(1e-12)
