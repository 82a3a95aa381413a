"""Estimators of KL(policy || reference) from tokens that the policy sampled.

Each takes log p_policy and log p_reference of the same sampled tokens, in nats, of any equal shape, and returns an
unreduced value of that shape (Schulman 2020, "Approximating KL divergence"). k1 is unbiased and may be negative; k2 is
biased and small in variance; k3 is unbiased and never negative. As a *loss* they differ more than as a value: the
gradient of k3 is that of KL(reference || policy), and the gradient of k1 is zero in expectation.
"""

from __future__ import annotations

import torch


def k1(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """log p_policy - log p_reference."""
    return policy - reference


def k2(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Half the square of the log-ratio."""
    return 0.5 * (policy - reference).square()


def k3(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """p_reference/p_policy - 1 - log(p_reference/p_policy)."""
    inverse = reference - policy
    return torch.expm1(inverse) - inverse


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}
