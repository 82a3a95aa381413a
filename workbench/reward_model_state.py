"""What a run on rollouts should know of its reward model before it begins: is it better than chance, is it at its best.

Owns the two questions and their words. The figures are those of the reward run that the model is a checkpoint of; of a
reward model that was made elsewhere nothing is known, and nothing is said. Refuses to forbid anything.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from engine.errors import EngineError
from engine.run.folder import RunFolder
from workbench.model_names import ResolvedModel
from workbench.run_list import Run
from workbench.workspace import Workspace

CHANCE = 0.5
_NORMAL_95 = 1.96
_CHECKPOINT = re.compile(r"run:(?P<run>[^@]+)@(?P<step>\d+)")
ACCURACY, ACCURACY_ERROR = "eval_accuracy", "eval_accuracy_standard_error"


@dataclass(frozen=True)
class Evaluated:
    """Held-out figures of one step of a reward run."""

    step: int
    metrics: dict[str, float]


def reward_model_warnings(workspace: Workspace, reward: ResolvedModel | None) -> tuple[str, ...]:
    """What is doubtful about a reward model, each with its figures and what to do; nothing for one that is none of this
    workspace's checkpoints, or whose run cannot be read."""
    found = _CHECKPOINT.fullmatch(reward.source) if reward is not None else None
    if found is None:
        return ()
    run, step = Run(RunFolder(workspace.runs / found["run"]), workspace), int(found["step"])
    try:
        evaluations = [Evaluated(line.step, line.metrics) for line in run.metrics() if ACCURACY in line.metrics]
        goal = run.config().checkpoint.goal
    except (EngineError, OSError):
        return ()
    return tuple(filter(None, (_chance(run.id, step, evaluations), _past_best(run, step, goal, evaluations))))


def _chance(run_id: str, step: int, evaluations: list[Evaluated]) -> str:
    """Whether chance is within the 95 % interval of the accuracy at the last evaluation up to `step`."""
    last = next((one for one in reversed(evaluations) if one.step <= step), None)
    if last is None:
        return (
            f"the reward model run:{run_id}@{step} was not measured on held-out pairs, so nobody knows whether it is "
            "better than chance. Train it on a preference set with held-out pairs"
        )
    accuracy, error = last.metrics[ACCURACY], last.metrics.get(ACCURACY_ERROR, math.nan)
    reach = _NORMAL_95 * error if math.isfinite(error) else math.inf
    if accuracy - reach > CHANCE:
        return ""
    interval = "no interval"
    if math.isfinite(reach):
        interval = f"95 % interval {accuracy - reach:.3f} to {accuracy + reach:.3f}"
    below = "is below chance" if accuracy + reach < CHANCE else "may be at chance"
    return (
        f"the reward model run:{run_id}@{step} {below}: held-out accuracy {accuracy:.3f} at step {last.step} "
        f"({interval}; chance is {CHANCE}). A policy that follows it follows noise: give it more or clearer pairs first"
    )


def _past_best(run: Run, step: int, goal: str, evaluations: list[Evaluated]) -> str:
    """Whether the checkpoint lies behind the best one of its run."""
    best = run.folder.best()
    if best is None or step <= best["step"] or not isinstance(best.get("value"), (int, float)):
        return ""
    metric = str(best["metric"])
    later = [one for one in evaluations if best["step"] < one.step <= step and metric in one.metrics]
    now = later[-1] if later else None
    sign = 1.0 if goal == "min" else -1.0
    if now is None or sign * now.metrics[metric] <= sign * best["value"]:
        return ""
    return (
        f"the reward model run:{run.id}@{step} is past its best: {metric} {now.metrics[metric]:.4g} at step "
        f"{now.step}, {best['value']:.4g} at step {best['step']}. Take --reward-model run:{run.id}@best"
    )
