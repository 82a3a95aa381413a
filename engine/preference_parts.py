"""What run.toml's sections of the preference methods mean as an objective, and how KTO is put together.

Owns which settings make which row of the table of losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from engine.data.example_store import numbers_of
from engine.data.labelled_examples import LabelledExample, MismatchedPairs
from engine.errors import DataError
from engine.example_parts import RunExamples
from engine.methods.kto import KahnemanTverskyOptimisation, KtoSettings, LabelledData
from engine.methods.preference import PairObjective
from engine.model.adapters import RoleModel
from engine.objectives.preference import LossSettings
from engine.reference_cache import reference_log_probs
from engine.reporting import Reporter
from engine.run.config import RunConfig
from engine.run.folder import RunFolder


def pair_objective(config: RunConfig) -> PairObjective:
    """The objective of a method on pairs: dpo, simpo, cpo or orpo."""
    method = config.run.method
    if method == "simpo":
        simpo = config.simpo
        settings = LossSettings(simpo.beta, simpo.label_smoothing, simpo.gamma)
        return PairObjective("sigmoid", settings, averaged=True, sft_coef=simpo.sft_coef)
    if method == "cpo":
        cpo = config.cpo
        settings = LossSettings(cpo.beta, cpo.label_smoothing)
        return PairObjective(cpo.loss, settings, averaged=cpo.loss == "ipo", sft_coef=cpo.sft_coef)
    if method == "orpo":
        orpo = config.orpo
        # The weight of the odds-ratio term is in its loss, so the NLL counts once.
        return PairObjective(
            "odds_ratio", LossSettings(orpo.beta), averaged=True, sft_coef=1.0, nll_on_prompt=orpo.nll_on == "all"
        )
    dpo = config.dpo
    return PairObjective(
        dpo.loss,
        LossSettings(dpo.beta, dpo.label_smoothing),
        averaged=dpo.loss == "sigmoid_norm" or (dpo.loss == "ipo" and dpo.ipo_average),
        divergence=dpo.f_divergence,
        alpha=dpo.f_alpha,
        sft_coef=dpo.sft_coef,
    )


def build_kto(
    config: RunConfig,
    folder: RunFolder,
    reporter: Reporter,
    roles: RoleModel,
    examples: RunExamples,
    device: torch.device,
    check: Callable[[], None],
) -> KahnemanTverskyOptimisation:
    """KTO over training and held-out examples. Raises DataError where there are too few of them."""
    train, held_out, order = examples.train, examples.held_out, examples.order
    if len(train) < 2:
        raise DataError(f"{config.data.train}: one usable row: kto needs at least two, with different prompts")
    _tell_balance(config, reporter, train)
    mismatched = partial(MismatchedPairs, seed=config.train.seed, max_length=config.data.max_length)
    pairs = mismatched(train)
    # A lone held-out example has no other answer to be mismatched with, so nothing can be measured on it.
    held_out_pairs = mismatched(held_out) if len(held_out) > 1 else None
    reference = reference_log_probs(
        config, folder, reporter, roles, (pairs, order.used(), held_out_pairs or []), device, check
    )
    return KahnemanTverskyOptimisation(
        roles,
        LabelledData(train, pairs, reference[0]),
        LabelledData(held_out, held_out_pairs, reference[1]) if held_out_pairs else None,
        order,
        KtoSettings(config.kto.beta, config.kto.desirable_weight, config.kto.undesirable_weight),
        tokens_per_micro_batch=config.train.tokens_per_micro_batch,
        device=device,
        sources=examples.sources,
    )


def _tell_balance(config: RunConfig, reporter: Reporter, train: Sequence[LabelledExample]) -> None:
    """An event with the numbers of both labels, and a weight that would balance them where these do not.

    The paper wants weight times number of the desirable answers at 1 to 4/3 times that of the undesirable ones.
    """
    desirable = int(sum(numbers_of(train, "desirable")))
    undesirable = len(train) - desirable
    fields: dict[str, float] = {}
    if desirable and undesirable:
        ratio = config.kto.desirable_weight * desirable / (config.kto.undesirable_weight * undesirable)
        fields["ratio"] = ratio
        if not 1 <= ratio <= 4 / 3:
            fields["balanced_desirable_weight"] = config.kto.undesirable_weight * undesirable / desirable
    reporter.event("labels", desirable=desirable, undesirable=undesirable, **fields)
