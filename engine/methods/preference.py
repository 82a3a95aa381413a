"""Direct preference optimisation against reference log-probs that are computed once, before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from engine.data.examples import PreferenceExample
from engine.data.packing import fill_by_token_budget
from engine.methods.method import ExampleOrder, Meter, Metric, Terms, Update, mean_and_error
from engine.methods.reward import accuracy_of, pack_pairs, pair_tokens
from engine.model.adapters import RoleModel
from engine.objectives.preference import dpo_loss


class PreferenceOptimisation:
    """DPO, optionally with the token-mean NLL of the chosen answer added (sft_coef; arXiv:2404.19733)."""

    def __init__(
        self,
        roles: RoleModel,
        train: Sequence[PreferenceExample],
        held_out: Sequence[PreferenceExample],
        order: ExampleOrder,
        *,
        beta: float,
        sft_coef: float,
        reference_train_P2: torch.Tensor,
        reference_held_out_P2: torch.Tensor,
        tokens_per_micro_batch: int,
        device: torch.device,
    ) -> None:
        """`reference_*_P2` hold the reference's summed log-prob of (chosen, rejected) of each pair, fp32, in nats."""
        self._roles = roles
        self._train = train
        self._held_out = held_out
        self._order = order
        self._beta = beta
        self._sft_coef = sft_coef
        self._reference_train_P2 = reference_train_P2.to(device)
        self._reference_held_out_P2 = reference_held_out_P2.to(device)
        self._budget = tokens_per_micro_batch
        self._device = device
        self.total_steps = order.total_steps

    def modules(self) -> Mapping[str, nn.Module]:
        return {}

    def updates(self, step: int) -> Iterator[Update]:
        indices = self._order.indices(step)
        examples = [self._train[i] for i in indices]
        counts = {"pairs": sum(e.weight for e in examples)}
        if self._sft_coef:
            counts["chosen_tokens"] = sum(len(e.chosen) for e in examples) / self._sft_coef
        sizes = [pair_tokens(e) for e in examples]

        def terms(group: list[int]) -> Terms:
            chosen = [examples[i] for i in group]
            return self._terms(chosen, self._reference_train_P2[[indices[i] for i in group]])

        yield Update(
            counts,
            [partial(terms, group) for group in fill_by_token_budget(sizes, self._budget)],
            sum(sizes),
        )

    def step_metrics(self) -> Mapping[str, Metric]:
        return {}

    def _terms(self, examples: Sequence[PreferenceExample], reference_B2: torch.Tensor) -> Terms:
        batch = pack_pairs(examples, self._device)
        scores, _ = self._roles.scores(batch, self._roles.trained)
        log_probs_B2 = batch.sum_by_document(scores.log_probs_N).view(-1, 2)
        loss_B = self._loss(log_probs_B2, reference_B2)
        weight_B = torch.tensor([e.weight for e in examples], device=loss_B.device)
        losses = {"pairs": (loss_B * weight_B).sum()}
        metrics = self._metrics(log_probs_B2.detach(), reference_B2, "")
        chosen_N = batch.document_N % 2 == 0
        chosen_tokens = float(sum(batch.targets_per_document[0::2]))
        metrics["mean_token_accuracy"] = (scores.hit_N[chosen_N].sum(), chosen_tokens)
        if self._sft_coef:
            nll = -scores.log_probs_N[chosen_N].sum()
            losses["chosen_tokens"] = nll
            metrics["nll_loss"] = (nll, chosen_tokens)
            metrics["dpo_loss"] = (losses["pairs"], float(sum(e.weight for e in examples)))
        return Terms(losses, metrics)

    def _loss(self, log_probs_B2: torch.Tensor, reference_B2: torch.Tensor) -> torch.Tensor:
        logratio_B2 = log_probs_B2 - reference_B2
        return dpo_loss(logratio_B2[:, 0], logratio_B2[:, 1], beta=self._beta)

    def _metrics(self, log_probs_B2: torch.Tensor, reference_B2: torch.Tensor, prefix: str) -> dict[str, Metric]:
        logratio_B2 = log_probs_B2 - reference_B2
        chosen_B, rejected_B = logratio_B2[:, 0], logratio_B2[:, 1]
        n = float(len(chosen_B))
        return {
            f"{prefix}rewards/chosen": (self._beta * chosen_B.sum(), n),
            f"{prefix}rewards/rejected": (self._beta * rejected_B.sum(), n),
            f"{prefix}rewards/margins": (self._beta * (chosen_B - rejected_B).sum(), n),
            f"{prefix}rewards/accuracies": (accuracy_of(chosen_B, rejected_B).sum(), n),
            f"{prefix}logps/chosen": (log_probs_B2[:, 0].sum(), n),
            f"{prefix}logps/rejected": (log_probs_B2[:, 1].sum(), n),
            f"{prefix}logratio/chosen": (chosen_B.sum(), n),
            f"{prefix}logratio/rejected": (rejected_B.sum(), n),
        }

    @torch.no_grad()
    def evaluate(self, check: Callable[[], None]) -> dict[str, float]:
        """eval_loss and the eval_rewards/* family over held-out pairs, with standard errors."""
        if not self._held_out:
            return {}
        log_probs_P2 = pair_log_probs(
            self._roles, self._roles.trained, self._held_out, budget=self._budget, device=self._device, check=check
        )
        reference_P2 = self._reference_held_out_P2
        meter = Meter()
        meter.add(self._metrics(log_probs_P2, reference_P2, "eval_"))
        loss, loss_error = mean_and_error(self._loss(log_probs_P2, reference_P2).tolist())
        logratio_P2 = log_probs_P2 - reference_P2
        _, accuracy_error = mean_and_error(accuracy_of(logratio_P2[:, 0], logratio_P2[:, 1]).tolist())
        return {
            "eval_loss": loss,
            "eval_loss_standard_error": loss_error,
            **meter.read(),
            "eval_rewards/accuracies_standard_error": accuracy_error,
        }


def pair_log_probs(
    roles: RoleModel,
    role: str,
    examples: Sequence[PreferenceExample],
    *,
    budget: int,
    device: torch.device,
    check: Callable[[], None],
) -> torch.Tensor:
    """Summed log-probs of (chosen, rejected) of each pair as `role`: (P, 2), fp32, nats, no gradient.

    Both answers of a pair share one packed pass; `check` is called between passes and may raise StopRequested.
    """
    out_P2 = torch.zeros(len(examples), 2, device=device)
    with torch.no_grad():
        for group in fill_by_token_budget([pair_tokens(e) for e in examples], budget):
            check()
            batch = pack_pairs([examples[i] for i in group], device)
            scores, _ = roles.scores(batch, role)
            out_P2[group] = batch.sum_by_document(scores.log_probs_N).view(-1, 2)
    return out_P2
