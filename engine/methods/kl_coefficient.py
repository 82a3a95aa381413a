"""The weight of the KL to the reference: fixed, or steered to a target (Ziegler et al. 2019, arXiv:1909.08593, 2.2).

e = clip(KL / target - 1, -0.2, 0.2); the weight is multiplied by 1 + e * n / horizon, n being the rollouts of the step.
The KL is that of the step's own rollouts: k1 summed over each completion's tokens, in nats. The paper's constants are
a target of 6 nats and K = 0.1, which is a horizon of ten steps' rollouts.
"""

from __future__ import annotations

import torch
from torch import nn

ERROR_LIMIT = 0.2


class KlCoefficient(nn.Module):
    """The weight as a buffer, so that a run goes on with what it had."""

    value: torch.Tensor

    def __init__(self, start: float, *, target: float, horizon: float) -> None:
        """`target` is nats a sequence; 0 keeps the weight at `start`. `horizon` counts rollouts."""
        super().__init__()
        self._target = target
        self._horizon = horizon
        self.register_buffer("value", torch.tensor(start, dtype=torch.float64))

    def steer(self, kl: torch.Tensor, rollouts: int) -> None:
        """Take in the mean KL, nats a sequence, of a step's rollouts; the new weight counts from the next step on."""
        if self._target > 0:
            error = (kl.double() / self._target - 1.0).clamp(-ERROR_LIMIT, ERROR_LIMIT)
            self.value *= 1.0 + error * rollouts / self._horizon
