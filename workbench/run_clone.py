"""A run's request, read back from its run.toml: the same method, model, data and settings, as if typed again.

Owns what of a run.toml is a choice and what that launch found out for itself. Invariant: a clone asks for everything
that departs from a default, so that it trains as the run did even where defaults change; the model's checkpoint is the
very same, because its step is written down. Only the device can be found anew, where the old one is not there.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import tomli_w

from engine.rewards.function_files import frozen_name
from engine.run.config import METHOD_DEFAULTS, SECTIONS, RunConfig, sections_of
from engine.run.config_chat import CHAT_FOUND
from engine.run.config_rewards import WRITTEN_BY_LAUNCH
from engine.run.idle_settings import idle_settings, value_in
from workbench.data_weights import as_written
from workbench.errors import WorkbenchError
from workbench.launch_device import usable_cores
from workbench.run_examples import EVAL_SHARE
from workbench.run_launch import LaunchRequest
from workbench.run_list import Run

FOUND = frozenset(
    {"run.id", "run.name", "run.method", "run.created", "run.imported", "data.names", "data.weights"}
    | {"data.train", "data.eval"}
    | {f"data.{side}_{what}" for side in ("train", "eval") for what in ("sha256", "rows", "rows_each")}
    | {f"model.{key.name}" for key in fields(SECTIONS["model"])}
    | {f"chat.{name}" for name in CHAT_FOUND}
    | {f"rewards.{name}" for name in WRITTEN_BY_LAUNCH}
)
"""Keys of run.toml that a launch writes itself, or that have a flag of their own."""


def clone_request(run: Run) -> LaunchRequest:
    """What to ask for to get the same run again. Raises EngineError where run.toml is damaged."""
    config = run.config()
    if config.run.imported:
        raise WorkbenchError(
            f"run {run.id} was trained by another program, and only its numbers are here ({config.run.imported}): "
            "there is nothing to clone. Start a run of its method: workbench train METHOD --model M --data D"
        )
    idle = idle_settings(lambda key: value_in(config, key))  # what another setting overrules trains nothing
    choices = {key: value for key, value in changed_settings(config).items() if key not in {"train.device", *idle}}
    if choices.get("train.threads") == usable_cores():
        choices.pop("train.threads")  # what a launch here would find in any case
    if "chat.template" in choices:
        choices["chat.template"] = str(run.folder.chat_template_path)  # the named file may say something else by now
    return LaunchRequest(
        method=config.run.method,
        model=_model(run, config.model.source, config.model.path, config.model.adapter),
        data=as_written(config.data),
        reward_models=_reward_models(run, config),
        rewards=_functions(run, config),
        settings=tuple(f"{key}={as_typed(value)}" for key, value in choices.items()),
        device=config.train.device if config.train.device != "auto" else "",
        name=config.run.name,
        eval_share=_eval_share(run),
    )


def changed_settings(config: RunConfig) -> dict[str, Any]:
    """The settings of a run that depart from its method's defaults, in the order of run.toml."""
    method = config.run.method
    changed: dict[str, Any] = {}
    for section in sections_of(method):
        for key in fields(SECTIONS[section]):
            name = f"{section}.{key.name}"
            value = getattr(getattr(config, section), key.name)
            if name not in FOUND and value != METHOD_DEFAULTS[method].get(name, key.default):
                changed[name] = value
    return changed


def as_typed(value: Any) -> str:
    """A value as one types it after --set KEY=."""
    if isinstance(value, str):
        return value if value else '""'
    return tomli_w.dumps({"v": value}).partition("= ")[2].strip()


def _model(run: Run, source: str, path: str, adapter: str) -> str:
    """How the model is written. A path that was typed relative to some folder is written as where it lies."""
    if not source or source == "sample" or source.startswith(("run:", "hf:")):
        return source
    return str(run.workspace.resolve(adapter or path))


def _reward_models(run: Run, config: RunConfig) -> tuple[str, ...]:
    model, rewards = config.model, config.rewards
    more = zip(rewards.more_models, rewards.more_paths, rewards.more_adapters, rewards.more_weights, strict=True)
    first = (model.reward_source, model.reward_path, model.reward_adapter, rewards.model_weight)
    named = [(_model(run, source, path, adapter), weight) for source, path, adapter, weight in (first, *more)]
    return tuple(name if weight == 1.0 else f"{name}:{weight!r}" for name, weight in named if name)


def _functions(run: Run, config: RunConfig) -> tuple[str, ...]:
    """The reward functions, from the run's own copies: the named files may say something else by now."""
    rewards = config.rewards
    copies = zip(
        rewards.function_files, rewards.function_sha256, rewards.function_names, rewards.function_weights, strict=True
    )
    return tuple(
        f"{run.folder.rewards / frozen_name(file, sha256)}:{name}:{weight!r}" for file, sha256, name, weight in copies
    )


def _eval_share(run: Run) -> float:
    """The share that was held out; runs that did not write it down had the default."""
    for event in run.events():
        share = event.get("eval_share")
        if event.get("kind") == "created" and isinstance(share, (int, float)) and 0 <= share < 1:
            return float(share)
    return EVAL_SHARE
