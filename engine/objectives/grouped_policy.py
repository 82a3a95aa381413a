"""The policy losses of GRPO, Dr. GRPO, DAPO, GSPO, CISPO and RLOO: one ratio, one surrogate, one way to add up.

A loss is a sum over tokens with a denominator that is known before any forward pass (`denominator`), so it depends on
no cut into micro-batches. Shapes: N tokens of D completions laid end to end, `document_N` the completion of each,
ascending, `tokens_D` how many each has.

| | ratio level | surrogate | added up |
|---|---|---|---|
| GRPO (arXiv:2402.03300) | token | clip | mean over completions of means over their tokens |
| Dr. GRPO (arXiv:2503.20783) | token | clip | sum over tokens / (completions * longest) |
| DAPO (arXiv:2503.14476) | token | clip, clip_high > clip_low | mean over all tokens |
| GSPO (arXiv:2507.18071) | sequence_mean | clip | mean over completions |
| CISPO (arXiv:2506.13585) | token | cispo | mean over all tokens |
| RLOO (arXiv:2402.14740) | sequence_sum | clip | mean over completions |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.objectives.kl_loss import LOSS_ESTIMATORS


@dataclass(frozen=True)
class GroupedObjective:
    """What is minimised, given advantages."""

    ratio_level: str = "token"
    """token; sequence_mean: exp of the mean log-ratio of a completion's tokens; sequence_sum: of the completion."""
    surrogate: str = "clip"
    """clip or cispo."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    """The ratio counts between 1 - clip_low and 1 + clip_high; cispo has no lower end."""
    added_up: str = "tokens"
    """tokens: mean over all tokens; sequences: mean over completions of token means; constant: sum over tokens by
    completions * longest."""
    longest: int = 1
    """For constant: tokens that a completion may have."""
    kl_coef: float = 0.0
    """Weight of the KL in the loss; 0 where it stands in the reward or nowhere."""
    kl_estimator: str = "k3_token"
    """A row of `engine.objectives.kl_loss.LOSS_ESTIMATORS`."""

    def denominator(self, lengths: Sequence[int]) -> float:
        """What the sum of `token_losses` over completions of these lengths is divided by."""
        if self.added_up == "tokens":
            return float(sum(lengths))
        return float(len(lengths)) * (self.longest if self.added_up == "constant" else 1)

    def token_losses(
        self,
        log_probs_N: torch.Tensor,
        old_N: torch.Tensor,
        reference_N: torch.Tensor,
        advantages_N: torch.Tensor,
        document_N: torch.Tensor,
        tokens_D: torch.Tensor,
    ) -> TokenLosses:
        """What each token adds to the sum. Log-probs in nats: of the policy now, of the one that sampled, of the
        reference; all (N,).
        """
        ratio_N = ratios(log_probs_N, old_N, document_N, tokens_D, level=self.ratio_level)
        if self.surrogate == "cispo":
            policy_N = truncated_reinforce(log_probs_N, ratio_N, advantages_N, clip_high=self.clip_high)
        else:
            policy_N = clipped_surrogate(ratio_N, advantages_N, clip_low=self.clip_low, clip_high=self.clip_high)
        loss_N = policy_N
        if self.kl_coef:
            estimator = LOSS_ESTIMATORS[self.kl_estimator]
            loss_N = loss_N + self.kl_coef * estimator(log_probs_N, reference_N, old_N, document_N)
        if self.added_up == "sequences":
            loss_N = loss_N / tokens_D.index_select(0, document_N)
        return TokenLosses(loss_N, ratio_N)

    def clipped(self, ratio_N: torch.Tensor, advantages_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the ratio is clipped and so passes no gradient on: (low (N,), high (N,)), bool. cispo never clips at
        the lower end, and passes on a gradient that is bounded at the upper one."""
        high_N = (ratio_N > 1.0 + self.clip_high) & (advantages_N > 0)
        low_N = (ratio_N < 1.0 - self.clip_low) & (advantages_N < 0)
        return (torch.zeros_like(low_N) if self.surrogate == "cispo" else low_N), high_N


@dataclass(frozen=True)
class TokenLosses:
    """One forward pass over N tokens."""

    loss_N: torch.Tensor
    """To be summed and divided by the update's denominator; KL included."""
    ratio_N: torch.Tensor
    """Of the chosen level, one for each token of its completion."""


def ratios(
    log_probs_N: torch.Tensor, old_N: torch.Tensor, document_N: torch.Tensor, tokens_D: torch.Tensor, *, level: str
) -> torch.Tensor:
    """p_policy / p_old of each token, or of its completion: (N,).

    "sequence_mean" is eq. 7 of GSPO (arXiv:2507.18071), the geometric mean of the token ratios; "sequence_sum" is the
    ratio of the completion as one action. Their gradient goes through every token of the completion.
    """
    log_ratio_N = log_probs_N - old_N
    if level == "token":
        return torch.exp(log_ratio_N)
    log_ratio_D = torch.zeros_like(tokens_D).index_add(0, document_N, log_ratio_N)
    if level == "sequence_mean":
        log_ratio_D = log_ratio_D / tokens_D
    else:
        assert level == "sequence_sum", level
    return torch.exp(log_ratio_D).index_select(0, document_N)


def clipped_surrogate(
    ratio_N: torch.Tensor, advantages_N: torch.Tensor, *, clip_low: float, clip_high: float
) -> torch.Tensor:
    """-min(A rho, A clamp(rho, 1 - clip_low, 1 + clip_high)): eq. 7 of PPO (arXiv:1707.06347), negated, with the two
    ends of DAPO (arXiv:2503.14476). (N,), unreduced.
    """
    bound_N = torch.clamp(ratio_N, 1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(advantages_N * ratio_N, advantages_N * bound_N)


def truncated_reinforce(
    log_probs_N: torch.Tensor, ratio_N: torch.Tensor, advantages_N: torch.Tensor, *, clip_high: float
) -> torch.Tensor:
    """-sg(min(rho, 1 + clip_high)) A log p: eq. 4 of CISPO (arXiv:2506.13585), which trains without a lower end.

    No token's gradient is lost: what is clipped is its weight. (N,), unreduced.
    """
    return -ratio_N.detach().clamp(max=1.0 + clip_high) * advantages_N * log_probs_N
