"""KL(policy || reference) as a term of the loss, from tokens that an older policy sampled.

What a term is worth is one thing, what its gradient does another (Tang and Munos 2025, arXiv:2506.09477). For tokens of
the present policy, s being the state that a token a was sampled in, Q(s, a) the mean score of completions that go on
from there, c = (G - 1)/G the factor of a group's mean (1 without one), the policy comes to rest where

    k2, k3_token    pi(a|s) = reference(a|s) exp(c Q(s, a) / beta) / Z(s)
    k3              pi(a|s) = beta reference(a|s) / (lambda(s) - c Q(s, a)),  lambda(s) such that it sums to 1
    k3_prefix       pi(y) = reference(y) exp(c score(y) / beta) / Z, over whole completions y

The first two see the KL of the next token alone, and not what KL a token leads to; the gradient of k3 is, moreover,
that of KL(reference || policy). k3_prefix is the optimum of score less beta times the completion's KL, as is a KL in
the reward. k1 has a gradient of zero in expectation, and so is no term of a loss.

All tensors are (N,), nats; `document_N` says which completion each token belongs to, ascending.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.objectives import kl


def k2(
    policy_N: torch.Tensor, reference_N: torch.Tensor, old_N: torch.Tensor, document_N: torch.Tensor
) -> torch.Tensor:
    """Half the square of the log-ratio to the reference; right while the policy is the one that sampled."""
    return kl.k2(policy_N, reference_N)


def k3(
    policy_N: torch.Tensor, reference_N: torch.Tensor, old_N: torch.Tensor, document_N: torch.Tensor
) -> torch.Tensor:
    """As GRPO was published: eq. 4 of DeepSeekMath (arXiv:2402.03300)."""
    return kl.k3(policy_N, reference_N)


def k3_token(
    policy_N: torch.Tensor, reference_N: torch.Tensor, old_N: torch.Tensor, document_N: torch.Tensor
) -> torch.Tensor:
    """k3 weighed by the token's ratio p_policy/p_old: DeepSeek-V3.2 (arXiv:2512.02556), TRL's use_bias_correction_kl.

    Its gradient is that of the next token's KL, also where the policy has moved since it sampled.
    """
    return torch.exp(policy_N - old_N) * kl.k3(policy_N, reference_N)


def k3_prefix(
    policy_N: torch.Tensor, reference_N: torch.Tensor, old_N: torch.Tensor, document_N: torch.Tensor
) -> torch.Tensor:
    """k3 weighed by the ratio of all tokens of its completion up to and with it, the chance of its state included.

    Its gradient is that of the KL of whole completions, wherever they were sampled; it varies more than k3_token's.
    """
    return torch.exp(sums_so_far(policy_N - old_N, document_N)) * kl.k3(policy_N, reference_N)


def sums_so_far(values_N: torch.Tensor, document_N: torch.Tensor) -> torch.Tensor:
    """Running sums inside each document, the element itself included. (N,), in the dtype of `values_N`."""
    # One sum over all documents, less what came before each: in fp64, so that none feels its neighbours' rounding.
    running_N = values_N.double().cumsum(0)
    starts_N = torch.searchsorted(document_N, document_N)
    before_N = torch.cat([running_N.new_zeros(1), running_N]).index_select(0, starts_N)
    return (running_N - before_N).to(values_N.dtype)


LossEstimator = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
LOSS_ESTIMATORS: dict[str, LossEstimator] = {"k2": k2, "k3": k3, "k3_token": k3_token, "k3_prefix": k3_prefix}
