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
    "created": "the run folder was made: rows, and what of the data became none, by source and reason",
    "queued": "a supervisor waits for the run's turn",
    "started": "a worker began: device, threads, torch",
    "data": "examples were read: how many; what was dropped, cut, how chats were masked; what each source gives",
    "own_rows": "each document has a row of its own, and why: the model would leak from one to the next",
    "activation_checkpointing": "whether activations are worked again in the backward pass, and why",
    "memory_estimate": "what the run was expected to need of memory, by parts, in bytes",
    "reference": "what the run's reference is",
    "reference_cached": "log-probs of the reference are known: so many pairs were measured now, others by earlier runs",
    "resumed": "a worker went on from a checkpoint",
    "settings_changed": "a person changed settings as the run was to go on: before and after",
    "restarting": "the supervisor starts the worker again",
    "checkpoint": "a checkpoint was sealed",
    "checkpoint_failed": "a checkpoint could not be written; the ones before are whole",
    "evaluated": "held-out metrics were measured",
    "held_out_report": "a reward model on held-out pairs: accuracy by slice, calibration, baselines",
    "best": "a checkpoint became the best",
    "alarm": "what goes wrong, by which figures, since when; what it means, what to do, what the run does",
    "nonfinite": "a loss or gradient was no number; the step was refused",
    "probe_skipped": "the data has no prompts to probe",
    "probe_stretched": "probes would cost more than their share of the time, so they come more rarely",
    "early_stopped": "held-out data ceased to improve, so the run ended before its last step",
    "stalled": "nothing has come of it for long: what to do; it was not ended",
    "mirror": "a process began to copy the metrics to another program: to which",
    "mirror_failed": "such a process ended before its time: why, and what to do; the run goes on",
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
