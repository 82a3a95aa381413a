"""The method of a run: its examples, order, heads and references put together as run.toml says.

Owns the one place that knows every method by name. Invariant: a pure function of run.toml, the frozen examples and the
roles as they are before a checkpoint is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from engine.data.chat import ChatTokenizer
from engine.data.example_store import StoredExamples
from engine.data.examples import PromptExample
from engine.data.frozen_rows import FrozenRows
from engine.data.row_tags import read_tags
from engine.example_parts import examples_of
from engine.methods.grouped import GroupedPolicyOptimisation, GroupPlan
from engine.methods.method import ExampleOrder, HeldOutSources, Method
from engine.methods.ppo import ProximalPolicyOptimisation
from engine.methods.preference import PreferenceOptimisation
from engine.methods.prompt_room import check_room
from engine.methods.reward import RewardModelling
from engine.methods.sft import SupervisedFineTuning
from engine.methods.vllm_sampler import VllmSampler
from engine.model.adapters import RoleModel
from engine.model.heads import ScalarHead
from engine.preference_parts import build_kto, pair_objective
from engine.prepared_data import PreparedData
from engine.reference_cache import reference_log_probs
from engine.reporting import Reporter
from engine.reward_parts import build_rewards
from engine.run.config import RunConfig
from engine.run.folder import RunFolder
from engine.run.method_names import AGAINST_REFERENCE, ON_ROLLOUTS


def build_method(
    config: RunConfig,
    folder: RunFolder,
    reporter: Reporter,
    tokenizer: ChatTokenizer,
    prepared: PreparedData,
    roles: RoleModel,
    device: torch.device,
    check: Callable[[], None],
) -> Method:
    """The method that `config` names, over its examples. Raises EngineError, and what `check` raises."""
    name = config.run.method
    budget = config.train.tokens_per_micro_batch
    found = examples_of(config, reporter, prepared)
    train, held_out, order, sources = found.train, found.held_out, found.order, found.sources
    if name == "sft":
        return SupervisedFineTuning(
            roles, train, held_out, order, tokens_per_micro_batch=budget, device=device,
            label_smoothing=config.sft.label_smoothing, loss=config.sft.loss, sources=sources,
        )  # fmt: skip
    if name in ON_ROLLOUTS:
        return _on_rollouts(
            config, folder, reporter, tokenizer, roles, (train, held_out), order, sources, device, check
        )
    if name == "reward":
        head = ScalarHead(roles.hidden_size, seed=config.train.seed).to(device)
        return RewardModelling(
            roles, head, train, held_out, order,
            center_coef=config.reward.center_coef, tokens_per_micro_batch=budget, device=device,
            held_out_tags=read_tags(folder.path / config.data.eval) if held_out else {}, sources=sources,
        )  # fmt: skip
    if name == "kto":
        return build_kto(config, folder, reporter, roles, found, device, check)
    parts = (train, order.used(), held_out)
    reference = None
    if name in AGAINST_REFERENCE:
        reference = reference_log_probs(config, folder, reporter, roles, parts, device, check)
    return PreferenceOptimisation(
        roles, train, held_out, order, objective=pair_objective(config), reference=reference,
        tokens_per_micro_batch=budget, device=device, sources=sources,
    )  # fmt: skip


def _on_rollouts(
    config: RunConfig,
    folder: RunFolder,
    reporter: Reporter,
    tokenizer: ChatTokenizer,
    roles: RoleModel,
    examples: tuple[Sequence[PromptExample], Sequence[PromptExample]],
    order: ExampleOrder,
    sources: HeldOutSources,
    device: torch.device,
    check: Callable[[], None],
) -> Method:
    """PPO, GRPO or RLOO against the run's rewards."""
    check_room(config, roles, examples)
    if config.train.sampler == "vllm":
        roles.sampler = VllmSampler(
            roles, config.train.sampler_url, base_folder=folder.in_workspace(config.model.path),
            exchange=folder.path / "sampler", name=f"{config.run.id or folder.path.name}-policy",
        )  # fmt: skip
    rows = {
        side: FrozenRows(folder.path / getattr(config.data, side), some.rows())
        for side, some in zip(("train", "eval"), examples, strict=True)
        if isinstance(some, StoredExamples)
    }
    rewards = build_rewards(config, folder, reporter, tokenizer, rows, device, check)
    judged = (roles, rewards, *examples, order, tokenizer)
    shared: dict[str, Any] = {
        "seed": config.train.seed,
        "tokens_per_micro_batch": config.train.tokens_per_micro_batch,
        "device": device,
        "check": check,
        "on_samples": lambda step, rows: reporter.samples(step + 1, "rollout", rows),
        "sources": sources,
    }
    if config.run.method == "ppo":
        return ProximalPolicyOptimisation(*judged, config.ppo, **shared)
    if config.run.method == "grpo":
        return GroupedPolicyOptimisation(*judged, config.grpo, GroupPlan.of_grpo(config.grpo), **shared)
    return GroupedPolicyOptimisation(*judged, config.rloo, GroupPlan.of_rloo(config.rloo), **shared)
