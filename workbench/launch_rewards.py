"""What judges a run on rollouts, from what a person wrote after --reward-model and --reward to what is launched.

Owns the forms MODEL[:WEIGHT] and FUNCTION[:WEIGHT], and that nothing of a function's file is run before somebody
approved it on this machine. What a function is asked and must answer is the engine's (`engine.rewards`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError, NotApproved
from engine.model.model_sizes import read_model_sizes
from engine.rewards.approvals import approvals, copy_of, earlier_of, require_approved
from engine.rewards.function_files import FunctionFile, find_function, source_of
from engine.run.config import RunConfig
from engine.run.config_layers import Resolved
from engine.run.config_rewards import RewardsConfig
from engine.run.method_names import ON_ROLLOUTS
from workbench.errors import UsageError, WorkbenchError
from workbench.model_names import ResolvedModel, resolve_model

if TYPE_CHECKING:
    from workbench.run_launch import LaunchRequest
    from workbench.workspace import Workspace

EXAMPLE = "--reward lexicon.py:positive:0.3"
_WEIGHT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
MOST_LINES = 60
"""Of a function that is shown before it is approved."""


class Unapproved(WorkbenchError):
    """A reward function whose file nobody has approved on this machine."""

    def __init__(self, function: FunctionFile, message: str) -> None:
        super().__init__(message)
        self.function = function


@dataclass(frozen=True)
class LaunchRewards:
    """What judges the completions of a run."""

    models: tuple[ResolvedModel, ...] = ()
    functions: tuple[FunctionFile, ...] = ()
    apart: tuple[ResolvedModel, ...] = ()
    """Of the models those that are held beside the run's base."""

    def found(self, workspace: Workspace, config: RunConfig) -> dict[str, dict[str, Any]]:
        """The keys of [model] and [rewards] that a launch writes."""
        empty = {"source": "", "path": "", "adapter": "", "sha256": ""}
        first, *more = [model.written_in(workspace) for model in self.models] or [empty]
        sections: dict[str, dict[str, Any]] = {"model": {f"reward_{key}": value for key, value in first.items()}}
        if config.run.method in ON_ROLLOUTS:
            rewards = config.rewards
            sections["rewards"] = {
                "more_models": [one["source"] for one in more],
                "more_paths": [one["path"] for one in more],
                "more_adapters": [one["adapter"] for one in more],
                "more_sha256": [one["sha256"] for one in more],
                "more_weights": list(rewards.more_weights or (1.0,) * len(more)),
                "apart_parameters": sum(map(_parameters, self.apart)),
                "function_weights": list(rewards.function_weights or (1.0,) * len(self.functions)),
                "function_files": [str(function.path) for function in self.functions],
                "function_sha256": [function.sha256 for function in self.functions],
            }
        return sections

    def notes(self, kind: str) -> tuple[str, ...]:
        """What a person should know of the reward models before the run starts; `kind` is adapter.kind."""
        return (
            *(f"reward model {one.source}: {one.note}" for one in self.models if one.note),
            *(
                f"reward model {one.source}: held beside the model ({_parameters(one):,} weights), because "
                + ("all weights train" if kind == "full" else "it is no adapter over the same base")
                for one in self.apart
            ),
        )


def split_weight(written: str, option: str) -> tuple[str, float | None]:
    """(what, weight or None) of WHAT[:WEIGHT]; a weight of 0 only watches. Raises UsageError for one that cannot be."""
    what, _, text = written.rpartition(":")
    if not what or what in ("run", "hf") or not _WEIGHT.fullmatch(text):
        return written, None
    weight = float(text)
    if not math.isfinite(weight):
        raise UsageError(f"{option} {written}: the weight must be a finite number, as in {EXAMPLE}")
    return what, weight


def typed_rewards(request: LaunchRequest) -> list[tuple[str, dict[str, Any]]]:
    """What --reward and the weight of --reward-model say, as layers of the config."""
    layers: list[tuple[str, dict[str, Any]]] = []
    if (request.rewards or request.reward_models) and request.method not in ON_ROLLOUTS:
        option = "--reward" if request.rewards else "--reward-model"
        raise UsageError(f"{option} goes with train {', '.join(ON_ROLLOUTS)}, not with {request.method}")
    if request.rewards:
        pairs = [split_weight(one, "--reward") for one in request.rewards]
        functions = [what for what, _ in pairs]
        if twice := next((what for what in functions if functions.count(what) > 1), ""):
            raise UsageError(f"--reward {twice} is given twice. Give it once, with the sum of its weights")
        weights = [1.0 if weight is None else weight for _, weight in pairs]
        layers.append(("--reward", {"rewards": {"functions": functions, "function_weights": weights}}))
    if request.reward_models:
        pairs = [split_weight(one, "--reward-model") for one in request.reward_models]
        (_, first), *more = [(what, 1.0 if weight is None else weight) for what, weight in pairs]
        said = {"model_weight": first, "more_models": [w for w, _ in more], "more_weights": [w for _, w in more]}
        layers.append(("--reward-model", {"rewards": said}))
    return layers


def find_rewards(
    workspace: Workspace, request: LaunchRequest, early: Resolved, model: ResolvedModel, *, quiet: bool
) -> LaunchRewards:
    """The reward model and the functions of a run. Raises where one cannot judge it, Unapproved for a function."""
    config = early.config
    if request.method not in ON_ROLLOUTS:
        return LaunchRewards()
    names, weights = config.rewards.functions, config.rewards.function_weights
    if weights and len(weights) != len(names):
        raise UsageError(
            f"[rewards] function_weights: {len(weights)} for {len(names)} functions. Give each its own, as in {EXAMPLE}"
        )
    functions = tuple(find_function(name) for name in names)
    for function in functions:
        require_function_approved(function)
    wanted = [split_weight(one, "--reward-model")[0] for one in request.reward_models]
    if not wanted and config.model.reward_source:
        wanted = [config.model.reward_source, *config.rewards.more_models]
    if not wanted and not functions:
        raise UsageError(
            f"train {request.method}: say what judges the answers: --reward-model M (a run of workbench train reward), "
            f"or a Python function, {EXAMPLE}"
        )
    models = tuple(_reward_model(workspace, one, quiet) for one in wanted)
    if twice := next((one.source for one in models if [m.source for m in models].count(one.source) > 1), ""):
        raise UsageError(f"--reward-model {twice} is given twice. Give it once, with the sum of its weights")
    models = tuple(_on_base_of(one, model) for one in models)
    _require_learnt_from(config.rewards, models, functions)
    full = config.adapter.kind == "full"
    apart = tuple(one for one in models if full or one.adapter is None or one.path != model.path)
    return LaunchRewards(models, functions, apart)


def _require_learnt_from(
    rewards: RewardsConfig, models: Sequence[ResolvedModel], functions: Sequence[FunctionFile]
) -> None:
    weights = [rewards.model_weight] if models else []
    weights += rewards.more_weights or [1.0] * (len(models) - 1)
    weights += rewards.function_weights or [1.0] * len(functions)
    if not any(weights):
        raise UsageError(
            f"all rewards have the weight 0, which only watches: give one that is learnt from another, as in {EXAMPLE}"
        )


def require_function_approved(function: FunctionFile) -> None:
    """Raises Unapproved where the file of a function was not approved on this machine."""
    try:
        require_approved(function.sha256, function.path)
    except NotApproved as error:
        raise Unapproved(function, str(error)) from error


def functions_problem(written: Sequence[str]) -> str:
    """What is wrong with functions that a person has typed, as far as that can be told at once; empty where nothing
    is. No file is run for it."""
    try:
        for one in written:
            require_function_approved(find_function(split_weight(one, "--reward")[0]))
    except Unapproved as error:
        return f"not approved: workbench rewards approve {error.function.path}"
    except (EngineError, WorkbenchError) as error:
        return str(error).removeprefix("--reward ")
    return ""


def lines_to_read(function: FunctionFile) -> list[str]:
    """What a person reads before approving: what has changed since the last approval of the file, else the function."""
    before = earlier_of(function.path, approvals())
    if before is not None and copy_of(before.sha256).is_file():
        from difflib import unified_diff

        old = copy_of(before.sha256).read_text(encoding="utf-8", errors="replace").splitlines()
        new = function.content.decode("utf-8", "replace").splitlines()
        lines = list(unified_diff(old, new, f"approved on {before.time[:10]}", "now", lineterm=""))
    else:
        first, source = source_of(function.content, function.name)
        lines = [f"{number:>4}  {line}" for number, line in enumerate(source, start=first)]
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"… {len(lines) - MOST_LINES} more lines: workbench rewards show {function.path}"]
    return lines


def as_written(config: RunConfig) -> tuple[str, ...]:
    """The rewards of a run with their weights, for a person."""
    model, rewards = config.model.reward_source, config.rewards
    written = [(model, rewards.model_weight)] if model else []
    written += list(zip(rewards.more_models, rewards.more_weights, strict=False))
    weights: Sequence[float] = config.rewards.function_weights or (1.0,) * len(config.rewards.functions)
    written += list(zip(config.rewards.functions, weights, strict=False))
    return tuple(name if weight == 1.0 else f"{name}:{weight:g}" for name, weight in written)


def _reward_model(workspace: Workspace, wanted: str, quiet: bool) -> ResolvedModel:
    reward = resolve_model(workspace, wanted, quiet=quiet)
    if not reward.is_reward_model:
        raise UsageError(f"--reward-model {wanted} has no reward head; name a run of: workbench train reward")
    return reward


def _on_base_of(reward: ResolvedModel, model: ResolvedModel) -> ResolvedModel:
    """A reward model whose base is the policy's is written with the very same path, by whichever name it is reached."""
    same = reward.adapter is not None and reward.path.resolve() == model.path.resolve()
    return replace(reward, path=model.path) if same else reward


def _parameters(model: ResolvedModel) -> int:
    """Weights of a model's base, as its files say; 0 where they do not."""
    sizes = read_model_sizes(model.path)
    return 0 if sizes is None else sizes.parameters
