"""From a run folder to the parts of a run: model with its roles, examples, method, optimizer, probe.

Everything is a pure function of run.toml, the frozen examples beside it and the model it names, so that a second
attempt builds the same run and then loads its checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.data.chat import ChatTokenizer
from engine.data.examples import PreferenceExample, PromptExample, read_preferences, read_prompts, read_sft
from engine.errors import ConfigError, ModelError
from engine.methods.method import ExampleOrder, Method
from engine.methods.ppo import ProximalPolicyOptimisation
from engine.methods.preference import PreferenceOptimisation, pair_log_probs
from engine.methods.reward import RewardModelling
from engine.methods.sft import SupervisedFineTuning
from engine.model.adapters import POLICY, REFERENCE, REWARD, RoleModel, build_roles
from engine.model.heads import ScalarHead, load_reward_head
from engine.model.loading import load_causal_lm
from engine.model.saving import save_weights
from engine.optimizer import Optimizer
from engine.probe import Probe, choose_prompts
from engine.reporting import Reporter
from engine.run.config import RunConfig
from engine.run.folder import RunFolder

REFERENCE_CACHE = "reference_log_probs.safetensors"


@dataclass
class Parts:
    """A run, ready to be looped over."""

    roles: RoleModel
    method: Method
    optimizer: Optimizer
    probe: Probe | None
    write_weights: Callable[[Path], None]


def assemble(
    config: RunConfig, folder: RunFolder, reporter: Reporter, device: torch.device, check: Callable[[], None]
) -> Parts:
    """Build every part of the run. Raises EngineError with what to do where something does not fit."""
    base_folder = in_workspace(folder, config.model.path)
    tokenizer = ChatTokenizer.from_folder(base_folder)
    roles = _roles(config, folder, base_folder, device)
    method = _method(config, folder, reporter, tokenizer, roles, device, check)
    for module in method.modules().values():
        module.to(device)
    parameters = dict(roles.trainable)
    for name, module in method.modules().items():
        parameters.update({f"{name}.{key}": value for key, value in module.named_parameters()})
    own_rates = {"value_head.": config.ppo.value_lr} if config.run.method == "ppo" else {}
    optimizer = Optimizer(parameters, config.optim, method.total_steps, own_rates=own_rates)
    probe = _probe(config, folder, reporter, tokenizer, roles, device)

    def write_weights(into: Path) -> None:
        head = method.head if isinstance(method, RewardModelling) else None
        mean, std = (method.score_mean, method.score_std) if isinstance(method, RewardModelling) else (0.0, 1.0)
        save_weights(roles, into, base_folder=base_folder, reward_head=head, reward_mean=mean, reward_std=std)

    return Parts(roles, method, optimizer, probe, write_weights)


def in_workspace(folder: RunFolder, path: str) -> Path:
    """A path of run.toml: absolute, or relative to the workspace that holds the run."""
    given = Path(path)
    return given if given.is_absolute() else folder.path.parent.parent / given


def precision_of(config: RunConfig, device: torch.device) -> torch.dtype:
    """The precision asked for; "auto" is bf16 on CUDA and fp32 on a CPU."""
    if config.train.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if config.train.precision == "bf16" else torch.float32


def _roles(config: RunConfig, folder: RunFolder, base_folder: Path, device: torch.device) -> RoleModel:
    full = config.adapter.kind == "full"
    dtype = precision_of(config, device)
    # Full fine-tuning keeps its weights in fp32 and computes in bf16; a frozen base is stored as it is computed.
    model = load_causal_lm(base_folder, dtype=torch.float32 if full else dtype, device=device)
    reward_adapter = None
    if config.run.method == "ppo":
        reward_adapter = _reward_adapter(config, folder, base_folder)
    roles = build_roles(
        model,
        kind=config.adapter.kind,
        trained=REWARD if config.run.method == "reward" else POLICY,
        start_adapter=in_workspace(folder, config.model.adapter) if config.model.adapter else None,
        rank=config.adapter.r,
        alpha=config.adapter.alpha,
        dropout=config.adapter.dropout,
        seed=config.train.seed,
        reward_adapter=reward_adapter,
    )
    if full and dtype != torch.float32:
        roles.autocast = dtype
    if full and config.run.method != "reward":
        roles.keep_frozen_reference()
    model.eval() if config.adapter.dropout == 0.0 else model.train()
    return roles


def _reward_adapter(config: RunConfig, folder: RunFolder, base_folder: Path) -> Path:
    """The reward model's adapter, which must lie over the very base that the policy has."""
    if not config.model.reward_adapter:
        raise ConfigError(
            '[model] reward_adapter is empty: PPO needs a reward model trained with adapter.kind = "lora" over the '
            "same base as the policy. Train one with `workbench train reward --model M`; name it with --reward-model"
        )
    reward_base = in_workspace(folder, config.model.reward_path)
    if reward_base.resolve() != base_folder.resolve():
        raise ModelError(
            f"the reward model lies over {reward_base.name}, the policy over {base_folder.name}: they must share one "
            "base. Train the reward model from the same --model as this run"
        )
    return in_workspace(folder, config.model.reward_adapter)


def _method(
    config: RunConfig,
    folder: RunFolder,
    reporter: Reporter,
    tokenizer: ChatTokenizer,
    roles: RoleModel,
    device: torch.device,
    check: Callable[[], None],
) -> Method:
    name = config.run.method
    budget = config.train.tokens_per_micro_batch
    if name == "sft":
        train, held_out = _both(config, folder, reporter, tokenizer, _read_sft_with(config))
        return SupervisedFineTuning(
            roles, train, held_out, _order(config, len(train)), tokens_per_micro_batch=budget, device=device
        )
    if name == "ppo":
        prompts, held_out = _both(config, folder, reporter, tokenizer, read_prompts)
        head, mean, std = load_reward_head(in_workspace(folder, config.model.reward_adapter))
        head.requires_grad_(False).to(device)
        return ProximalPolicyOptimisation(
            roles, head, mean, std, prompts, held_out, _order(config, len(prompts)), tokenizer, config.ppo,
            seed=config.train.seed, tokens_per_micro_batch=budget, device=device, check=check,
            on_samples=lambda step, rows: reporter.samples(step + 1, "rollout", rows),
        )  # fmt: skip
    pairs, held_out = _both(config, folder, reporter, tokenizer, read_preferences)
    order = _order(config, len(pairs))
    if name == "reward":
        head = ScalarHead(roles.hidden_size, seed=config.train.seed).to(device)
        return RewardModelling(
            roles, head, pairs, held_out, order,
            center_coef=config.reward.center_coef, tokens_per_micro_batch=budget, device=device,
        )  # fmt: skip
    reference = _reference_log_probs(config, folder, reporter, roles, (pairs, order.used(), held_out), device, check)
    return PreferenceOptimisation(
        roles, pairs, held_out, order,
        beta=config.dpo.beta, sft_coef=config.dpo.sft_coef,
        reference_train_P2=reference[0], reference_held_out_P2=reference[1],
        tokens_per_micro_batch=budget, device=device,
    )  # fmt: skip


def _read_sft_with(config: RunConfig) -> Callable[..., Any]:
    def read(path: Path, tokenizer: ChatTokenizer, max_length: int) -> Any:
        return read_sft(path, tokenizer, max_length, config.sft.train_on)

    return read


def _both(
    config: RunConfig, folder: RunFolder, reporter: Reporter, tokenizer: ChatTokenizer, read: Callable[..., Any]
) -> tuple[Any, Any]:
    """Training and held-out examples; what was dropped of them is an event."""
    train, dropped = read(folder.path / config.data.train, tokenizer, config.data.max_length)
    held_out: Any = []
    dropped_held_out: Any = {}
    if config.data.eval and config.data.eval_rows > 0:
        held_out, dropped_held_out = read(folder.path / config.data.eval, tokenizer, config.data.max_length)
        limit = config.evaluation.max_rows
        held_out = held_out[:limit] if limit > 0 else held_out
    reporter.event(
        "data", train=len(train), held_out=len(held_out), dropped=dict(dropped), dropped_held_out=dict(dropped_held_out)
    )
    return train, held_out


def _order(config: RunConfig, examples: int) -> ExampleOrder:
    return ExampleOrder(
        examples,
        batch_size=config.train.batch_size,
        epochs=config.train.epochs,
        steps=config.train.steps,
        seed=config.train.seed,
    )


def _probe(
    config: RunConfig,
    folder: RunFolder,
    reporter: Reporter,
    tokenizer: ChatTokenizer,
    roles: RoleModel,
    device: torch.device,
) -> Probe | None:
    """The sampled-KL probe on held-out prompts, for every method that changes a policy."""
    if config.run.method == "reward" or config.probe.prompts == 0:
        return None
    wanted, seed = config.probe.prompts, config.probe.seed
    prompts: list[PromptExample] = []
    # Held-out prompts first; where they are fewer than asked for, training prompts fill the set.
    for source in [config.data.eval] * (config.data.eval_rows > 0) + [config.data.train]:
        if len(prompts) < wanted:
            found = prompts_in(folder.path / source, tokenizer, config.data.max_length)
            prompts += choose_prompts(found, wanted - len(prompts), seed)
    if not prompts:
        reporter.event("probe_skipped", why="the data has no prompts, only texts: no sampled KL is measured")
        return None
    return Probe(
        roles, prompts, tokenizer, config.probe,
        tokens_per_micro_batch=config.train.tokens_per_micro_batch, device=device,
    )  # fmt: skip


def prompts_in(file: Path, tokenizer: ChatTokenizer, max_length: int) -> Sequence[PromptExample]:
    """The prompts of a file of examples of any kind; texts without a prompt give none."""
    prompts, _ = read_prompts(file, tokenizer, max_length, required=False)
    return prompts


def _reference_log_probs(
    config: RunConfig,
    folder: RunFolder,
    reporter: Reporter,
    roles: RoleModel,
    parts: tuple[Sequence[PreferenceExample], Sequence[int], Sequence[PreferenceExample]],
    device: torch.device,
    check: Callable[[], None],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed log-probs of both answers under the reference, from the run's cache or computed once and cached.

    `parts` are the training pairs, which of them the run takes, and the held-out pairs; a pair that is not taken has
    NaN. Called before a checkpoint is loaded, so with full fine-tuning the untrained weights are the reference.
    """
    file = folder.path / "data" / REFERENCE_CACHE
    model, data = config.model, config.data
    key = hashlib.sha256(
        repr((model.sha256, model.path, model.adapter, data.train_sha256, data.eval_sha256, data.max_length,
              config.evaluation.max_rows, config.train)).encode()
    ).hexdigest()  # fmt: skip
    if file.is_file():
        with safe_open(file, "pt") as cached:
            if (cached.metadata() or {}).get("key") == key:
                return cached.get_tensor("train"), cached.get_tensor("held_out")
    pairs, taken, held_out = parts
    wanted = [pairs[i] for i in taken] + list(held_out)
    scores_P2 = pair_log_probs(
        roles, REFERENCE, wanted, budget=config.train.tokens_per_micro_batch, device=device, check=check
    ).cpu()
    train_P2 = torch.full((len(pairs), 2), torch.nan)
    train_P2[list(taken)] = scores_P2[: len(taken)]
    held_out_P2 = scores_P2[len(taken) :]
    partial = file.with_suffix(".partial")
    save_file({"train": train_P2, "held_out": held_out_P2.contiguous()}, partial, metadata={"key": key})
    partial.replace(file)
    reporter.event("reference_cached", pairs=len(wanted))
    return train_P2, held_out_P2
