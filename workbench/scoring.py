"""`workbench eval --reward`: what a reward model gives to each answer of a dataset.

Owns which texts of a row are answers, and the rows of a scored dataset: the row itself with its rewards as columns.
Rewards have no zero and no unit, so each stands beside its normalised form, in standard deviations from the mean of the
answers that the model's checkpoint names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from workbench.dataset_store import Dataset, add_dataset
from workbench.errors import UsageError
from workbench.evaluation import EvaluationJob, accuracy, clusters_of, evaluate
from workbench.model_names import ResolvedModel
from workbench.run_examples import rows_to_measure
from workbench.statistics import Estimate, mean_estimate
from workbench.workspace import Workspace

ANSWERS = {"completion": ("completion",), "chosen": ("chosen", "rejected"), "a": ("a", "b")}
"""The first column of an answer -> all the answers of such a row."""


@dataclass(frozen=True)
class ScoredRow:
    """One row with what its answers got."""

    row: Mapping[str, Any]
    """As the dataset has it; a conversation is its prompt and its last assistant turn."""
    rewards: Mapping[str, float]
    """Raw reward by answer: completion, chosen and rejected, or a and b."""
    normalised: Mapping[str, float]


@dataclass(frozen=True)
class Scores:
    """A dataset, scored."""

    model: str
    data: str
    rows: Sequence[ScoredRow]
    """Rows of which every answer was scored."""
    rewards: Mapping[str, Estimate]
    """Mean raw reward by answer; errors are over combinations or prompts."""
    normalised: Mapping[str, Estimate]
    accuracy: Estimate | None
    """Share of pairs whose chosen answer has the higher reward; None where there are no verdicts."""
    by: Mapping[str, Estimate]
    """Mean normalised reward of the first answer for each value of a tag."""
    not_scored: Mapping[str, int]
    """Answers that could not be scored, by reason."""

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the rows."""
        return {
            "model": self.model,
            "data": self.data,
            "rows": len(self.rows),
            "rewards": {answer: one.as_json() for answer, one in self.rewards.items()},
            "normalised": {answer: one.as_json() for answer, one in self.normalised.items()},
            "accuracy": self.accuracy.as_json() if self.accuracy is not None else None,
            "by": {value: one.as_json() for value, one in self.by.items()},
            "not_scored": dict(self.not_scored),
        }


def score(
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
) -> Scores:
    """Score every answer of a dataset or preference set. Raises UsageError where the two do not go together."""
    if not model.is_reward_model:
        raise UsageError(f"{model.source} is no reward model: --reward takes a run of `workbench train reward`")
    rows = [_with_answer(row, data) for row in rows_to_measure(workspace, data, split)]
    asked = [(place, answer) for place, row in enumerate(rows) for answer in _answers_of(row, data)]
    # Ids of rows may repeat in a dataset; a place in the list of answers does not.
    examples = [
        {"id": str(number), "prompt": rows[place]["prompt"], "completion": rows[place][answer]}
        for number, (place, answer) in enumerate(asked)
    ]
    [measured] = evaluate([EvaluationJob(model, examples, "score", device, threads, max_length)], quiet=quiet)
    found: list[dict[str, Mapping[str, float]]] = [{} for _ in rows]
    for number, (place, answer) in enumerate(asked):
        if str(number) in measured.rows:
            found[place][answer] = measured.rows[str(number)]
    whole = [place for place, row in enumerate(rows) if len(found[place]) == len(_answers_of(row, data))]
    scored = [
        ScoredRow(
            rows[place],
            {answer: one["reward"] for answer, one in found[place].items()},
            {answer: one["normalised"] for answer, one in found[place].items()},
        )
        for place in whole
    ]
    return _summed_up(scored, model.source, data, by, measured.dropped)


def keep_scores(workspace: Workspace, name: str, scores: Scores) -> Dataset:
    """The scored rows as a dataset, with a column for each reward."""
    with tempfile.TemporaryDirectory(prefix="workbench-scores-") as scratch:
        file = Path(scratch) / f"{name}.jsonl"
        file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in _written(scores.rows)))
        return add_dataset(
            workspace,
            file,
            name,
            copy=True,
            origin=f"workbench eval {scores.model} --on {scores.data} --reward",
            note=f"rewards that {scores.model} gives to {scores.data}",
        )


def _summed_up(scored: Sequence[ScoredRow], model: str, data: str, by: str, not_scored: Mapping[str, int]) -> Scores:
    clusters = clusters_of([one.row for one in scored])
    each = [clusters[one.row["id"]] for one in scored]
    answers = list(scored[0].rewards) if scored else []
    groups: dict[str, list[int]] = {}
    for place, one in enumerate(scored) if by else ():
        if by in one.row["tags"]:
            groups.setdefault(str(one.row["tags"][by]), []).append(place)
    if by and not groups:
        raise UsageError(f"--by {by}: no row of {data} has a column of that name")

    def mean(values: Sequence[float], places: Sequence[int] | None = None) -> Estimate:
        taken = range(len(values)) if places is None else places
        return mean_estimate([values[i] for i in taken], [each[i] for i in taken])

    normalised = {answer: [one.normalised[answer] for one in scored] for answer in answers}
    verdicts = None
    if "chosen" in answers:
        margins = {str(i): one.rewards["chosen"] - one.rewards["rejected"] for i, one in enumerate(scored)}
        verdicts = accuracy(margins, {str(i): cluster for i, cluster in enumerate(each)})
    return Scores(
        model,
        data,
        scored,
        {answer: mean([one.rewards[answer] for one in scored]) for answer in answers},
        {answer: mean(values) for answer, values in normalised.items()},
        verdicts,
        {value: mean(normalised[answers[0]], places) for value, places in sorted(groups.items())},
        not_scored,
    )


def _with_answer(row: Mapping[str, Any], data: str) -> Mapping[str, Any]:
    """A conversation as a prompt and the assistant turn that ends it; other rows as they are."""
    if "messages" not in row:
        return row
    *before, last = row["messages"]
    if last["role"] != "assistant" or not before:
        raise UsageError(f"{data}, row {row['id']}: a reward model scores an answer, and the last turn is none")
    rest = {key: value for key, value in row.items() if key != "messages"}
    return {**rest, "prompt": before, "completion": [last]}


def _answers_of(row: Mapping[str, Any], data: str) -> tuple[str, ...]:
    for first, answers in ANSWERS.items():
        if first in row:
            return answers
    raise UsageError(
        f"{data} has no answers to score; let a model give them: workbench generate --model M --prompts {data} --to N"
    )


def _written(scored: Sequence[ScoredRow]) -> Iterator[dict[str, Any]]:
    for one in scored:
        kept = {key: one.row[key] for key in ("prompt", *one.rewards)}
        alone = len(one.rewards) == 1
        columns = {"reward" if alone else f"{answer}_reward": value for answer, value in one.rewards.items()}
        columns |= {
            "normalised_reward" if alone else f"{answer}_normalised_reward": value
            for answer, value in one.normalised.items()
        }
        margin = {"margin": one.row["margin"]} if one.row.get("margin") is not None else {}
        yield {**one.row["tags"], **kept, **margin, **columns}
