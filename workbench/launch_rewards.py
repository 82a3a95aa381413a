"""What judges a run on rollouts, from what a person wrote after --reward-model and --reward to what is launched.

Owns the forms MODEL[:WEIGHT] and FUNCTION[:WEIGHT], and that nothing of a function's file is run before somebody
approved it on this machine. What a function is asked and must answer is the engine's (`engine.rewards`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError, NotApproved
from engine.rewards.approvals import approvals, copy_of, earlier_of, require_approved
from engine.rewards.function_files import FunctionFile, find_function, source_of
from engine.run.config import ON_ROLLOUTS, RunConfig
from engine.run.config_layers import Resolved
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

    model: ResolvedModel | None = None
    functions: tuple[FunctionFile, ...] = ()

    def found(self, workspace: Workspace, config: RunConfig) -> dict[str, dict[str, Any]]:
        """The keys of [model] and [rewards] that a launch writes."""
        empty = {"source": "", "path": "", "adapter": "", "sha256": ""}
        written = self.model.written_in(workspace) if self.model else empty
        sections: dict[str, dict[str, Any]] = {"model": {f"reward_{key}": value for key, value in written.items()}}
        if config.run.method in ON_ROLLOUTS:
            weights = config.rewards.function_weights or (1.0,) * len(self.functions)
            sections["rewards"] = {
                "function_weights": list(weights),
                "function_files": [str(function.path) for function in self.functions],
                "function_sha256": [function.sha256 for function in self.functions],
            }
        return sections


def split_weight(written: str, option: str) -> tuple[str, float | None]:
    """(what, weight or None) of WHAT[:WEIGHT]. Raises UsageError for a weight that cannot be."""
    what, _, text = written.rpartition(":")
    if not what or what in ("run", "hf") or not _WEIGHT.fullmatch(text):
        return written, None
    weight = float(text)
    if not math.isfinite(weight) or weight == 0:
        raise UsageError(f"{option} {written}: the weight must be a number other than 0, as in {EXAMPLE}")
    return what, weight


def typed_rewards(request: LaunchRequest) -> list[tuple[str, dict[str, Any]]]:
    """What --reward and the weight of --reward-model say, as layers of the config."""
    layers: list[tuple[str, dict[str, Any]]] = []
    if (request.rewards or request.reward_model) and request.method not in ON_ROLLOUTS:
        option = "--reward" if request.rewards else "--reward-model"
        raise UsageError(f"{option} goes with train {', '.join(ON_ROLLOUTS)}, not with {request.method}")
    if request.rewards:
        pairs = [split_weight(one, "--reward") for one in request.rewards]
        functions = [what for what, _ in pairs]
        if twice := next((what for what in functions if functions.count(what) > 1), ""):
            raise UsageError(f"--reward {twice} is given twice. Give it once, with the sum of its weights")
        weights = [1.0 if weight is None else weight for _, weight in pairs]
        layers.append(("--reward", {"rewards": {"functions": functions, "function_weights": weights}}))
    if request.reward_model:
        _, weight = split_weight(request.reward_model, "--reward-model")
        layers.append(("--reward-model", {"rewards": {"model_weight": 1.0 if weight is None else weight}}))
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
    wanted, _ = split_weight(request.reward_model, "--reward-model")
    wanted = wanted or config.model.reward_source
    if not wanted and not functions:
        raise UsageError(
            f"train {request.method}: say what judges the answers: --reward-model M (a run of workbench train reward), "
            f"or a Python function, {EXAMPLE}"
        )
    return LaunchRewards(_reward_model(workspace, wanted, request, early, model, quiet) if wanted else None, functions)


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
    model = config.model.reward_source
    written = [(model, config.rewards.model_weight)] if model else []
    weights: Sequence[float] = config.rewards.function_weights or (1.0,) * len(config.rewards.functions)
    written += list(zip(config.rewards.functions, weights, strict=False))
    return tuple(name if weight == 1.0 else f"{name}:{weight:g}" for name, weight in written)


def _reward_model(
    workspace: Workspace, wanted: str, request: LaunchRequest, early: Resolved, model: ResolvedModel, quiet: bool
) -> ResolvedModel:
    reward = resolve_model(workspace, wanted, quiet=quiet)
    if not reward.is_reward_model:
        raise UsageError(f"--reward-model {wanted} has no reward head; name a run of: workbench train reward")
    if reward.adapter is None or reward.path.resolve() != model.path.resolve():
        written = request.model or early.config.model.source
        raise WorkbenchError(
            f"the reward model {reward.source} does not lie as an adapter over {model.path}: policy and reward model "
            f"share one base. Train it with: workbench train reward --model {written} --set adapter.kind=lora"
        )
    return reward
