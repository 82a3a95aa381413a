"""Reward modelling: a scalar head on the answer's last token, trained on pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from engine.data.example_store import weighted_lengths
from engine.data.examples import PreferenceExample
from engine.data.host_copies import on_device
from engine.data.packing import Document, PackedBatch, pack
from engine.methods.method import ExampleOrder, HeldOutSources, Metric, Terms, Update, clustered_mean_and_error
from engine.methods.reward_report import ScoredPair, accuracy_of_pairs, report_on
from engine.model.adapters import RoleModel
from engine.model.heads import ScalarHead, ScoreScale
from engine.objectives.reward import bradley_terry_loss
from engine.ranks import balanced_groups, own_share, sum_over_ranks

SCALE_PAIRS = 256


class RewardModelling:
    """Bradley-Terry on (chosen, rejected); both answers of a pair go through in the same packed pass.

    The scale of the scores is that of a fixed set of at most 256 pairs, held out where there are such pairs, measured
    under the very weights that are saved with it.
    """

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
        held_out_tags: Mapping[str, Mapping[str, Any]] | None = None,
        sources: HeldOutSources | None = None,
    ) -> None:
        """`held_out_tags` are the tags of held-out rows by id, for the accuracy by slice."""
        self._roles = roles
        self.head = head
        self._train = train
        self._held_out = held_out
        self._order = order
        self._center_coef = center_coef
        self._budget = tokens_per_micro_batch
        self._device = device
        self.total_steps = order.total_steps
        self._held_out_tags = held_out_tags or {}
        self._sources = sources or HeldOutSources()
        self._report: Mapping[str, Any] = {}
        self._scale: ScoreScale | None = None

    def modules(self) -> Mapping[str, nn.Module]:
        return {"reward_head": self.head}

    def updates(self, step: int) -> Iterator[Update]:
        self._scale = None  # the weights are about to change
        examples = [self._train[i] for i in self._order.indices(step)]
        sizes = pair_lengths(examples, self._roles)
        yield Update(
            {"pairs": sum(e.weight for e in examples)},
            [partial(self._terms, [examples[i] for i in group]) for group in balanced_groups(sizes, self._budget)],
            sum(sizes),
        )

    def step_metrics(self) -> Mapping[str, Metric]:
        return {}

    def rewards(self, batch: PackedBatch) -> torch.Tensor:
        """Raw reward of each document (D,), read at its last token."""
        out: torch.Tensor = self.head(self._roles.hidden(batch, self._roles.trained, batch.last_rows_D))
        return out

    def _pair_rewards(self, examples: Sequence[PreferenceExample]) -> tuple[torch.Tensor, torch.Tensor]:
        rewards_D = self.rewards(pack_pairs(examples, self._device, scored=False))
        return rewards_D[0::2], rewards_D[1::2]

    def _loss(
        self, chosen_B: torch.Tensor, rejected_B: torch.Tensor, examples: Sequence[PreferenceExample]
    ) -> torch.Tensor:
        margins = [e.margin or 0.0 for e in examples]
        margin_B = on_device(margins, self._device, torch.float32) if any(margins) else None
        return bradley_terry_loss(chosen_B, rejected_B, margin_B=margin_B, center_coef=self._center_coef)

    def _terms(self, examples: Sequence[PreferenceExample]) -> Terms:
        chosen_B, rejected_B = self._pair_rewards(examples)
        weight_B = on_device([e.weight for e in examples], self._device, torch.float32)
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

    def evaluate(self, check: Callable[[], None]) -> dict[str, float]:
        """eval_loss, eval_accuracy (ties count half), eval_margin and eval_calibration_error over held-out pairs;
        standard errors are over prompts. Loss and accuracy of each source, too, where there are several."""
        if not self._held_out:
            return {}
        rewards_P2 = self._score(self._held_out, check, shared=True)
        chosen_P, rejected_P = rewards_P2[:, 0], rewards_P2[:, 1]
        loss_P = self._loss(chosen_P, rejected_P, self._held_out)
        self._scale = _scale_of(rewards_P2[:SCALE_PAIRS], "held-out answers")
        pairs, losses = self._scored_pairs(rewards_P2.tolist()), loss_P.tolist()
        self._report = report_on(pairs)

        def figures(places: Sequence[int]) -> dict[str, float]:
            some = [pairs[i] for i in places]
            loss, loss_error = clustered_mean_and_error([losses[i] for i in places], [pair.group for pair in some])
            found = accuracy_of_pairs(some)
            return {
                "eval_loss": loss,
                "eval_loss_standard_error": loss_error,
                "eval_accuracy": found["accuracy"],
                "eval_accuracy_standard_error": found.get("standard_error", math.nan),
            }

        return {
            **figures(range(len(pairs))),
            "eval_calibration_error": self._report["calibration_error"],
            "eval_margin": (chosen_P - rejected_P).mean().item(),
            "eval_min_reward": rewards_P2.min().item(),
            "eval_mean_reward": rewards_P2.mean().item(),
            "eval_max_reward": rewards_P2.max().item(),
            **self._sources.figures(figures),
        }

    def report(self) -> Mapping[str, Any]:
        return self._report

    def score_scale(self) -> ScoreScale:
        """Mean and standard deviation of raw scores under the present weights."""
        if self._scale is None:
            pairs, of = (self._held_out, "held-out answers") if self._held_out else (self._train, "training answers")
            # Of the held-out pairs the first, of the training pairs some from everywhere: both are fixed by the data.
            apart = 1 if self._held_out else max(1, len(pairs) // SCALE_PAIRS)
            taken = [pairs[i] for i in range(0, len(pairs), apart)][:SCALE_PAIRS]
            self._scale = _scale_of(self._score(taken, lambda: None, shared=False), of)
        return self._scale

    @torch.no_grad()
    def _score(self, pairs: Sequence[PreferenceExample], check: Callable[[], None], *, shared: bool) -> torch.Tensor:
        """Raw rewards (P, 2) of chosen and rejected, without a gradient; `shared` out where several processes train
        together and all of them ask."""
        rewards_P2 = torch.zeros(len(pairs), 2, device=self._device)
        groups = balanced_groups(pair_lengths(pairs, self._roles), self._budget)
        for group in own_share(groups) if shared else groups:
            check()
            if group:
                rewards_P2[group] = torch.stack(self._pair_rewards([pairs[i] for i in group]), 1)
        return sum_over_ranks(rewards_P2) if shared else rewards_P2

    def _scored_pairs(self, rewards_P2: Sequence[Sequence[float]]) -> list[ScoredPair]:
        return [
            ScoredPair(chosen, rejected, len(e.chosen), len(e.rejected), e.group, self._held_out_tags.get(e.id, {}))
            for e, (chosen, rejected) in zip(self._held_out, rewards_P2, strict=True)
        ]


def _scale_of(rewards_P2: torch.Tensor, of: str) -> ScoreScale:
    std = max(rewards_P2.std().item(), 1e-6)
    return ScoreScale(rewards_P2.mean().item(), std, rewards_P2.numel(), of)


def pair_lengths(pairs: Sequence[PreferenceExample], roles: RoleModel) -> list[int]:
    """Tokens of each pair as they go through the model: both answers, and their prompt once or, where it is not
    shared, before each of them."""
    return weighted_lengths(pairs, {"prompt": 1 if roles.prompts_shared else 2, "chosen": 1, "rejected": 1})


def pack_pairs(examples: Sequence[PreferenceExample], device: torch.device, *, scored: bool = True) -> PackedBatch:
    """Chosen and rejected of each pair in turn, documents 2i and 2i + 1; the rejected answer shares its prompt."""
    documents = []
    for example in examples:
        for answer, shared in ((example.chosen, 0), (example.rejected, len(example.prompt))):
            document = Document.completion(example.prompt, answer, shared=shared)
            documents.append(document if scored else replace(document, scored=[False] * len(document.ids)))
    return pack(documents, device)


def accuracy_of(chosen_B: torch.Tensor, rejected_B: torch.Tensor) -> torch.Tensor:
    """1 where chosen is ahead, 0 where it is behind, 0.5 for a tie."""
    return (chosen_B > rejected_B).float() + 0.5 * (chosen_B == rejected_B).float()
