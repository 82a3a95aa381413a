"""From a run folder to the parts of a run: model with its roles, examples, method, optimizer, probe.

Everything is a pure function of run.toml, the frozen examples beside it and the model it names, so that a second
attempt builds the same run and then loads its checkpoint. How the roles, the examples and the method come to be is in
`model_parts.py`, `example_parts.py` and `method_parts.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.data.chat import ChatTokenizer
from engine.data.token_facts import TokenFacts, token_facts
from engine.example_parts import probe_prompts, tell_estimate
from engine.method_parts import build_method
from engine.methods.method import Method
from engine.methods.reward import RewardModelling
from engine.model.activation_checkpointing import free_bytes
from engine.model.adapters import RoleModel
from engine.model.memory_estimate import FLOOR_BYTES, CheckpointingChoice, choose_checkpointing
from engine.model.model_sizes import read_model_sizes
from engine.model.saving import save_weights
from engine.model_parts import build_run_roles
from engine.optimizer import Optimizer
from engine.prepared_data import PreparedData
from engine.probe import Probe
from engine.reporting import Reporter
from engine.run.config import RunConfig
from engine.run.folder import RunFolder
from engine.run.reference_policy import reference_words
from engine.run_tokenizer import run_tokenizer


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
    base_folder = folder.in_workspace(config.model.path)
    tokenizer = run_tokenizer(config, folder)
    # Processes look for a stop together, which they cannot while one tokenises and the others wait for it.
    heard = check if config.train.processes == 1 else lambda: None
    prepared = PreparedData(config, folder, tokenizer, tell=reporter.preparing, check=heard)
    prepared.prepare()  # before the weights: a fault of the data is said in seconds, and what it needs is let go
    facts = token_facts(prepared.train.examples, share_prompts=config.train.share_prompts)
    checkpointing = _checkpointing(config, base_folder, facts, device)  # before the model takes of what is free
    roles = build_run_roles(config, folder, base_folder, device)
    if not roles.rows.shared:
        reporter.event("own_rows", why=roles.rows.why)
        reporter.status(note=f"each document has a row of its own, which is slower: {roles.rows.why}")
    roles.checkpointing = checkpointing.on
    reporter.event("activation_checkpointing", on=checkpointing.on, why=checkpointing.why)
    if reference := reference_words(config):
        reporter.event("reference", what=reference)
    method = build_method(config, folder, reporter, tokenizer, prepared, roles, device, check)
    for module in method.modules().values():
        module.to(device)
    parameters = dict(roles.trainable)
    for name, module in method.modules().items():
        parameters.update({f"{name}.{key}": value for key, value in module.named_parameters()})
    own_rates = {"value.": config.ppo.value_lr} if config.run.method == "ppo" else {}
    optimizer = Optimizer(parameters, config.optim, method.total_steps, own_rates=own_rates)
    tell_estimate(config, base_folder, facts, reporter, checkpointing=checkpointing.on, cuda=device.type == "cuda")
    probe = _probe(config, reporter, tokenizer, prepared, roles, device)

    def write_weights(into: Path) -> None:
        head, scale = (method.head, method.score_scale()) if isinstance(method, RewardModelling) else (None, None)
        save_weights(roles, into, base_folder=base_folder, reward_head=head, reward_scale=scale, tokenizer=tokenizer)

    return Parts(roles, method, optimizer, probe, write_weights)


def _checkpointing(
    config: RunConfig, base_folder: Path, facts: TokenFacts | None, device: torch.device
) -> CheckpointingChoice:
    """Whether activations are worked again. The program is there already: its floor is no longer among what is free."""
    cuda = device.type == "cuda"
    free = free_bytes(device, config.train.processes)
    whole = None if free is None else free + FLOOR_BYTES[device.type]
    return choose_checkpointing(config, read_model_sizes(base_folder), facts, whole, cuda=cuda)


def _probe(
    config: RunConfig,
    reporter: Reporter,
    tokenizer: ChatTokenizer,
    prepared: PreparedData,
    roles: RoleModel,
    device: torch.device,
) -> Probe | None:
    """The sampled-KL probe on held-out prompts, for every method that changes a policy."""
    if config.run.method == "reward" or config.probe.prompts == 0:
        return None
    prompts = probe_prompts(config, prepared)
    if not prompts:
        reporter.event("probe_skipped", why="the data has no prompts, only texts: no sampled KL is measured")
        return None
    return Probe(
        roles, prompts, tokenizer, config.probe,
        tokens_per_micro_batch=config.train.tokens_per_micro_batch, device=device,
    )  # fmt: skip
