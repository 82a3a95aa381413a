"""What the curves say in words: the line of state, the table of all metrics, which run is before and after.

Owns the words; every figure comes from the run's files.
"""

from __future__ import annotations

import math

from engine.run.metric_names import metric_info
from workbench.curves import CurveLog, Points
from workbench.run_list import ALIVE, RESUMABLE, STATE_MARKS, STATE_TONES, RunSummary
from workbench.run_watch import sparkline
from workbench.terminal_output import time_left
from workbench.value_axis import short_number
from workbench.workspace import Workspace

SPARKLINE_POINTS = 4096
"""Values behind a sparkline in the table: the newest."""


def is_alive(summary: RunSummary) -> bool:
    """Whether the run goes on."""
    return summary.state in ALIVE


def is_resumable(summary: RunSummary) -> bool:
    """Whether `resume` would go on with it."""
    return summary.state in RESUMABLE


def state_words(summary: RunSummary, last_step: int) -> str:
    """The line on top: state, how far, time left, pace, method, device."""
    step = max(summary.step, last_step)
    how_far = ""
    if summary.total_steps:
        share = min(100, math.floor(100 * step / summary.total_steps))
        how_far = f"step {step:,}/{summary.total_steps:,} · {share} %"
    elif step > 0:
        how_far = f"step {step:,}"
    left = time_left(summary.seconds_left) if summary.seconds_left is not None else ""
    best = ""
    if summary.best and isinstance(summary.best.get("value"), (int, float)):
        best = f"best {summary.best.get('metric')} {short_number(summary.best['value'])} at {summary.best.get('step')}"
    parts = [STATE_MARKS.get(summary.state, "·") + " " + summary.state, how_far, left]
    parts += [_pace(summary) if summary.state in ALIVE else "", summary.method, summary.device, best]
    return " · ".join(part for part in parts if part)


def tone_of(summary: RunSummary) -> str:
    """good, bad, busy, faint or nothing: the colour that repeats the state."""
    return STATE_TONES.get(summary.state, "")


def metric_rows(log: CurveLog, *, plain: bool) -> list[tuple[str, tuple[str, ...]]]:
    """(name, (name, last value, step, shape, unit, meaning)) of every metric, in the order of their first value."""
    rows: list[tuple[str, tuple[str, ...]]] = []
    for name, points in list(log.metrics.items()):
        last = points.last()
        if last is None:
            continue
        info = metric_info(name)
        unit, meaning = ("", "") if info is None else ("" if info.unit == "1" else info.unit, info.definition)
        shape = sparkline(_newest(points), 16, plain=plain)
        rows.append((name, (name, short_number(last[1], 10), f"{last[0]:,}", shape, unit, meaning)))
    return rows


def neighbour(workspace: Workspace, run_id: str, by: int) -> str:
    """The run before or after one, by age; itself where there is none further."""
    from workbench.run_list import all_runs

    names = [run.id for run in all_runs(workspace)]
    if run_id not in names:
        return names[-1] if names else ""
    return names[max(0, min(len(names) - 1, names.index(run_id) + by))]


def _newest(points: Points) -> list[float]:
    count = len(points)
    return list(points.values[max(0, count - SPARKLINE_POINTS) : count])


def _pace(summary: RunSummary) -> str:
    rate = summary.steps_per_s
    if not rate:
        return ""
    return f"{short_number(rate)} steps/s" if rate >= 1 else f"{short_number(1 / rate)} s a step"
