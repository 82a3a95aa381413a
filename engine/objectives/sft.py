"""The objectives of supervised fine-tuning: one loss a trained token, in nats, unreduced.

The caller sums and divides by the trained tokens of the whole optimizer step.
"""

from __future__ import annotations

import torch


def smoothed_nll(
    log_probs_N: torch.Tensor, mean_log_probs_N: torch.Tensor | None, label_smoothing: float
) -> torch.Tensor:
    """(1 - e) * -log p(target) + e * mean over the vocabulary of -log p, of Szegedy et al. 2016 (arXiv:1512.00567).

    `mean_log_probs_N` is that mean of log p; it is not needed where e = `label_smoothing` is 0, the plain NLL.
    """
    if label_smoothing == 0.0:
        return -log_probs_N
    assert mean_log_probs_N is not None
    return -(1.0 - label_smoothing) * log_probs_N - label_smoothing * mean_log_probs_N


def dft_loss(log_probs_N: torch.Tensor) -> torch.Tensor:
    """-p(target) * log p(target) with p held fixed: dynamic fine-tuning, Wu et al. 2025 (arXiv:2508.05629).

    Tokens that the model finds improbable weigh little, where the NLL's gradient would weigh them by 1/p.
    """
    return -log_probs_N.detach().exp() * log_probs_N
