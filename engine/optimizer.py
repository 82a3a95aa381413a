"""The optimizer step: AdamW, the learning-rate schedule, clipping, weight decay of matrices alone.

Its state can be written as tensors and plain numbers, so a checkpoint needs no pickle. Invariant: nothing here waits
for the device; whoever asks for the gradients' norms reads them together with whatever else it needs on the host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from engine.errors import CheckpointError
from engine.run.config import OptimConfig

SCHEDULES = ("constant", "linear", "cosine", "wsd")


def learning_rate(settings: OptimConfig, step: int, total_steps: int) -> float:
    """Learning rate of step `step` (0-based): linear warm-up, then the schedule, down to `min_lr_share` of the peak.

    The first step already has a rate above zero, and the last one too. "wsd" is warm-up, stable, decay (MiniCPM,
    arXiv:2404.06395), with the linear decay of arXiv:2405.18392 over the last `decay_share` of the run.
    """
    warmup = settings.warmup_steps or round(settings.warmup_share * total_steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    falling = max(1, total_steps - warmup)
    if settings.schedule == "wsd":
        falling = min(falling, max(1, round(settings.decay_share * total_steps)))
    done = max(0.0, 1.0 - (total_steps - step) / falling)
    if settings.schedule == "constant":
        left = 1.0
    elif settings.schedule == "cosine":
        left = 0.5 * (1.0 + math.cos(math.pi * done))
    else:
        left = 1.0 - done
    return settings.lr * (settings.min_lr_share + (1.0 - settings.min_lr_share) * left)


class Optimizer:
    """AdamW over named parameters, stepped once an update."""

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        settings: OptimConfig,
        total_steps: int,
        *,
        own_rates: Mapping[str, float] | None = None,
    ) -> None:
        """`own_rates` gives the peak learning rate of parameters whose names begin so, in place of `settings.lr`."""
        self._names = list(parameters)
        self._parameters = list(parameters.values())
        self._settings = settings
        self._total_steps = total_steps
        self._adamw = torch.optim.AdamW(
            _groups(parameters, own_rates or {}, settings.weight_decay),
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            fused=True,
        )
        scales = dict.fromkeys(group["scale"] for group in self._adamw.param_groups)
        self._clipped_together = [
            [p for group in self._adamw.param_groups if group["scale"] == scale for p in group["params"]]
            for scale in scales
        ]

    def gradient_norms(self) -> list[torch.Tensor]:
        """Norm of the gathered gradients, on the device: of the parameters at the common rate, then of each other rate.

        A gradient that is not finite makes its norm so; where none was gathered the norm is 0.
        """
        return [
            torch.nn.utils.get_total_norm(
                [p.grad for p in together if p.grad is not None] or [together[0].new_zeros(1)]
            )
            for together in self._clipped_together
        ]

    def step(self, step: int, norms: Sequence[float]) -> float:
        """Clip and apply the gathered gradients at the rate of training step `step`, which is returned; clear them.

        `norms` are the values of `gradient_norms`, all finite. Parameters with a rate of their own are clipped by
        themselves, so that a head cannot drown the policy.
        """
        limit = self._settings.max_grad_norm or math.inf
        for together, norm in zip(self._clipped_together, norms, strict=True):
            if norm > limit:
                # As clip_grads_with_norm_, by a number of the host: a norm as a tensor would be copied back.
                torch._foreach_mul_([p.grad for p in together if p.grad is not None], limit / (norm + 1e-6))
        rate = learning_rate(self._settings, step, self._total_steps)
        for group in self._adamw.param_groups:
            group["lr"] = rate * group["scale"] / self._settings.lr if group["scale"] else rate
        self._adamw.step()
        self.clear()
        return rate

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained, in the order of the names that were given."""
        return self._parameters

    def clear(self) -> None:
        """Forget gathered gradients."""
        self._adamw.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The moments and step counts of every parameter that has been stepped, by name."""
        out: dict[str, torch.Tensor] = {}
        for name, parameter in zip(self._names, self._parameters, strict=True):
            for key, value in self._adamw.state.get(parameter, {}).items():
                out[f"{name}:{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
        return out

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state_tensors` gave. Raises CheckpointError where a name is unknown."""
        state: dict[str, dict[str, Any]] = {}
        for key, value in tensors.items():
            name, _, part = key.rpartition(":")
            state.setdefault(name, {})[part] = value
        unknown = sorted(set(state) - set(self._names))
        if unknown:
            raise CheckpointError(f"the optimizer state names a parameter that this model does not train: {unknown[0]}")
        for name, parameter in zip(self._names, self._parameters, strict=True):
            if name in state:
                # The step count stays on the CPU or goes to the device as fused AdamW keeps it: beside the moments.
                self._adamw.state[parameter] = {k: v.to(parameter.device) for k, v in state[name].items()}


def _groups(
    parameters: Mapping[str, torch.nn.Parameter], own_rates: Mapping[str, float], weight_decay: float
) -> list[dict[str, Any]]:
    """AdamW's parameter groups: by rate, and in each those that decay and those that do not.

    `scale` is a group's own peak rate; 0 is the common one. Only matrices decay: a norm's or bias's vector that is
    pulled to zero changes what the layer computes and regularises nothing.
    """
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in parameters.items():
        rate = next((rate for prefix, rate in own_rates.items() if name.startswith(prefix)), 0.0)
        groups.setdefault((rate, parameter.ndim < 2), []).append(parameter)
    return [
        {"params": groups[key], "scale": key[0], "weight_decay": 0.0 if key[1] else weight_decay}
        for key in sorted(groups)
    ]
