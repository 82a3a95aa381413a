"""Kahneman-Tversky optimisation: answers that were judged one by one, against a reference.

The baseline z0 of a step is the clamped mean log-ratio of mismatched answers over *all* examples of the optimizer step:
a pass without gradient measures it before the step's first micro-batch. TRL takes it for each micro-batch by itself, so
there the loss changes with the micro-batch size; here it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from engine.data.host_copies import on_device, queued
from engine.data.labelled_examples import LabelledExample, MismatchedPairs
from engine.data.packing import Document, pack
from engine.methods.method import ExampleOrder, HeldOutSources, Meter, Metric, Terms, Update, sum_of_ratios
from engine.methods.preference import pair_log_probs
from engine.model.adapters import RoleModel
from engine.objectives.kto import kto_baseline, kto_loss
from engine.ranks import balanced_groups, own_share, sum_over_ranks


@dataclass(frozen=True)
class KtoSettings:
    """What the loss takes beside log-ratios and labels."""

    beta: float
    desirable_weight: float
    undesirable_weight: float


@dataclass(frozen=True)
class LabelledData:
    """Examples, their mismatched partners, and what the reference says of both."""

    examples: Sequence[LabelledExample]
    pairs: MismatchedPairs
    """Of the examples, in their order."""
    reference_P2: torch.Tensor
    """Summed reference log-prob of (own answer, mismatched answer) after each prompt, fp32, nats."""


class KahnemanTverskyOptimisation:
    """KTO. The loss is sum(weight x loss) / sum(weight) over the whole optimizer step."""

    def __init__(
        self,
        roles: RoleModel,
        train: LabelledData,
        held_out: LabelledData | None,
        order: ExampleOrder,
        settings: KtoSettings,
        *,
        tokens_per_micro_batch: int,
        device: torch.device,
        sources: HeldOutSources | None = None,
    ) -> None:
        self._roles = roles
        self._train = train
        self._held_out = held_out
        self._order = order
        self._settings = settings
        self._budget = tokens_per_micro_batch
        self._device = device
        self._sources = sources or HeldOutSources()
        self._baseline = torch.zeros((), device=device)
        self.total_steps = order.total_steps

    def modules(self) -> Mapping[str, nn.Module]:
        return {}

    def updates(self, step: int) -> Iterator[Update]:
        indices = self._order.indices(step)
        self._baseline = self._measure_baseline(indices)
        examples = [self._train.examples[i] for i in indices]
        reference_B = queued(self._train.reference_P2[indices, 0], self._device)
        sizes = [len(e.prompt) + len(e.completion) for e in examples]
        desirable = sum(e.desirable for e in examples)
        numbers = (desirable, len(examples) - desirable)

        def terms(group: list[int]) -> Terms:
            reference_G = reference_B.index_select(0, on_device(group, self._device))
            return self._terms([examples[i] for i in group], reference_G, numbers)

        yield Update(
            {"examples": sum(e.weight for e in examples)},
            [partial(terms, group) for group in balanced_groups(sizes, self._budget)],
            sum(sizes),
        )

    def step_metrics(self) -> Mapping[str, Metric]:
        return {"kl": (self._baseline, 1.0)}

    @torch.no_grad()
    def _measure_baseline(self, indices: Sequence[int]) -> torch.Tensor:
        """z0 of a step, with the policy as it is now."""
        pairs = [self._train.pairs[i] for i in indices]
        reference_B = queued(self._train.reference_P2[list(indices), 1], self._device)
        log_probs_B = torch.zeros(len(pairs), device=self._device)
        for group in own_share(balanced_groups([len(e.prompt) + len(e.rejected) for e in pairs], self._budget)):
            if group:
                found_G, _ = self._forward([(pairs[i].prompt, pairs[i].rejected) for i in group])
                log_probs_B.index_copy_(0, on_device(group, self._device), found_G)
        return kto_baseline(sum_over_ranks(log_probs_B) - reference_B)

    def _forward(self, answers: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed log-prob of each (prompt, answer), and how many of its tokens are the most likely ones; shape (B,)."""
        batch = pack([Document.completion(prompt, answer) for prompt, answer in answers], self._device)
        scores, _ = self._roles.scores(batch, self._roles.trained)
        return batch.sum_by_document(scores.log_probs_N), batch.sum_by_document(scores.hit_N)

    def _terms(self, examples: Sequence[LabelledExample], reference_B: torch.Tensor, numbers: tuple[int, int]) -> Terms:
        log_probs_B, hits_B = self._forward([(e.prompt, e.completion) for e in examples])
        loss_B = self._loss(log_probs_B - reference_B, examples, self._baseline)
        weight_B = on_device([e.weight for e in examples], self._device, torch.float32)
        metrics = self._metrics(log_probs_B.detach(), reference_B, examples, numbers)
        metrics["mean_token_accuracy"] = (hits_B.sum(), float(sum(len(e.completion) for e in examples)))
        return Terms({"examples": (loss_B * weight_B).sum()}, metrics)

    def _loss(
        self, log_ratio_B: torch.Tensor, examples: Sequence[LabelledExample], baseline: torch.Tensor
    ) -> torch.Tensor:
        desirable_B = on_device([e.desirable for e in examples], self._device, torch.bool)
        chosen = self._settings
        return kto_loss(
            log_ratio_B, desirable_B, baseline, beta=chosen.beta,
            desirable_weight=chosen.desirable_weight, undesirable_weight=chosen.undesirable_weight,
        )  # fmt: skip

    def _metrics(
        self,
        log_probs_B: torch.Tensor,
        reference_B: torch.Tensor,
        examples: Sequence[LabelledExample],
        numbers: tuple[int, int],
    ) -> dict[str, Metric]:
        """Sums over the examples; `numbers` are how many desirable and undesirable ones they are a part of."""
        log_ratio_B = log_probs_B - reference_B
        metrics: dict[str, Metric] = {}
        margins: torch.Tensor | float = 0.0
        for side, sign, wanted, number in (("chosen", 1.0, True, numbers[0]), ("rejected", -1.0, False, numbers[1])):
            places = [i for i, e in enumerate(examples) if e.desirable is wanted]
            places_P = on_device(places, self._device, torch.int64)
            n, moved = float(len(places)), log_ratio_B.index_select(0, places_P).sum()
            metrics[f"logps/{side}"] = (log_probs_B.index_select(0, places_P).sum(), n)
            metrics[f"rewards/{side}"] = (self._settings.beta * moved, n)
            metrics[f"logratio/{side}"] = (moved, n)
            metrics[f"displacement/{side}"] = (moved, float(sum(len(examples[i].completion) for i in places)))
            margins = margins + sign * self._settings.beta * moved / max(number, 1)
        if all(numbers):
            # The parts of a step add up to the difference of its two means, divided by 1.
            metrics["rewards/margins"] = (margins, len(examples) / sum(numbers))
        return metrics

    @torch.no_grad()
    def evaluate(self, check: Callable[[], None]) -> dict[str, float]:
        """eval_loss with its standard error over prompts, the eval_rewards/* family, and eval_kl: z0 over all. The loss
        of each source, too, where there are several, against the same z0."""
        if self._held_out is None:
            return {}
        examples, reference_P2 = list(self._held_out.examples), self._held_out.reference_P2.to(self._device)
        log_probs_P2 = pair_log_probs(
            self._roles,
            self._roles.trained,
            self._held_out.pairs,
            budget=self._budget,
            device=self._device,
            check=check,
        )
        baseline = kto_baseline(log_probs_P2[:, 1] - reference_P2[:, 1])
        losses = self._loss(log_probs_P2[:, 0] - reference_P2[:, 0], examples, baseline).tolist()

        def figures(places: Sequence[int]) -> dict[str, float]:
            some, weights = [examples[i] for i in places], [examples[i].weight for i in places]
            weighted = [losses[i] * examples[i].weight for i in places]
            loss, error = sum_of_ratios([(1.0, weighted, weights)], [e.group for e in some])
            return {"eval_loss": loss, "eval_loss_standard_error": error}

        desirable = sum(e.desirable for e in examples)
        meter = Meter()
        numbers = (desirable, len(examples) - desirable)
        meter.add(self._metrics(log_probs_P2[:, 0], reference_P2[:, 0], examples, numbers))
        return {
            **figures(range(len(examples))),
            "eval_kl": baseline.item(),
            **{f"eval_{name}": value for name, value in meter.read().items()},
            **self._sources.figures(figures),
        }
