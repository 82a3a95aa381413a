"""What a worker tells the world: status with a heartbeat, metrics, samples, events.

Owns every write of the worker into its run folder but checkpoints. The heartbeat is a thread, so that a long forward
pass does not look like a dead run. A small reserve file is given up when the disk is full, so that even then the run
can say what happened to it.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.errors import EngineError, RunFolderError
from engine.run.durable_files import write_atomically
from engine.run.events import append_event
from engine.run.folder import RunFolder
from engine.run.metrics_log import MetricsWriter
from engine.run.samples_log import append_samples
from engine.run.status import Status, write_status
from engine.stall_watch import StallWatch

HEARTBEAT_S = 3.0
MEASURING_EVERY_S = 1.0
RESERVE_BYTES = 64 * 1024


class Reporter:
    """The worker's voice. Methods may be called from the training thread only; the heartbeat has its own."""

    def __init__(self, folder: RunFolder, status: Status) -> None:
        self._folder = folder
        self._status = status
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._metrics = MetricsWriter(folder.metrics_path, status.attempt)
        self._reserve = folder.reserve_path
        self._stall = StallWatch()
        self._measuring_told = -math.inf
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Take the reserve and begin to beat."""
        if not self._reserve.exists():
            write_atomically(self._reserve, os.urandom(RESERVE_BYTES))
        self._write()
        self._thread.start()

    def close(self) -> None:
        """Stop beating. The last status written stays."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def status(self, **changes: Any) -> None:
        """Change fields of status.json and write it; what changes nothing is left to the heartbeat."""
        with self._lock:
            before, self._status = self._status, replace(self._status, **changes)
            same = self._status == before
        if not same:
            self._write()

    def preparing(self, done: int, total: int) -> None:
        """Say how many rows are tokenised, of how many."""
        self.status(phase="preparing", rows_prepared=done, rows_to_prepare=total)

    def measuring(self, done: int, total: int) -> None:
        """Say of how many pairs, of how many, the reference's log-probs are there; now and then alone."""
        now = time.monotonic()
        if done >= total or now - self._measuring_told >= MEASURING_EVERY_S:
            self._measuring_told = now
            self.status(phase="preparing", pairs_measured=done, pairs_to_measure=total)

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to events.jsonl."""
        append_event(self._folder, kind, attempt=self._status.attempt, **fields)

    def going_on(self, step_s: float | None = None) -> None:
        """Something came of the run: a part of a pass, or a step that took `step_s`. Without it for long, it stalls."""
        if self._stall.note(step_s):
            self.status(stalled="")

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the one line of a step to metrics.jsonl."""
        self._metrics.write(step, dict(metrics))

    def sync_metrics(self) -> None:
        """Make the lines so far survive a power cut, as the checkpoint that follows them does."""
        self._metrics.sync()

    def resumed_from(self, step: int) -> None:
        """Mark that lines of earlier attempts beyond `step` no longer count."""
        self._metrics.resumed_from(step)

    def samples(self, step: int, source: str, rows: list[dict[str, Any]]) -> None:
        """Append completions of a step to samples.jsonl."""
        append_samples(self._folder, step, self._status.attempt, source, rows)

    def final(
        self,
        phase: str,
        *,
        error: EngineError | None = None,
        remedy: str = "",
        stopped_by: dict[str, str] | None = None,
    ) -> None:
        """Write a terminal phase, giving up the reserve where the disk is full. `stopped_by` is the alarm that ends the
        run and what it does."""
        changes: dict[str, Any] = {"phase": phase, "seconds_left": None, "stopped_by": stopped_by}
        if error is not None:
            changes["error"] = {"what": str(error), "remedy": remedy}
        self.close()
        try:
            self.status(**changes)
        except (RunFolderError, OSError):
            self._reserve.unlink(missing_ok=True)
            self.status(**changes)
        self._reserve.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self._tell_standstill()
                self._write()
            except (RunFolderError, OSError):
                # The training thread meets the same fault at its next write and reports it; a beat is only a beat.
                continue

    def _tell_standstill(self) -> None:
        if said := self._stall.look():
            with self._lock:
                self._status = replace(self._status, stalled=said)
            self.event("stalled", step=self._status.step, phase=self._status.phase, what=said)

    def _write(self) -> None:
        with self._lock:
            self._status = replace(self._status, heartbeat=time.time())
            write_status(self._folder, self._status)


class QuietReporter(Reporter):
    """The voice of a process that does not lead: it says why it failed, and leaves all else to the leading one."""

    def __init__(self, folder: RunFolder, status: Status, rank: int) -> None:
        self._folder = folder
        self._status = status
        self._rank = rank

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def status(self, **changes: Any) -> None:
        pass

    def measuring(self, done: int, total: int) -> None:
        pass

    def event(self, kind: str, **fields: Any) -> None:
        """Only a failure is told; the supervisor looks for it where the leading process gave no reason."""
        if kind == "failed":
            append_event(self._folder, kind, attempt=self._status.attempt, rank=self._rank, **fields)

    def going_on(self, step_s: float | None = None) -> None:
        pass

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def sync_metrics(self) -> None:
        pass

    def resumed_from(self, step: int) -> None:
        pass

    def samples(self, step: int, source: str, rows: list[dict[str, Any]]) -> None:
        pass

    def final(
        self,
        phase: str,
        *,
        error: EngineError | None = None,
        remedy: str = "",
        stopped_by: dict[str, str] | None = None,
    ) -> None:
        pass
