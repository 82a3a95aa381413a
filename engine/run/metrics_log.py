"""metrics.jsonl: the numbers of a run, one line per step and attempt.

Owns the form of the lines and the rule for what counts after a kill. Invariants: a step counts once, with the values of
its last attempt; what an earlier attempt wrote beyond the point from which a later one went on does not count; numbers
that are not finite are kept as such (null in JSON, their kind beside it). Refuses to know what a metric means: that is
`engine.run.metric_names`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time as clock
from typing import Any

from engine.errors import RunFolderError
from engine.run.durable_files import append_line, disk_faults_named, encode_line, open_for_append, read_jsonl

_NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True, slots=True)
class MetricsLine:
    """One step's numbers."""

    step: int
    """0 is before the first optimizer step."""
    attempt: int
    """Which worker wrote it, from 1."""
    time: float
    """Unix seconds."""
    metrics: dict[str, float]
    """By name; may hold nan and infinities."""


class MetricsWriter:
    """Appends a run's numbers. One process writes; any number may read."""

    def __init__(self, path: Path, attempt: int) -> None:
        self._path = path
        self._attempt = attempt
        with disk_faults_named("opening the metrics", path):
            self._descriptor = open_for_append(path)

    def write(self, step: int, metrics: Mapping[str, float], *, time: float | None = None) -> None:
        """Append the line of a step. Raises RunFolderError where it could not be written; then it does not count.

        `time` is in Unix seconds, 0 where nobody knows it; None is now.
        """
        finite: dict[str, float | None] = {}
        nonfinite: dict[str, str] = {}
        for name, value in metrics.items():
            number = float(value)
            finite[name] = number if math.isfinite(number) else None
            if not math.isfinite(number):
                nonfinite[name] = str(number)
        line: dict[str, Any] = {
            "schema": 1,
            "step": step,
            "attempt": self._attempt,
            "time": clock() if time is None else time,
        }
        line["metrics"] = finite
        if nonfinite:
            line["nonfinite"] = nonfinite
        self._append(line)

    def resumed_from(self, step: int) -> None:
        """Say that this attempt goes on from the checkpoint of `step`: later steps of earlier attempts are void."""
        self._append({"schema": 1, "attempt": self._attempt, "time": clock(), "resumed_from": step})

    def sync(self) -> None:
        """Make what was written survive a power cut; worth its milliseconds before a checkpoint is sealed."""
        with disk_faults_named("writing the metrics", self._path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, line: dict[str, Any]) -> None:
        if self._descriptor < 0:
            raise RunFolderError(f"{self._path} is closed: no metrics can be written any more")
        with disk_faults_named("writing the metrics", self._path):
            append_line(self._descriptor, encode_line(line))


def read_metrics(path: Path) -> list[MetricsLine]:
    """The lines that count, by step. A torn tail and lines that are no metrics are left out."""
    kept: dict[int, MetricsLine] = {}
    superseded = Supersession()
    for line in _valid_lines(path):
        attempt = line["attempt"]
        if "resumed_from" in line:
            superseded.note(attempt, line["resumed_from"])
            continue
        step = line["step"]
        superseded.note(attempt, step - 1)
        before = kept.get(step)
        if before is None or attempt >= before.attempt:
            kept[step] = MetricsLine(step, attempt, line.get("time", 0.0), _numbers(line))
    return [kept[step] for step in sorted(kept) if superseded.counts(kept[step].attempt, step)]


def attempts_of(path: Path) -> Supersession:
    """From where each attempt went on, so that other logs of the run can leave out what it made void."""
    superseded = Supersession()
    for line in _valid_lines(path):
        superseded.note(line["attempt"], line["resumed_from"] if "resumed_from" in line else line["step"] - 1)
    return superseded


class Supersession:
    """Which lines of earlier attempts are void because a later attempt went on from before them."""

    def __init__(self) -> None:
        self._from: dict[int, int] = {}

    def note(self, attempt: int, last_kept_step: int) -> None:
        """`attempt` began after `last_kept_step`; the first word on an attempt counts."""
        self._from.setdefault(attempt, last_kept_step)

    def known(self) -> dict[int, int]:
        """Attempt -> the last step that it kept."""
        return dict(self._from)

    def counts(self, attempt: int, step: int) -> bool:
        """Whether a line of `attempt` at `step` still stands."""
        return all(step <= kept for later, kept in self._from.items() if later > attempt)


def _valid_lines(path: Path) -> Iterator[dict[str, Any]]:
    for _, line in read_jsonl(path):
        if not _whole_number(line.get("attempt")):
            continue
        if _whole_number(line.get("resumed_from")) or (
            _whole_number(line.get("step")) and isinstance(line.get("metrics"), dict)
        ):
            yield line


def _whole_number(value: object) -> bool:
    return type(value) is int


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    metrics = {name: float(value) for name, value in line["metrics"].items() if type(value) in (int, float)}
    nonfinite = line.get("nonfinite")
    if isinstance(nonfinite, dict):
        metrics.update({name: _NONFINITE[kind] for name, kind in nonfinite.items() if kind in _NONFINITE})
    return metrics
