"""The model of a run: where its folders lie, in which precision it is held, and the roles that lie over its base.

Owns what run.toml's [model] and [adapter] mean in folders and tensors. Invariant: a pure function of run.toml and the
folders that it names; no example is read and no checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import torch

from engine.errors import ConfigError, ModelError
from engine.model.adapters import POLICY, REWARD, RoleModel, build_roles
from engine.model.loading import load_causal_lm
from engine.model.model_files import read_adapter_config
from engine.model.row_sharing import row_sharing
from engine.run.config import ON_ROLLOUTS, RunConfig, reads_reference
from engine.run.folder import RunFolder


def precision_of(config: RunConfig, device: torch.device) -> torch.dtype:
    """The precision asked for; "auto" is bf16 on CUDA and fp32 on a CPU."""
    if config.train.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if config.train.precision == "bf16" else torch.float32


def build_run_roles(config: RunConfig, folder: RunFolder, base_folder: Path, device: torch.device) -> RoleModel:
    """The base with the run's roles on `device`, as they are before the first step. Raises EngineError."""
    full = config.adapter.kind == "full"
    dtype = precision_of(config, device)
    # Full fine-tuning keeps its weights in fp32 and computes in bf16; a frozen base is stored as it is computed.
    four_bit = config.adapter.kind == "qlora"
    model = load_causal_lm(base_folder, dtype=torch.float32 if full else dtype, device=device, four_bit=four_bit)
    sharing = row_sharing(model)
    reward_adapter = None
    if config.run.method in ON_ROLLOUTS and (config.model.reward_adapter or not config.rewards.functions):
        reward_adapter = _reward_adapter(config, folder, base_folder)
    start_adapter = folder.in_workspace(config.model.adapter) if config.model.adapter else None
    for adapter in (start_adapter, reward_adapter):
        if adapter is not None:
            read_adapter_config(adapter, base_folder)
    roles = build_roles(
        model,
        kind=config.adapter.kind,
        trained=REWARD if config.run.method == "reward" else POLICY,
        start_adapter=start_adapter,
        rank=config.adapter.r,
        alpha=config.adapter.alpha,
        dropout=config.adapter.dropout,
        rslora=config.adapter.rslora,
        dora=config.adapter.dora,
        targets=config.adapter.targets,
        seed=config.train.seed,
        reward_adapter=reward_adapter,
        value_adapter=config.run.method == "ppo" and config.ppo.value_model == "adapter",
    )
    roles.rows = sharing
    if full and dtype != torch.float32:
        roles.autocast = dtype
    roles.share_prompts = config.train.share_prompts
    if full and reads_reference(config):
        roles.keep_frozen_reference()
    roles.model.eval()
    return roles


def _reward_adapter(config: RunConfig, folder: RunFolder, base_folder: Path) -> Path:
    """The reward model's adapter, which must lie over the very base that the policy has."""
    if not config.model.reward_adapter:
        raise ConfigError(
            f"[model] reward_adapter is empty: {config.run.method} needs a reward model trained with "
            'adapter.kind = "lora" over the same base as the policy. '
            "Train one with `workbench train reward --model M`; name it with --reward-model"
        )
    reward_base = folder.in_workspace(config.model.reward_path)
    if reward_base.resolve() != base_folder.resolve():
        raise ModelError(
            f"the reward model lies over {reward_base.name}, the policy over {base_folder.name}: they must share one "
            "base. Train the reward model from the same --model as this run"
        )
    return folder.in_workspace(config.model.reward_adapter)
