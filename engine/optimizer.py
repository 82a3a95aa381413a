"""The optimizer step: AdamW, the learning-rate schedule, clipping, and the refusal of non-finite gradients.

Its state can be written as tensors and plain numbers, so a checkpoint needs no pickle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from engine.errors import CheckpointError
from engine.run.config import OptimConfig

SCHEDULES = ("constant", "linear", "cosine")


def learning_rate(settings: OptimConfig, step: int, total_steps: int) -> float:
    """Learning rate of step `step` (0-based): linear warm-up over `warmup_share` of the run, then the schedule.

    The first step already has a rate above zero, and the last one too.
    """
    warmup = round(settings.warmup_share * total_steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.lr
    done = (step - warmup) / max(1, total_steps - warmup)
    if settings.schedule == "linear":
        return settings.lr * (1.0 - done)
    return settings.lr * 0.5 * (1.0 + math.cos(math.pi * done))


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
            _groups(parameters, own_rates or {}),
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def step(self, step: int) -> tuple[float, float] | None:
        """Clip and apply the gathered gradients at the rate of training step `step`; then clear them.

        Parameters with a rate of their own are clipped by themselves, so that a head cannot drown the policy. Returns
        (gradient norm before clipping, learning rate) of the common ones, or None where a gradient is not finite: then
        the parameters and the optimizer's state are untouched.
        """
        rate = learning_rate(self._settings, step, self._total_steps)
        limit = self._settings.max_grad_norm or math.inf
        norms = [float(torch.nn.utils.clip_grad_norm_(g["params"], limit)) for g in self._adamw.param_groups]
        value = norms[0]
        if not all(math.isfinite(norm) for norm in norms):
            self.clear()
            return None
        for group in self._adamw.param_groups:
            group["lr"] = rate * group["scale"] / self._settings.lr if group["scale"] else rate
        self._adamw.step()
        self.clear()
        return value, rate

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


def _groups(parameters: Mapping[str, torch.nn.Parameter], own_rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """AdamW's parameter groups: one at the common rate, and one for each own rate. `scale` 0 is the common rate."""
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in parameters.items():
        rate = next((rate for prefix, rate in own_rates.items() if name.startswith(prefix)), 0.0)
        groups.setdefault(rate, []).append(parameter)
    return [{"params": groups[rate], "scale": rate} for rate in sorted(groups)]
