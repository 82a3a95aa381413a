"""Reward modelling: a scalar head on the answer's last token, trained on pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from engine.data.examples import PreferenceExample
from engine.data.packing import Document, PackedBatch, fill_by_token_budget, pack
from engine.methods.method import ExampleOrder, Metric, Terms, Update, mean_and_error
from engine.model.adapters import RoleModel
from engine.model.heads import ScalarHead
from engine.objectives.reward import bradley_terry_loss


class RewardModelling:
    """Bradley-Terry on (chosen, rejected); both answers of a pair go through in the same packed pass."""

    def __init__(
        self,
        roles: RoleModel,
        head: ScalarHead,
        train: Sequence[PreferenceExample],
        held_out: Sequence[PreferenceExample],
        order: ExampleOrder,
        *,
        center_coef: float,
        tokens_per_micro_batch: int,
        device: torch.device,
    ) -> None:
        self._roles = roles
        self.head = head
        self._train = train
        self._held_out = held_out
        self._order = order
        self._center_coef = center_coef
        self._budget = tokens_per_micro_batch
        self._device = device
        self.total_steps = order.total_steps
        self.score_mean = 0.0
        self.score_std = 1.0

    def modules(self) -> Mapping[str, nn.Module]:
        return {"reward_head": self.head}

    def updates(self, step: int) -> Iterator[Update]:
        examples = [self._train[i] for i in self._order.indices(step)]
        sizes = [pair_tokens(e) for e in examples]
        yield Update(
            {"pairs": sum(e.weight for e in examples)},
            [partial(self._terms, [examples[i] for i in group]) for group in fill_by_token_budget(sizes, self._budget)],
            sum(sizes),
        )

    def step_metrics(self) -> Mapping[str, Metric]:
        return {}

    def rewards(self, batch: PackedBatch) -> torch.Tensor:
        """Raw reward of each document (D,), read at its last token."""
        hidden_TH = self._roles.hidden(batch, self._roles.trained)
        out: torch.Tensor = self.head(hidden_TH.index_select(0, batch.last_rows_D))
        return out

    def _pair_rewards(self, examples: Sequence[PreferenceExample]) -> tuple[torch.Tensor, torch.Tensor]:
        rewards_D = self.rewards(pack_pairs(examples, self._device, scored=False))
        return rewards_D[0::2], rewards_D[1::2]

    def _loss(
        self, chosen_B: torch.Tensor, rejected_B: torch.Tensor, examples: Sequence[PreferenceExample]
    ) -> torch.Tensor:
        margins = [e.margin or 0.0 for e in examples]
        margin_B = torch.tensor(margins, device=chosen_B.device) if any(margins) else None
        return bradley_terry_loss(chosen_B, rejected_B, margin_B=margin_B, center_coef=self._center_coef)

    def _terms(self, examples: Sequence[PreferenceExample]) -> Terms:
        chosen_B, rejected_B = self._pair_rewards(examples)
        weight_B = torch.tensor([e.weight for e in examples], device=chosen_B.device)
        loss = (self._loss(chosen_B, rejected_B, examples) * weight_B).sum()
        n = float(len(examples))
        return Terms(
            {"pairs": loss},
            {
                "accuracy": (accuracy_of(chosen_B.detach(), rejected_B.detach()).sum(), n),
                "margin": ((chosen_B - rejected_B).sum(), n),
                "mean_reward": ((chosen_B + rejected_B).sum(), 2 * n),
            },
        )

    @torch.no_grad()
    def evaluate(self, check: Callable[[], None]) -> dict[str, float]:
        """eval_loss, eval_accuracy (ties count half) and eval_margin over held-out pairs, with standard errors."""
        if not self._held_out:
            return {}
        chosen, rejected, losses = [], [], []
        for group in fill_by_token_budget([pair_tokens(e) for e in self._held_out], self._budget):
            check()
            examples = [self._held_out[i] for i in group]
            chosen_B, rejected_B = self._pair_rewards(examples)
            losses.append(self._loss(chosen_B, rejected_B, examples))
            chosen.append(chosen_B)
            rejected.append(rejected_B)
        chosen_B, rejected_B, loss_B = torch.cat(chosen), torch.cat(rejected), torch.cat(losses)
        both = torch.cat([chosen_B, rejected_B])
        self.score_mean, self.score_std = both.mean().item(), max(both.std().item(), 1e-6)
        loss, loss_error = mean_and_error(loss_B.tolist())
        accuracy, accuracy_error = mean_and_error(accuracy_of(chosen_B, rejected_B).tolist())
        return {
            "eval_loss": loss,
            "eval_loss_standard_error": loss_error,
            "eval_accuracy": accuracy,
            "eval_accuracy_standard_error": accuracy_error,
            "eval_margin": (chosen_B - rejected_B).mean().item(),
            "eval_min_reward": both.min().item(),
            "eval_mean_reward": both.mean().item(),
            "eval_max_reward": both.max().item(),
        }


def pair_tokens(example: PreferenceExample) -> int:
    """Tokens of both answers with their prompts, as they go through the model."""
    return 2 * len(example.prompt) + len(example.chosen) + len(example.rejected)


def pack_pairs(examples: Sequence[PreferenceExample], device: torch.device, *, scored: bool = True) -> PackedBatch:
    """Chosen and rejected of each pair in turn: documents 2i and 2i + 1."""
    documents = []
    for example in examples:
        for answer in (example.chosen, example.rejected):
            document = Document.completion(example.prompt, answer)
            documents.append(document if scored else Document(document.ids, [False] * len(document.ids)))
    return pack(documents, device)


def accuracy_of(chosen_B: torch.Tensor, rejected_B: torch.Tensor) -> torch.Tensor:
    """1 where chosen is ahead, 0 where it is behind, 0.5 for a tie."""
    return (chosen_B > rejected_B).float() + 0.5 * (chosen_B == rejected_B).float()
