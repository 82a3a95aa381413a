"""Supervised fine-tuning: the mean loss of the tokens that are trained, negative log-likelihood unless said otherwise.

Held-out figures are of the plain negative log-likelihood, whatever is minimised, so that runs can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from engine.data.example_store import weighted_lengths
from engine.data.packing import Document, pack
from engine.data.sft_examples import SftExample
from engine.methods.method import ExampleOrder, HeldOutSources, Metric, Terms, Update, ratio_standard_error
from engine.model.adapters import RoleModel
from engine.objectives.sft import dft_loss, smoothed_nll
from engine.ranks import balanced_groups, own_share, sum_over_ranks


class SupervisedFineTuning:
    """L = sum of the trained tokens' losses / number of trained tokens, over the whole optimizer step."""

    def __init__(
        self,
        roles: RoleModel,
        train: Sequence[SftExample],
        held_out: Sequence[SftExample],
        order: ExampleOrder,
        *,
        tokens_per_micro_batch: int,
        device: torch.device,
        label_smoothing: float = 0.0,
        loss: str = "nll",
        sources: HeldOutSources | None = None,
    ) -> None:
        """`loss` is "nll", smoothed by `label_smoothing`, or "dft", which has none; see engine/objectives/sft.py."""
        self._roles = roles
        self._train = train
        self._held_out = held_out
        self._order = order
        self._budget = tokens_per_micro_batch
        self._device = device
        self._smoothing = label_smoothing
        self._dft = loss == "dft"
        self._sources = sources or HeldOutSources()
        self.total_steps = order.total_steps

    def modules(self) -> Mapping[str, nn.Module]:
        return {}

    def updates(self, step: int) -> Iterator[Update]:
        examples = [self._train[i] for i in self._order.indices(step)]
        groups = balanced_groups([len(e.ids) for e in examples], self._budget)
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
        scores, _ = self._roles.scores(batch, self._roles.trained, vocabulary_mean=self._smoothing > 0.0)
        if self._dft:
            loss_N = dft_loss(scores.log_probs_N)
        else:
            loss_N = smoothed_nll(scores.log_probs_N, scores.mean_log_prob_N, self._smoothing)
        count = float(len(batch.targets_N))
        metrics: dict[str, Metric] = {"mean_token_accuracy": (scores.hit_N.sum(), count)}
        if self._dft or self._smoothing > 0.0:
            metrics["nll_loss"] = (-scores.log_probs_N.detach().sum(), count)
        return Terms({"tokens": loss_N.sum()}, metrics)

    @torch.no_grad()
    def evaluate(self, check: Callable[[], None]) -> dict[str, float]:
        """eval_loss (nats a trained token) with its standard error over rows, accuracy, entropy; all but the entropy
        of each source, too, where there are several."""
        if not self._held_out:
            return {}
        measured_E4 = torch.zeros(len(self._held_out), 4, device=self._device)
        for group in own_share(balanced_groups(weighted_lengths(self._held_out, {"ids": 1}), self._budget)):
            check()
            if group:
                measured_E4[group] = self._measure([self._held_out[i] for i in group])
        measured = sum_over_ranks(measured_E4).tolist()

        def figures(places: Sequence[int]) -> dict[str, float]:
            return _figures([self._held_out[i].id for i in places], [measured[i] for i in places])

        by_source = self._sources.figures(figures)
        entropy, targets = (sum(row[column] for row in measured) for column in (2, 3))
        return {**figures(range(len(measured))), "eval_entropy": entropy / targets, **by_source}

    def _measure(self, examples: Sequence[SftExample]) -> torch.Tensor:
        """NLL, right guesses and entropy of each example, summed over its trained tokens, and their number: (B, 4)."""
        batch = pack([Document(e.ids, e.trained) for e in examples], self._device)
        scores, _ = self._roles.scores(batch, self._roles.trained, entropy=True)
        assert scores.entropy_N is not None
        values = (
            -scores.log_probs_N,
            scores.hit_N.to(scores.log_probs_N.dtype),
            scores.entropy_N,
            torch.ones_like(scores.log_probs_N),
        )
        return torch.stack([batch.sum_by_document(value_N) for value_N in values], 1)


def _figures(rows: Sequence[str], measured: Sequence[Sequence[float]]) -> dict[str, float]:
    """Held-out figures of some examples: of each the row that it is of, and its NLL, hits, entropy and targets."""
    # By row: the examples that a row was split into are no independent measurements.
    sums = dict.fromkeys(rows, 0.0)
    counts = dict.fromkeys(rows, 0.0)
    hits = 0.0
    for row, (nll, hit, _, n) in zip(rows, measured, strict=True):
        sums[row] += nll
        counts[row] += n
        hits += hit
    targets = sum(counts.values())
    return {
        "eval_loss": sum(sums.values()) / targets,
        "eval_loss_standard_error": ratio_standard_error(list(sums.values()), list(counts.values())),
        "eval_mean_token_accuracy": hits / targets,
    }


def trained_tokens(example: SftExample) -> int:
    """Targets of an example: its trained tokens, but for a first token, which nothing predicts."""
    return sum(1 for flag in example.trained[1:] if flag)
