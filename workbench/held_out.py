"""`workbench eval`: one figure that says how a model does on rows it should not have seen, with its standard error.

Owns which figure suits which model and data: a reward model's accuracy or a language model's ranking accuracy on
preferences, and the loss per token on demonstrations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from workbench.errors import UsageError
from workbench.evaluation import EvaluationJob, Kind, accuracy, clusters_of, evaluate, margins_of, token_loss
from workbench.model_names import ResolvedModel
from workbench.run_examples import frozen_examples, rows_to_measure
from workbench.statistics import Estimate
from workbench.workspace import Workspace


@dataclass(frozen=True)
class HeldOutFigure:
    """What was measured."""

    model: str
    data: str
    kind: Kind
    estimate: Estimate
    """Loss in nats a token, or accuracy with ties as halves; clustered by combination or prompt."""
    by: Mapping[str, Estimate]
    """The same for each value of a tag."""
    dropped: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model,
            "data": self.data,
            "kind": self.kind,
            "estimate": self.estimate.as_json(),
            "by": {value: one.as_json() for value, one in self.by.items()},
            "dropped": dict(self.dropped),
        }


def measure(
    workspace: Workspace,
    model: ResolvedModel,
    data: str,
    *,
    split: Literal["train", "eval", "all"] = "eval",
    by: str = "",
    device: str = "auto",
    threads: int = 0,
    max_length: int = 1024,
    quiet: bool = False,
) -> HeldOutFigure:
    """Measure `model` on a dataset or preference set. Raises UsageError where the two do not go together."""
    rows = rows_to_measure(workspace, data, split)
    kind = _kind_for(model, rows[0], data)
    method = "sft" if kind == "loss" else "dpo"
    examples = [example for row in rows for example in frozen_examples(row, method)]
    [measured] = evaluate([EvaluationJob(model, examples, kind, device, threads, max_length)], quiet=quiet)
    clusters = clusters_of(rows)
    if kind == "loss":
        return HeldOutFigure(model.source, data, kind, token_loss(measured, clusters), {}, measured.dropped)
    margins = margins_of(measured)
    groups: dict[str, dict[str, float]] = {}
    for row in rows if by else []:
        if row["id"] in margins and by in row["tags"]:
            groups.setdefault(str(row["tags"][by]), {})[row["id"]] = margins[row["id"]]
    if by and not groups:
        raise UsageError(f"--by {by}: no row of {data} has a column of that name")
    estimates = {value: accuracy(found, clusters) for value, found in sorted(groups.items())}
    return HeldOutFigure(model.source, data, kind, accuracy(margins, clusters), estimates, measured.dropped)


def _kind_for(model: ResolvedModel, row: Mapping[str, Any], data: str) -> Kind:
    if "chosen" in row:
        return "reward" if model.is_reward_model else "logprob"
    if model.is_reward_model and "a" not in row:
        raise UsageError(f"{model.source} is a reward model: it is measured on preferences, and {data} has none")
    if "a" in row and "b" in row:
        raise UsageError(
            f"{data} has two answers to each prompt and no verdict which is better; judge them first: workbench pairs "
            f"make P --from {data}, then pairs judge, then prefs freeze P --to Q"
        )
    if "prompt" in row and "completion" not in row:
        raise UsageError(f"{data} has prompts but no answers; eval needs demonstrations or preferences")
    return "loss"
