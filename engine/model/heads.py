"""Scalar heads that sit beside the base: the reward head and the value head.

A head is a plain fp32 linear layer outside peft, saved next to the adapter as safetensors. It reads the hidden state
of one token and returns one number. A reward head has no bias: Bradley-Terry does not see a constant.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from engine.errors import ModelError

REWARD_HEAD_FILE = "reward_head.safetensors"
REWARD_HEAD_NOTES = "reward_head.json"


@dataclass(frozen=True)
class ScoreScale:
    """Where the raw scores of a reward model lie: rewards have no zero and no unit of their own."""

    mean: float
    std: float
    answers: int = 0
    """How many scores it was measured on; 0 where that was not written down."""
    of: str = "held-out answers"
    """Which: held-out answers, or training answers where a run has no others."""

    def normalised(self, score: float) -> float:
        """A raw score in standard deviations from the mean."""
        return (score - self.mean) / self.std


class ScalarHead(nn.Module):
    """Linear(H, 1) in fp32; reads hidden states (R, H) of any precision and returns (R,) in fp32."""

    def __init__(self, hidden_size: int, *, seed: int | None = None, bias: bool = False) -> None:
        """`seed` draws weights with standard deviation 1/sqrt(H + 1) (Stiennon et al. 2020, arXiv:2009.01325);
        without a seed the head is zero."""
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1, bias=bias, dtype=torch.float32)
        with torch.no_grad():
            if bias:
                self.linear.bias.zero_()
            if seed is None:
                self.linear.weight.zero_()
            else:
                generator = torch.Generator().manual_seed(seed)
                self.linear.weight.copy_(torch.randn(1, hidden_size, generator=generator) / math.sqrt(hidden_size + 1))

    def forward(self, hidden_RH: torch.Tensor) -> torch.Tensor:
        """One fp32 number a row: shape (R,)."""
        out: torch.Tensor = self.linear(hidden_RH.float()).squeeze(-1)
        return out


def value_head_from(reward_head: ScalarHead, *, mean: float, std: float, weight: float = 1.0) -> ScalarHead:
    """A value head that begins as `weight` times the normalised reward, (w h - mean) / std, as in Ouyang et al. 2022
    (arXiv:2203.02155), whose value function is initialised from the reward model."""
    of_reward = reward_head.linear.weight
    head = ScalarHead(of_reward.shape[1], bias=True)
    with torch.no_grad():
        head.linear.weight.copy_(weight * (of_reward / std))
        head.linear.bias.fill_(weight * (-mean / std))
    return head


def save_reward_head(head: ScalarHead, folder: Path, scale: ScoreScale) -> None:
    """Write the head, and beside it the scale of its raw scores."""
    save_file({"weight": head.linear.weight.detach().cpu().contiguous()}, folder / REWARD_HEAD_FILE)
    notes = {"schema": 1, **asdict(scale), "reads": "hidden state of the answer's last token"}
    (folder / REWARD_HEAD_NOTES).write_text(json.dumps(notes, indent=2) + "\n")


def load_reward_head(folder: Path) -> tuple[ScalarHead, ScoreScale]:
    """The head of a reward-model checkpoint with the scale of its scores. Raises ModelError."""
    file = folder / REWARD_HEAD_FILE
    if not file.is_file():
        raise ModelError(
            f"{folder}: no {REWARD_HEAD_FILE}, so this is not a reward model: "
            "name a checkpoint of `workbench train reward`"
        )
    weight = load_file(file)["weight"]
    head = ScalarHead(weight.shape[1])
    with torch.no_grad():
        head.linear.weight.copy_(weight)
    notes = json.loads((folder / REWARD_HEAD_NOTES).read_text())
    known = {key: notes[key] for key in ("answers", "of") if key in notes}
    return head, ScoreScale(float(notes["mean"]), float(notes["std"]), **known)
