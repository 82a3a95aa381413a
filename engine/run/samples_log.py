"""samples.jsonl: what the model said while it was trained.

Owns the form of the lines. Invariant: a completion stands with its step, its attempt and where it came from, so it can
be laid beside the metrics of that step. Completions are strangers' text: whoever shows them passes them through
`engine.run.safe_text.safe`.

    {"schema", "step", "attempt", "time", "source": "probe" | "greedy" | "rollout", "prompt_id", "prompt",
     "completion", "reward"?, "scores"?, "logratio"?: [log p_policy - log p_reference of each token, nats],
     "ends"?: [characters of the completion up to the end of each token], "length", "stopped"}

A probe's sampled answers are "probe", its most likely ones "greedy": those carry no log-ratio, since a mean over them
would look like a KL and be none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from engine.run.durable_files import append_line, disk_faults_named, encode_line, open_for_append, read_jsonl
from engine.run.folder import RunFolder
from engine.run.metrics_log import attempts_of

SOURCES = ("probe", "greedy", "rollout")


def append_samples(folder: RunFolder, step: int, attempt: int, source: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append completions of a step. Raises RunFolderError where they cannot be written."""
    if source not in SOURCES:
        raise ValueError(f"{source!r} is no source of samples: {', '.join(SOURCES)}")
    head = {"schema": 1, "step": step, "attempt": attempt, "time": time.time(), "source": source}
    with disk_faults_named("writing samples", folder.samples_path):
        descriptor = open_for_append(folder.samples_path)
        try:
            for row in rows:
                append_line(descriptor, encode_line({**head, **row}))
        finally:
            os.close(descriptor)


def read_samples(folder: RunFolder, source: str | None = None) -> list[dict[str, Any]]:
    """The samples that count, by step: those of the last attempt at a step, by the rule of the metrics."""
    superseded = attempts_of(folder.metrics_path)
    newest: dict[tuple[int, str], int] = {}
    rows = []
    for _, row in read_jsonl(folder.samples_path):
        step, attempt, origin = row.get("step"), row.get("attempt"), row.get("source")
        if not isinstance(step, int) or not isinstance(attempt, int) or not isinstance(origin, str):
            continue
        if (source is not None and origin != source) or not superseded.counts(attempt, step):
            continue
        newest[step, origin] = max(attempt, newest.get((step, origin), attempt))
        rows.append(row)
    kept = [row for row in rows if row["attempt"] == newest[row["step"], row["source"]]]
    return sorted(kept, key=lambda row: row["step"])
