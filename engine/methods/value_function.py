"""PPO's value function: what it reads, which states have a value, and how far it is warmed up.

Owns the value head, the adapter of its own where it has one, and the layout of its states. Invariant: its loss reaches
its own weights alone; the policy's adapter and the frozen reward model get no gradient from it.

It begins as the reward model's normalised score (Ouyang et al. 2022, arXiv:2203.02155). A head alone on the frozen
reward model's hidden states costs no forward pass, but knows little before the answer's end: a reward model compares an
answer with its prompt at the last token, and nothing has taught its hidden states to do so earlier. An adapter of its
own, begun as a copy of the reward model's, learns that. Shapes: S states, N completion tokens, D completions, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from engine.data.host_copies import on_device
from engine.data.packing import PackedBatch
from engine.methods.rewards import Rewards
from engine.model.adapters import VALUE, RoleModel
from engine.model.heads import ScalarHead, value_head_from


@dataclass(frozen=True)
class ValueStates:
    """The states of a packed micro-batch that have a value, completion after completion."""

    rows_S: torch.Tensor
    """Index into T of the hidden state that each is read from: the one before the token that comes next."""
    action_N: torch.Tensor
    """Index into S of the state before each completion token."""
    last_D: torch.Tensor
    """Index into S of each completion's last state, where its score lands."""
    lengths: tuple[int, ...]
    """States of each completion."""


def value_states(batch: PackedBatch, stopped: Sequence[bool], *, post_eos: bool) -> ValueStates:
    """One state a completion token; with `post_eos` one more after the end-of-turn of each completion that `stopped`.

    That is where TRL's PPO (1.12) and Huang et al. 2024 (arXiv:2403.17031) put the score.
    """
    lengths = tuple(n + int(post_eos and s) for n, s in zip(batch.targets_per_document, stopped, strict=True))
    device = batch.rows_N.device
    lengths_D = on_device(lengths, device)
    ends_D = lengths_D.cumsum(0)
    if not post_eos:
        return ValueStates(batch.rows_N, torch.arange(len(batch.rows_N), device=device), ends_D - 1, lengths)
    extra_D = on_device([int(s) for s in stopped], device)
    shift_D = extra_D.cumsum(0) - extra_D
    action_N = torch.arange(len(batch.rows_N), device=device) + shift_D[batch.document_N]
    rows_S = batch.last_rows_D.repeat_interleave(lengths_D, output_size=sum(lengths))
    rows_S[action_N] = batch.rows_N
    return ValueStates(rows_S, action_N, ends_D - 1, lengths)


class ValueFunction(nn.Module):
    """The head and, where it has one, the adapter of its own; both are saved in `trainer/` and never exported."""

    def __init__(self, roles: RoleModel, rewards: Rewards) -> None:
        """It has an adapter of its own where `roles` has the role "value"."""
        super().__init__()
        self._roles = roles
        start = rewards.value_start
        if start is None:
            # Nothing is known of what the rewards will say: the value begins at 0.
            self.head = ScalarHead(roles.hidden_size, bias=True)
        else:
            judge, term = start
            self.head = value_head_from(judge.head, mean=term.scale.mean, std=term.scale.std, weight=term.weight)
        self.adapter = nn.ParameterDict({name.replace(".", "/"): p for name, p in roles.value_weights.items()})

    @property
    def has_adapter(self) -> bool:
        """Whether hidden states are its own, so that each of its passes goes through the model."""
        return len(self.adapter) > 0

    def features(
        self, batch: PackedBatch, states: ValueStates, *, frozen_TH: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Hidden states (S, H) in fp32, with gradient where it has an adapter of its own and one is wanted.

        Without an adapter it reads `frozen_TH`, hidden states of the reward model or, where none is over the base, of
        the reference.
        """
        if self.has_adapter:
            frozen_TH = self._roles.hidden(batch, VALUE)
        assert frozen_TH is not None
        return frozen_TH.index_select(0, states.rows_S).float()

    def forward(self, features_SH: torch.Tensor) -> torch.Tensor:
        """Values (S,) of states with these features, in deviations of the score."""
        values_S: torch.Tensor = self.head(features_SH)
        return values_S
