"""events.jsonl: what happened to a run, in order, one line each.

Owns the form of the lines. Invariant: append-only, from any of the run's processes; a line is on the disk before the
next thing is done, so a power cut does not forget it. Refuses to interpret events.
"""

from __future__ import annotations

import time
from typing import Any

from engine.run.durable_files import append_line, disk_faults_named, encode_line, read_jsonl
from engine.run.folder import RunFolder

KINDS = {
    "created": "the run folder was made",
    "started": "a worker began: device, threads, torch",
    "data": "examples were read: how many, how many were dropped and why",
    "reference_cached": "log-probs of the reference were computed and kept",
    "resumed": "a worker went on from a checkpoint",
    "restarting": "the supervisor starts the worker again",
    "checkpoint": "a checkpoint was sealed",
    "checkpoint_failed": "a checkpoint could not be written; the ones before are whole",
    "evaluated": "held-out metrics were measured",
    "best": "a checkpoint became the best",
    "alarm": "a metric crossed its limit",
    "nonfinite": "a loss or gradient was no number; the step was refused",
    "probe_skipped": "the data has no prompts to probe",
    "stop_requested": "someone asked the run to stop",
    "stopped": "it stopped, after a checkpoint",
    "failed": "it failed, and why",
    "done": "it reached its end",
    "quarantined": "a faulty checkpoint was moved aside",
}
"""The kinds the engine writes, in words. A reader must bear kinds that it does not know."""


def append_event(folder: RunFolder, kind: str, **fields: Any) -> None:
    """Append one event. Raises RunFolderError where it cannot be written."""
    line = encode_line({"schema": 1, "time": time.time(), "kind": kind, **fields})
    with disk_faults_named(f"recording the event {kind}", folder.events_path):
        append_line(folder.events_path, line, durable=True)


def read_events(folder: RunFolder) -> list[dict[str, Any]]:
    """All events in order; lines that are torn or no events are left out."""
    return [line for _, line in read_jsonl(folder.events_path) if isinstance(line.get("kind"), str)]
