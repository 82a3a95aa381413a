"""From the raw scores of a step's completions to the scores that a method on rollouts sees.

Owns the scale of each reward, their weighted sum, the rule for completions that did not end, and clipping, in this
order. Invariant: what is learned of the scores on the way (the running mean and deviation of each reward) is saved with
the run, and only a training step adds to it.
Shapes: D completions, K rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from engine.data.host_copies import on_device
from engine.methods.rewards import Term


class ScoreSettings(Protocol):
    """The keys of [ppo], [grpo] and [rloo] that make scores."""

    @property
    def score_scale(self) -> str: ...
    @property
    def score_clip(self) -> float: ...
    @property
    def missing_eos(self) -> str: ...
    @property
    def missing_eos_penalty(self) -> float: ...


class ScoreRules(nn.Module):
    """The rules of one run; its buffers are the moments of all raw scores of the run's rollouts, for each reward."""

    count: torch.Tensor
    mean: torch.Tensor
    squares: torch.Tensor

    def __init__(self, settings: ScoreSettings, terms: Sequence[Term]) -> None:
        super().__init__()
        self._settings = settings
        self._terms = tuple(terms)
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        for name in ("mean", "squares"):
            self.register_buffer(name, torch.zeros(len(self._terms), dtype=torch.float64))

    def observe(self, raw_DK: torch.Tensor) -> None:
        """Add a step's raw scores to the running moments (Chan et al. 1979: counts, means and squares of two sets)."""
        new_DK = raw_DK.double()
        n = len(new_DK)
        total = self.count + n
        new_K = new_DK.mean(0)
        apart_K = new_K - self.mean
        self.squares += (new_DK - new_K).square().sum(0) + apart_K.square() * self.count * n / total
        self.mean += apart_K * n / total
        self.count.copy_(total)

    def scores(self, raw_DK: torch.Tensor, stopped: Sequence[bool], *, training: bool = True) -> torch.Tensor:
        """Weighted sums (D,) of the scaled scores with the rule for a missing end, clipped where asked for.

        Outside of training running scores are in the units of their own: held-out figures of two steps must have one.
        """
        settings = self._settings
        cut_off_D = on_device([not s for s in stopped], raw_DK.device)
        score_D = torch.zeros_like(raw_DK[:, 0])
        for k, term in enumerate(self._terms):
            score_D = score_D + term.weight * self._scaled(raw_DK[:, k], k, training)
        if settings.missing_eos == "replace":
            score_D = torch.where(cut_off_D, -settings.missing_eos_penalty, score_D)
        else:
            score_D = score_D - settings.missing_eos_penalty * cut_off_D
        limit = settings.score_clip
        return score_D.clamp(-limit, limit) if limit > 0 else score_D

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Moments of a run with one reward were once kept without a dimension."""
        for name in ("mean", "squares"):
            if (saved := state_dict.get(prefix + name)) is not None and saved.dim() == 0:
                state_dict[prefix + name] = saved.reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _scaled(self, raw_D: torch.Tensor, k: int, training: bool) -> torch.Tensor:
        if self._settings.score_scale == "none":
            return raw_D
        if self._settings.score_scale == "running" and training:
            deviation = (self.squares[k] / self.count.clamp_min(1.0)).sqrt()
            return ((raw_D.double() - self.mean[k]) / (deviation + 1e-8)).to(raw_D.dtype)
        scale = self._terms[k].scale
        return (raw_D - scale.mean) / scale.std
