"""The preference objective on log-ratios of whole answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def dpo_loss(chosen_logratio_B: torch.Tensor, rejected_logratio_B: torch.Tensor, *, beta: float) -> torch.Tensor:
    """-log sigmoid(beta * (chosen - rejected)), eq. 7 of Rafailov et al. 2023 (arXiv:2305.18290).

    A log-ratio is log p_policy(answer) - log p_reference(answer) in nats, summed over the answer's tokens.
    Returns shape (B,), unreduced: the caller owns the denominator, so accumulation equals one large batch.
    Where policy and reference agree the loss is ln 2 and its slope in the chosen log-ratio is -beta/2.
    """
    return -F.logsigmoid(beta * (chosen_logratio_B - rejected_logratio_B))
