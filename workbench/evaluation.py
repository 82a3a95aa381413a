"""Held-out measurements of models, in one child process that holds torch.

Owns the job file and what is made of the rows that come back: losses per token, accuracies over pairs, each with its
standard error over clusters of rows that are not independent.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from workbench.child_programs import run_program
from workbench.comparison import cluster_of
from workbench.model_names import ResolvedModel
from workbench.statistics import Estimate, mean_estimate, ratio_estimate

Kind = Literal["loss", "logprob", "reward", "score"]
MAX_LENGTH = 1024


@dataclass(frozen=True)
class EvaluationJob:
    """One model, the frozen examples it is measured on, and what is measured."""

    model: ResolvedModel
    rows: Sequence[Mapping[str, Any]]
    kind: Kind
    """loss: of trained tokens; logprob: of both answers; reward: of both answers, by a reward model; score: of one."""
    device: str = "auto"
    threads: int = 0
    max_length: int = MAX_LENGTH


@dataclass(frozen=True)
class Measured:
    """What the engine measured, row by row."""

    rows: Mapping[str, Mapping[str, float]]
    """By row id: {"nll", "tokens"}, {"chosen", "rejected"} or {"reward", "normalised"}."""
    dropped: Mapping[str, int]
    """Rows that could not be measured, by reason."""


def evaluate(jobs: Sequence[EvaluationJob], *, quiet: bool = False) -> list[Measured]:
    """Measure every job, one after the other in one child."""
    with tempfile.TemporaryDirectory(prefix="workbench-evaluate-") as scratch:
        described = [_describe(job, Path(scratch), number) for number, job in enumerate(jobs)]
        job_file = Path(scratch) / "job.json"
        job_file.write_bytes(orjson.dumps({"jobs": described}))
        run_program("engine.evaluate", [str(job_file)], what="measuring", quiet=quiet, details=False)
        return [_read(Path(one["out"])) for one in described]


def accuracy(margins: Mapping[str, float], clusters: Mapping[str, str]) -> Estimate:
    """The share of rows whose margin is above 0; a margin of exactly 0 counts half."""
    values = [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins.values()]
    return mean_estimate(values, [clusters[row] for row in margins])


def margins_of(measured: Measured) -> dict[str, float]:
    """Chosen minus rejected, by row id."""
    return {row: values["chosen"] - values["rejected"] for row, values in measured.rows.items()}


def token_loss(measured: Measured, clusters: Mapping[str, str]) -> Estimate:
    """Negative log-likelihood in nats a token, over all trained tokens."""
    rows = measured.rows
    return ratio_estimate(
        [values["nll"] for values in rows.values()],
        [values["tokens"] for values in rows.values()],
        [clusters[row] for row in rows],
    )


def token_loss_difference(before: Measured, after: Measured, clusters: Mapping[str, str]) -> Estimate:
    """After minus before, nats a token, paired row by row."""
    shared = [row for row in before.rows if row in after.rows]
    return ratio_estimate(
        [after.rows[row]["nll"] - before.rows[row]["nll"] for row in shared],
        [before.rows[row]["tokens"] for row in shared],
        [clusters[row] for row in shared],
    )


def clusters_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What each row's error is clustered by: its combination where it has that tag, else its prompt."""
    from workbench.canonical_rows import group_of, prompt_of

    found = {}
    for row in rows:
        prompt = prompt_of(row)  # type: ignore[arg-type]  # a frozen example has the keys of a canonical row
        group = row.get("group") or (group_of(prompt) if prompt is not None else row["id"])
        found[row["id"]] = cluster_of(row.get("tags") or {}, group)
    return found


def _describe(job: EvaluationJob, scratch: Path, number: int) -> dict[str, Any]:
    data = scratch / f"rows-{number}.jsonl"
    data.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in job.rows))
    described = {
        "model": job.model.for_job(),
        "data": str(data),
        "kind": job.kind,
        "out": str(scratch / f"measured-{number}.jsonl"),
        "max_length": job.max_length,
        "threads": job.threads,
    }
    return described if job.device == "auto" else described | {"device": job.device}


def _read(out: Path) -> Measured:
    rows: dict[str, dict[str, float]] = {}
    dropped: dict[str, int] = {}
    with open(out, "rb") as lines:
        for line in lines:
            row = orjson.loads(line)
            if "summary" in row:
                dropped = row["summary"].get("dropped", {})
            else:
                rows[row["id"]] = {name: value for name, value in row.items() if name != "id"}
    return Measured(rows, dropped)
