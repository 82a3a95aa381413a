"""From the reward model's raw scores of a step's completions to the scores that a method on rollouts sees.

Owns scaling, the rule for completions that did not end, and clipping, in this order. Invariant: what is learned of the
scores on the way (their running mean and deviation) is saved with the run, and only a training step adds to it.
Shapes: D completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from engine.data.host_copies import on_device
from engine.model.heads import ScoreScale


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
    """The rules of one run; its buffers are the moments of all raw scores of the run's rollouts."""

    count: torch.Tensor
    mean: torch.Tensor
    squares: torch.Tensor

    def __init__(self, settings: ScoreSettings, scale: ScoreScale) -> None:
        """`scale` is the reward model's own, on held-out answers."""
        super().__init__()
        self._settings = settings
        self._scale = scale
        for name in ("count", "mean", "squares"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    def observe(self, raw_D: torch.Tensor) -> None:
        """Add a step's raw scores to the running moments (Chan et al. 1979: counts, means and squares of two sets)."""
        new_D = raw_D.double()
        total = self.count + len(new_D)
        apart = new_D.mean() - self.mean
        self.squares += (new_D - new_D.mean()).square().sum() + apart.square() * self.count * len(new_D) / total
        self.mean += apart * len(new_D) / total
        self.count.copy_(total)

    def scores(self, raw_D: torch.Tensor, stopped: Sequence[bool], *, training: bool = True) -> torch.Tensor:
        """Scaled scores (D,) with the rule for a missing end, clipped where asked for.

        Outside of training running scores are in the reward model's own deviations: held-out figures of two steps
        must have one unit.
        """
        settings = self._settings
        cut_off_D = on_device([not s for s in stopped], raw_D.device)
        score_D = self._scaled(raw_D, training)
        if settings.missing_eos == "replace":
            score_D = torch.where(cut_off_D, -settings.missing_eos_penalty, score_D)
        else:
            score_D = score_D - settings.missing_eos_penalty * cut_off_D
        limit = settings.score_clip
        return score_D.clamp(-limit, limit) if limit > 0 else score_D

    def _scaled(self, raw_D: torch.Tensor, training: bool) -> torch.Tensor:
        if self._settings.score_scale == "none":
            return raw_D
        if self._settings.score_scale == "running" and training:
            deviation = (self.squares / self.count.clamp_min(1.0)).sqrt()
            return ((raw_D.double() - self.mean) / (deviation + 1e-8)).to(raw_D.dtype)
        return (raw_D - self._scale.mean) / self._scale.std
