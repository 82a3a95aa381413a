"""Preference optimisation on pairs: DPO and its kin against a reference, and SimPO, CPO and ORPO without one.

Owns how the scores of a pair come from its log-probs and how the terms of the loss come together; the losses themselves
are in `engine.objectives.preference`. A reference is its log-probs, computed once, before training: no reference model
takes part in a step, and methods without one never measure it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from engine.data.examples import PreferenceExample
from engine.data.host_copies import on_device
from engine.data.packing import Document, PackedBatch, pack
from engine.methods.method import (
    ExampleOrder,
    HeldOutSources,
    Meter,
    Metric,
    Terms,
    Update,
    clustered_mean_and_error,
    sum_of_ratios,
)
from engine.methods.reward import accuracy_of, pack_pairs, pair_lengths
from engine.model.adapters import RoleModel
from engine.objectives.preference import LOSSES, LossSettings, divergence_score, log_odds
from engine.ranks import balanced_groups, own_share, sum_over_ranks


@dataclass(frozen=True)
class PairObjective:
    """What is minimised: mean over pairs of a loss of their scores, plus sft_coef times a token-mean NLL."""

    loss: str
    """A row of `engine.objectives.preference.LOSSES`."""
    settings: LossSettings
    averaged: bool = False
    """Scores are means over an answer's tokens; else sums."""
    divergence: str = "reverse_kl"
    alpha: float = 0.5
    sft_coef: float = 0.0
    """Weight of the NLL of the chosen answers (arXiv:2404.19733)."""
    nll_on_prompt: bool = False
    """The NLL counts the chosen answer's prompt, too."""

    def scores(
        self, log_probs_B2: torch.Tensor, reference_B2: torch.Tensor | None, tokens_B2: torch.Tensor
    ) -> torch.Tensor:
        """What the loss is a function of, (B, 2), in nats: from summed log-probs of policy and reference."""
        scores_B2 = log_probs_B2 if reference_B2 is None else log_probs_B2 - reference_B2
        if self.averaged:
            scores_B2 = scores_B2 / tokens_B2
        return divergence_score(scores_B2, self.divergence, self.alpha)

    def rewards(
        self, log_probs_B2: torch.Tensor, reference_B2: torch.Tensor | None, tokens_B2: torch.Tensor
    ) -> torch.Tensor:
        """The implicit reward of each answer, (B, 2), as TRL logs it: beta times its log-ratio summed over the answer,
        also where the loss takes means; without a reference beta times its score.
        """
        if reference_B2 is not None:
            return self.settings.beta * (log_probs_B2 - reference_B2)
        return self.settings.beta * self.scores(log_probs_B2, None, tokens_B2)

    def pair_loss(self, scores_B2: torch.Tensor) -> torch.Tensor:
        """The loss of each pair, (B,), without the NLL."""
        return LOSSES[self.loss](scores_B2[:, 0], scores_B2[:, 1], self.settings)


@dataclass(frozen=True)
class PairScores:
    """One pass over B pairs."""

    log_probs_B2: torch.Tensor
    """Summed log-prob of chosen and rejected, fp32, nats."""
    nll_B: torch.Tensor
    """Summed negative log-prob of the chosen document's tokens that the NLL counts."""
    hits_B: torch.Tensor
    """How many of the chosen answer's tokens are the most likely ones."""


class PreferenceOptimisation:
    """A PairObjective over pairs. The loss is sum(weight x loss) / sum(weight) over the whole optimizer step."""

    def __init__(
        self,
        roles: RoleModel,
        train: Sequence[PreferenceExample],
        held_out: Sequence[PreferenceExample],
        order: ExampleOrder,
        *,
        objective: PairObjective,
        reference: tuple[torch.Tensor, torch.Tensor] | None,
        tokens_per_micro_batch: int,
        device: torch.device,
        sources: HeldOutSources | None = None,
    ) -> None:
        """`reference` holds the reference's summed log-prob of (chosen, rejected) of each training pair and of each
        held-out pair, (P, 2), fp32, nats; None for an objective on log-probs alone.
        """
        self._roles = roles
        self._train = train
        self._held_out = held_out
        self._order = order
        self._objective = objective
        self._reference = None if reference is None else (reference[0].to(device), reference[1].to(device))
        self._budget = tokens_per_micro_batch
        self._device = device
        self._sources = sources or HeldOutSources()
        self.total_steps = order.total_steps

    def modules(self) -> Mapping[str, nn.Module]:
        return {}

    def updates(self, step: int) -> Iterator[Update]:
        indices = self._order.indices(step)
        examples = [self._train[i] for i in indices]
        counts = {"pairs": sum(e.weight for e in examples)}
        if self._objective.sft_coef:
            counts["nll"] = sum(self._nll_tokens(e) for e in examples) / self._objective.sft_coef
        sizes = pair_lengths(examples, self._roles)

        def terms(group: list[int]) -> Terms:
            reference_B2 = None
            if self._reference is not None:
                reference_B2 = self._reference[0].index_select(0, on_device([indices[i] for i in group], self._device))
            return self._terms([examples[i] for i in group], reference_B2)

        yield Update(
            counts,
            [partial(terms, group) for group in balanced_groups(sizes, self._budget)],
            sum(sizes),
        )

    def step_metrics(self) -> Mapping[str, Metric]:
        return {}

    def _terms(self, examples: Sequence[PreferenceExample], reference_B2: torch.Tensor | None) -> Terms:
        found = self._forward(examples)
        tokens = [(len(e.chosen), len(e.rejected)) for e in examples]
        loss_B = self._pair_loss(found.log_probs_B2, reference_B2, tokens)
        weight_B = on_device([e.weight for e in examples], self._device, torch.float32)
        losses = {"pairs": (loss_B * weight_B).sum()}
        metrics = self._metrics(found.log_probs_B2.detach(), reference_B2, tokens)
        metrics["mean_token_accuracy"] = (found.hits_B.sum(), float(sum(chosen for chosen, _ in tokens)))
        if self._objective.sft_coef:
            losses["nll"] = found.nll_B.sum()
            metrics["nll_loss"] = (losses["nll"], float(sum(self._nll_tokens(e) for e in examples)))
            metrics["preference_loss"] = (losses["pairs"], float(sum(e.weight for e in examples)))
        return Terms(losses, metrics)

    def _forward(self, examples: Sequence[PreferenceExample]) -> PairScores:
        if self._objective.nll_on_prompt:
            return self._forward_scoring_prompts(examples)
        batch = pack_pairs(examples, self._device)
        scores, _ = self._roles.scores(batch, self._roles.trained)
        log_probs_B2 = _by_pair(batch, scores.log_probs_N)
        return PairScores(log_probs_B2, -log_probs_B2[:, 0], _by_pair(batch, scores.hit_N)[:, 0])

    def _forward_scoring_prompts(self, examples: Sequence[PreferenceExample]) -> PairScores:
        """As above, with the prompt of each chosen answer among the targets: it counts in the NLL and nowhere else."""
        documents: list[Document] = []
        in_answer: list[bool] = []
        for example in examples:
            prompt, whole = len(example.prompt), [*example.prompt, *example.chosen]
            documents.append(Document(whole, [True] * len(whole)))
            documents.append(Document.completion(example.prompt, example.rejected, shared=prompt))
            in_answer += [False] * (prompt - 1) + [True] * (len(example.chosen) + len(example.rejected))
        batch = pack(documents, self._device)
        scores, _ = self._roles.scores(batch, self._roles.trained)
        in_answer_N = on_device(in_answer, self._device)
        return PairScores(
            _by_pair(batch, scores.log_probs_N * in_answer_N),
            -_by_pair(batch, scores.log_probs_N)[:, 0],
            _by_pair(batch, scores.hit_N * in_answer_N)[:, 0],
        )

    def _nll_tokens(self, example: PreferenceExample) -> int:
        """Targets of the NLL; nothing predicts the first token of a prompt."""
        return len(example.chosen) + (len(example.prompt) - 1 if self._objective.nll_on_prompt else 0)

    def _pair_loss(
        self, log_probs_B2: torch.Tensor, reference_B2: torch.Tensor | None, tokens: Sequence[tuple[int, int]]
    ) -> torch.Tensor:
        tokens_B2 = on_device(tokens, self._device)
        return self._objective.pair_loss(self._objective.scores(log_probs_B2, reference_B2, tokens_B2))

    def _metrics(
        self, log_probs_B2: torch.Tensor, reference_B2: torch.Tensor | None, tokens: Sequence[tuple[int, int]]
    ) -> dict[str, Metric]:
        tokens_B2 = on_device(tokens, self._device)
        rewards_B2 = self._objective.rewards(log_probs_B2, reference_B2, tokens_B2)
        metrics = {**_sides("logps", log_probs_B2), **_sides("rewards", rewards_B2)}
        n = float(len(tokens))
        metrics["rewards/margins"] = ((rewards_B2[:, 0] - rewards_B2[:, 1]).sum(), n)
        metrics["rewards/accuracies"] = (accuracy_of(rewards_B2[:, 0], rewards_B2[:, 1]).sum(), n)
        if reference_B2 is not None:
            log_ratio_B2 = log_probs_B2 - reference_B2
            metrics.update(_sides("logratio", log_ratio_B2))
            for side, name in enumerate(("chosen", "rejected")):
                metrics[f"displacement/{name}"] = (log_ratio_B2[:, side].sum(), float(sum(t[side] for t in tokens)))
        if self._objective.loss == "odds_ratio":
            odds_B2 = log_odds(log_probs_B2 / tokens_B2)
            metrics["log_odds_chosen"] = ((odds_B2[:, 0] - odds_B2[:, 1]).sum(), n)
        return metrics

    @torch.no_grad()
    def evaluate(self, check: Callable[[], None]) -> dict[str, float]:
        """eval_loss, its NLL where there is one, and the eval_rewards/* family; standard errors are over prompts.
        Losses and accuracy of each source, too, where there are several."""
        if not self._held_out:
            return {}
        measured_P3 = torch.zeros(len(self._held_out), 3, device=self._device)
        for group in own_share(balanced_groups(pair_lengths(self._held_out, self._roles), self._budget)):
            check()
            if group:
                found = self._forward([self._held_out[i] for i in group])
                measured_P3[group] = torch.cat([found.log_probs_B2, found.nll_B[:, None]], 1)
        measured_P3 = sum_over_ranks(measured_P3)
        log_probs_P2, reference_P2 = measured_P3[:, :2], None if self._reference is None else self._reference[1]
        figures = self._held_out_figures(log_probs_P2, reference_P2, measured_P3[:, 2].tolist())
        meter = Meter()
        meter.add(self._metrics(log_probs_P2, reference_P2, [(len(e.chosen), len(e.rejected)) for e in self._held_out]))
        by_source = self._sources.figures(figures)
        whole = figures(range(len(self._held_out)))
        return {**{f"eval_{name}": value for name, value in meter.read().items()}, **whole, **by_source}

    def _held_out_figures(
        self, log_probs_P2: torch.Tensor, reference_P2: torch.Tensor | None, nlls: Sequence[float]
    ) -> Callable[[Sequence[int]], dict[str, float]]:
        """Loss and accuracy with their standard errors, of the held-out pairs at the places that are asked for."""
        tokens, nll_tokens, weights, groups = [], [], [], []
        for e in self._held_out:
            tokens.append((len(e.chosen), len(e.rejected)))
            nll_tokens.append(float(self._nll_tokens(e)))
            weights.append(e.weight)
            groups.append(e.group)
        losses = self._pair_loss(log_probs_P2, reference_P2, tokens).tolist()
        rewards_P2 = self._objective.rewards(log_probs_P2, reference_P2, torch.tensor(tokens, device=self._device))
        accuracies = accuracy_of(rewards_P2[:, 0], rewards_P2[:, 1]).tolist()

        def figures(places: Sequence[int]) -> dict[str, float]:
            prompts, weight = [groups[i] for i in places], [weights[i] for i in places]
            terms = [(1.0, [weights[i] * losses[i] for i in places], weight)]
            out = {}
            if self._objective.sft_coef:
                nll, counted = [nlls[i] for i in places], [nll_tokens[i] for i in places]
                out["eval_preference_loss"] = sum(terms[0][1]) / sum(weight)
                out["eval_nll_loss"] = sum(nll) / sum(counted)
                terms.append((self._objective.sft_coef, nll, counted))
            out["eval_loss"], out["eval_loss_standard_error"] = sum_of_ratios(terms, prompts)
            accuracy, error = clustered_mean_and_error([accuracies[i] for i in places], prompts)
            out["eval_rewards/accuracies"], out["eval_rewards/accuracies_standard_error"] = accuracy, error
            return out

        return figures


def _by_pair(batch: PackedBatch, values_N: torch.Tensor) -> torch.Tensor:
    """A per-target quantity summed over each answer, (B, 2): chosen and rejected are documents 2i and 2i + 1."""
    return batch.sum_by_document(values_N).view(-1, 2)


def _sides(family: str, values_B2: torch.Tensor) -> dict[str, Metric]:
    n = float(len(values_B2))
    return {f"{family}/chosen": (values_B2[:, 0].sum(), n), f"{family}/rejected": (values_B2[:, 1].sum(), n)}


def pair_log_probs(
    roles: RoleModel,
    role: str,
    examples: Sequence[PreferenceExample],
    *,
    budget: int,
    device: torch.device,
    check: Callable[[], None],
    measured: Callable[[int], None] = lambda pairs: None,
) -> torch.Tensor:
    """Summed log-probs of (chosen, rejected) of each pair as `role`: (P, 2), fp32, nats, no gradient.

    Both answers of a pair share one packed pass; processes that train together share out the pairs. `check` is called
    between passes and may raise StopRequested; `measured` is told of the pairs of each pass of this process.
    """
    out_P2 = torch.zeros(len(examples), 2, device=device)
    with torch.no_grad():
        for group in own_share(balanced_groups(pair_lengths(examples, roles), budget)):
            check()
            if not group:
                continue
            batch = pack_pairs([examples[i] for i in group], device)
            scores, _ = roles.scores(batch, role)
            out_P2.index_copy_(0, on_device(group, device), _by_pair(batch, scores.log_probs_N))
            measured(len(group))
    return sum_over_ranks(out_P2)
