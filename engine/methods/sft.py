"""Supervised fine-tuning: token-mean negative log-likelihood of the tokens that are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from engine.data.examples import SftExample
from engine.data.packing import Document, fill_by_token_budget, pack
from engine.methods.method import ExampleOrder, Meter, Metric, Terms, Update, ratio_standard_error
from engine.model.adapters import RoleModel


class SupervisedFineTuning:
    """L = -sum of trained log-probs / number of trained tokens, over the whole optimizer step."""

    def __init__(
        self,
        roles: RoleModel,
        train: Sequence[SftExample],
        held_out: Sequence[SftExample],
        order: ExampleOrder,
        *,
        tokens_per_micro_batch: int,
        device: torch.device,
    ) -> None:
        self._roles = roles
        self._train = train
        self._held_out = held_out
        self._order = order
        self._budget = tokens_per_micro_batch
        self._device = device
        self.total_steps = order.total_steps

    def modules(self) -> Mapping[str, nn.Module]:
        return {}

    def updates(self, step: int) -> Iterator[Update]:
        examples = [self._train[i] for i in self._order.indices(step)]
        groups = fill_by_token_budget([len(e.ids) for e in examples], self._budget)
        trained = sum(trained_tokens(e) for e in examples)
        yield Update(
            {"tokens": float(trained)},
            [partial(self._terms, [examples[i] for i in group]) for group in groups],
            sum(len(e.ids) for e in examples),
        )

    def step_metrics(self) -> Mapping[str, Metric]:
        return {}

    def _terms(self, examples: Sequence[SftExample]) -> Terms:
        batch = pack([Document(e.ids, e.trained) for e in examples], self._device)
        scores, _ = self._roles.scores(batch, self._roles.trained)
        nll = -scores.log_probs_N.sum()
        count = float(len(batch.targets_N))
        return Terms({"tokens": nll}, {"mean_token_accuracy": (scores.hit_N.sum(), count)})

    @torch.no_grad()
    def evaluate(self, check: Callable[[], None]) -> dict[str, float]:
        """eval_loss (nats a trained token) with its standard error over examples, accuracy, entropy."""
        if not self._held_out:
            return {}
        sums, counts = [], []
        meter = Meter()
        for group in fill_by_token_budget([len(e.ids) for e in self._held_out], self._budget):
            check()
            batch = pack([Document(self._held_out[i].ids, self._held_out[i].trained) for i in group], self._device)
            scores, _ = self._roles.scores(batch, self._roles.trained, entropy=True)
            sums += batch.sum_by_document(-scores.log_probs_N).tolist()
            counts += [float(n) for n in batch.targets_per_document]
            n = float(len(batch.targets_N))
            assert scores.entropy_N is not None
            meter.add({"hit": (scores.hit_N.sum(), n), "entropy": (scores.entropy_N.sum(), n)})
        means = meter.read()
        return {
            "eval_loss": sum(sums) / sum(counts),
            "eval_loss_standard_error": ratio_standard_error(sums, counts),
            "eval_mean_token_accuracy": means["hit"],
            "eval_entropy": means["entropy"],
        }


def trained_tokens(example: SftExample) -> int:
    """Targets of an example: its trained tokens, but for a first token, which nothing predicts."""
    return sum(1 for flag in example.trained[1:] if flag)
