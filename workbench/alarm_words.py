"""The alarms of a run in words: what was raised, by which figures, what it means and what to do.

Owns the wording; the figures, the explanation and the remedy are the engine's, as its events say them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

KIND = "alarm"
_DONE = {"checkpoint": "a checkpoint was written", "pause": "the run was paused", "stop": "the run was stopped"}


def alarms_told(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The alarms of a run, in order; an event that is none, or that cannot be read, is left out."""
    return [
        event
        for event in events
        if event.get("kind") == KIND and all(isinstance(event.get(key), str) for key in ("alarm", "what"))
    ]


def alarm_fields(events: Iterable[Mapping[str, Any]], run_id: str) -> dict[str, str]:
    """Fields for `runs show`: each alarm whole, the last one of a name."""
    fields = {}
    for event in alarms_told(events):
        parts = [
            f"step {event.get('step')}, since step {event.get('onset')}: {event['what']}.",
            str(event.get("explanation", "")),
            str(event.get("remedy", "")),
            done_words(event, run_id),
        ]
        fields[f"alarm {event['alarm']}"] = " ".join(part for part in parts if part)
    return fields


def alarm_lines(events: Iterable[Mapping[str, Any]], run_id: str) -> list[str]:
    """A line for each alarm, for who waited for the run."""
    return [
        f"alarm {event['alarm']} at step {event.get('step')}: {event['what']}. {done_words(event, run_id)}".rstrip()
        for event in alarms_told(events)
    ]


def done_words(event: Mapping[str, Any], run_id: str) -> str:
    """What the run did about it, and which checkpoint was kept; empty where it was told and no more."""
    done = _DONE.get(str(event.get("action")), "")
    kept = event.get("kept_checkpoint")
    if not done:
        return ""
    before = f"; the checkpoint before it is kept: run:{run_id}@{kept}" if isinstance(kept, int) else ""
    return f"{done[0].upper()}{done[1:]}{before}."
