"""The reward-model objective."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def bradley_terry_loss(
    chosen_B: torch.Tensor, rejected_B: torch.Tensor, *, margin_B: torch.Tensor | None = None, center_coef: float = 0.0
) -> torch.Tensor:
    """-log sigmoid(r_chosen - r_rejected - margin), Bradley and Terry 1952; as in Stiennon et al. 2020
    (arXiv:2009.01325), the margin as in Llama 2 (arXiv:2307.09288).

    `center_coef` adds center_coef * (r_chosen + r_rejected)^2, which keeps rewards near zero (Eisenstein et al. 2023,
    arXiv:2312.09244). Rewards have no unit. Returns shape (B,), unreduced. Equal rewards without a margin give ln 2.
    """
    gap_B = chosen_B - rejected_B
    if margin_B is not None:
        gap_B = gap_B - margin_B
    loss_B = -F.logsigmoid(gap_B)
    if center_coef:
        loss_B = loss_B + center_coef * (chosen_B + rejected_B).square()
    return loss_B
