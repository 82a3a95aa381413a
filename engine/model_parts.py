"""The model of a run: where its folders lie, in which precision it is held, and the roles that lie over its base.

Owns what run.toml's [model] and [adapter] mean in folders and tensors. Invariant: a pure function of run.toml and the
folders that it names; no example is read and no checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import torch

from engine.model.adapters import POLICY, REWARD, RoleModel, build_roles
from engine.model.loading import load_causal_lm
from engine.model.model_files import read_adapter_config
from engine.model.row_sharing import row_sharing
from engine.run.config import RunConfig, reads_reference
from engine.run.folder import RunFolder
from engine.run.method_names import ON_ROLLOUTS
from engine.run.reward_models import RewardModel, reward_models


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
    reward_adapters: list[Path] = []
    if config.run.method in ON_ROLLOUTS:
        reward_adapters = [one.adapter for one in reward_models(config, folder) if one.on_base and one.adapter]
    start_adapter = folder.in_workspace(config.model.adapter) if config.model.adapter else None
    for adapter in (start_adapter, *reward_adapters):
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
        reward_adapters=reward_adapters,
        value_adapter=config.run.method == "ppo" and config.ppo.value_model == "adapter",
    )
    roles.rows = sharing
    if full and dtype != torch.float32:
        roles.autocast = dtype
    roles.share_prompts = config.train.share_prompts
    roles.merged_sampling = config.train.merged_sampling
    if full and reads_reference(config):
        roles.keep_frozen_reference()
    roles.model.eval()
    return roles


def build_judge(model: RewardModel, config: RunConfig, device: torch.device) -> RoleModel:
    """A reward model that does not share the run's base, whole, frozen and in the run's precision. Raises EngineError.

    It is the trained role of what is returned, of which nothing trains.
    """
    loaded = load_causal_lm(model.path, dtype=precision_of(config, device), device=device)
    sharing = row_sharing(loaded)
    if model.adapter is not None:
        read_adapter_config(model.adapter, model.path)
    kind = "full" if model.adapter is None else "lora"
    roles = build_roles(loaded, kind=kind, trained=REWARD, start_adapter=model.adapter)
    roles.rows = sharing
    roles.model.requires_grad_(False).eval()
    return roles
