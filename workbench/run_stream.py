"""A run as lines of JSON while it goes on, for programs.

Owns which lines there are: `state` (what `runs ls --json` says of it) whenever state or alarm changes, `metrics` for
each line of metrics.jsonl, `event` for each of events.jsonl. Invariants: nothing that is written is left out or told
twice; a file that was replaced is told from its beginning, after a line `anew`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from workbench.growing_lines import GrowingLines
from workbench.run_list import ALIVE, Run, exit_code_of, summarise

SCHEMA = 2
POLL_S = 0.25


def stream(run: Run, tell: Callable[[dict[str, Any]], None], *, poll_s: float = POLL_S) -> int:
    """Tell of `run` until it has ended; its exit code."""
    logs = {"metrics": GrowingLines(run.folder.metrics_path), "event": GrowingLines(run.folder.events_path)}
    told = ("", "")
    while True:
        summary = summarise(run)  # before the logs: what is in them at its end is told, too
        if (summary.state, summary.alarm) != told:
            told = (summary.state, summary.alarm)
            tell({"schema": SCHEMA, "kind": "state", **asdict(summary)})
        for kind, log in logs.items():
            more = True
            while more:
                batch = log.read()
                more = batch.more
                if batch.anew:
                    tell({"schema": SCHEMA, "kind": "anew", "run": run.id, "of": kind})
                for line in batch.lines:
                    tell({"schema": SCHEMA, "kind": kind, "run": run.id, kind: line})
        if summary.state not in ALIVE:
            return exit_code_of(summary.state)
        time.sleep(poll_s)
