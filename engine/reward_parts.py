"""The rewards of a run: its reward models and functions put together as run.toml says.

Owns what a function needs before it is called: that the copy in the run's folder is the file that was approved, on this
machine, at every start; and the child that calls it. Invariant: a pure function of run.toml, the run's folder and what
was approved here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from engine.data.chat import ChatTokenizer
from engine.errors import ConfigError
from engine.methods.apart_judge import ApartJudge
from engine.methods.rewards import IN_ITS_OWN_UNIT, BaseJudge, Rewards, Term, TextJudge
from engine.model.adapters import reward_role
from engine.model.heads import ScalarHead, load_reward_head
from engine.model_parts import build_judge
from engine.reporting import Reporter
from engine.rewards.answers import FunctionJudge
from engine.rewards.frozen import approved_functions
from engine.rewards.process import Limits, RewardProcess
from engine.run.config import RunConfig
from engine.run.folder import RunFolder
from engine.run.locks import held_descriptors
from engine.run.metric_names import reward_labels
from engine.run.reward_models import RewardModel, reward_models


def build_rewards(
    config: RunConfig,
    folder: RunFolder,
    reporter: Reporter,
    tokenizer: ChatTokenizer,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    device: torch.device,
    check: Callable[[], None],
) -> Rewards:
    """Everything that judges the completions of the run; `rows` are those behind the examples of "train" and "eval".

    Raises EngineError where a reward cannot be had.
    """
    # Processes look for a stop together, which they cannot while the leading one alone asks a judge of texts.
    heard = check if config.train.processes == 1 else lambda: None
    labels = reward_labels(config)
    terms: list[Term] = []
    judges: list[BaseJudge | TextJudge] = []
    for label, model in zip(labels, reward_models(config, folder), strict=False):
        head, scale = load_reward_head(model.head_folder)
        head.requires_grad_(False).to(device)
        terms.append(Term(label, model.weight, scale))
        if model.on_base:
            judges.append(BaseJudge(reward_role(sum(isinstance(judge, BaseJudge) for judge in judges)), head))
        else:
            judges.append(_apart(model, label, head, config, reporter, tokenizer, rows, device, heard))
    if config.rewards.functions:
        functions = _function_judges(config, folder, reporter, labels[len(terms) :], rows, heard)
        terms += [
            Term(label, weight, IN_ITS_OWN_UNIT)
            for label, weight in zip(labels[len(terms) :], config.rewards.function_weights, strict=True)
        ]
        judges += functions
    if not terms:
        raise ConfigError(
            f"run.toml: nothing judges the completions: {config.run.method} needs a reward model (--reward-model) or a "
            "function (--reward)"
        )
    return Rewards(tuple(terms), tuple(judges), rows, tokenizer.decode)


def _apart(
    model: RewardModel,
    label: str,
    head: ScalarHead,
    config: RunConfig,
    reporter: Reporter,
    tokenizer: ChatTokenizer,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    device: torch.device,
    check: Callable[[], None],
) -> ApartJudge:
    """A reward model with a base of its own, which has read a prompt of the run."""
    roles = build_judge(model, config, device)
    own = ChatTokenizer.of_model(model.path, model.adapter)
    same = own.sha256 == tokenizer.sha256
    judge = ApartJudge(
        f"reward {label}",
        roles,
        head,
        own,
        same_tokens=same,
        window=int(getattr(roles.model.config.get_text_config(), "max_position_embeddings", 0) or 0),
        tokens_at_once=config.train.tokens_per_micro_batch,
        device=device,
        check=check,
    )
    judge.require_prompts(rows["train"])
    reporter.event("reward_model_apart", label=label, source=model.source, same_tokens=same)
    return judge


def _function_judges(
    config: RunConfig,
    folder: RunFolder,
    reporter: Reporter,
    labels: Sequence[str],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    check: Callable[[], None],
) -> list[FunctionJudge]:
    callees = approved_functions(config.rewards, folder.rewards, labels)
    process = RewardProcess(
        callees,
        Limits(config.rewards.time_limit_s, config.rewards.memory_limit_mb),
        inherited=held_descriptors(folder.tree_lock_path),
        tell=lambda what: reporter.event("reward_retried", what=what),
        check=check,
    )
    judges = [FunctionJudge(process, number, str(callee)) for number, callee in enumerate(callees)]
    for judge in judges:
        judge.require_fields(rows["train"])
    reporter.event(
        "reward_functions",
        functions=[
            {"label": callee.label, "file": file, "function": callee.name, "sha256": sha256}
            for callee, file, sha256 in zip(
                callees, config.rewards.function_files, config.rewards.function_sha256, strict=True
            )
        ],
    )
    return judges
