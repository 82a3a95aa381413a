"""Runs of other programs: their numbers as a run folder that lists, curves and comparisons read like any other.

Owns the folder of an imported run and how it follows its source. Invariants: after each reading metrics.jsonl says what
the source says, no more and no less, and it only grows: what the source no longer says is made void as a resume does
it; one process at a time reads on, held by follow.lock, which no queue counts; an imported run is never started,
resumed or cloned. Refuses to know the formats.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from engine.errors import EngineError
from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.control import clear, pending
from engine.run.folder import RunFolder
from engine.run.locks import hold
from engine.run.method_names import METHODS
from engine.run.metrics_log import MetricsWriter, attempts_of, read_metrics
from engine.run.status import Status, this_boot, this_host, write_status
from workbench.errors import UsageError, WorkbenchError
from workbench.foreign_logs import ForeignLog, Row, guess_method, open_log
from workbench.run_list import Run, all_runs
from workbench.workspace import Workspace, now

OTHER = "other"
"""The method in the ID of a run whose metrics tell of none."""
POLL_S = 2.0
SPARE = 10.0
"""A reading is followed by a pause of so many times its length, so that a long source costs a share of the time."""
LOGGED_KL = "logged/kl"
"""What TRL's `kl` is called here but for kto: it is another quantity in each of its trainers."""


@dataclass(frozen=True)
class Imported:
    """What came of reading a source."""

    run: Run
    steps: int
    """Steps with numbers in all."""
    new_lines: int
    """Lines that were written."""
    made: bool
    """The run is new; else one that was made of the same source went on."""
    notes: tuple[str, ...] = ()


class _Target(NamedTuple):
    """Where numbers are written, and as whose."""

    folder: RunFolder
    """While the run is made, a hidden one."""
    run_id: str
    method: str

    @classmethod
    def of(cls, run: Run) -> _Target:
        return cls(run.folder, run.id, run.method)


def import_run(workspace: Workspace, path: Path, *, name: str = "", method: str = "") -> Imported:
    """Make a run of the log at `path`, or read on into the one that was made of it.

    `method` says whose panels it gets; else its metrics do. Raises WorkbenchError where there is nothing to read, or
    another process follows the source.
    """
    workspace.require_writable()
    if method and method not in (*METHODS, OTHER):
        raise UsageError(f"--method {method}: there are {', '.join((*METHODS, OTHER))}")
    log = open_log(path)
    log.read()
    if not log.rows:
        left_out = f" ({'; '.join(log.notes)})" if log.notes else ""
        raise WorkbenchError(
            f"{path}: no numbers of any step are in it yet{left_out}. Import it when the program has logged its first"
        )
    if (found := imported_from(workspace, log)) is not None:
        if name and name != found.given_name:
            raise UsageError(
                f"{path} is imported already, as {found.id}; without --name it is read on. To import it anew, delete "
                f"that run first: workbench runs rm {found.id}"
            )
        with _following(found):
            return Imported(found, len(log.rows), _write(_Target.of(found), log), False, log.notes)
    return _make(workspace, log, name, method)


def imported_from(workspace: Workspace, log: ForeignLog) -> Run | None:
    """The run that was made of this source, if any."""
    for run in all_runs(workspace):
        try:
            if run.config().run.imported == _source(workspace, log):
                return run
        except (EngineError, OSError):
            continue
    return None


def follow(run: Run, log: ForeignLog, tell: Callable[[int, int], None], *, poll_s: float = POLL_S) -> str:
    """Read on as the source grows, until a person stops the run or the source has reached its end; why it ended.

    `tell` hears (lines written, last step) after each reading that brought some.
    """
    with _following(run):
        clear(run.folder, "stop")
        beat, target = -math.inf, _Target.of(run)
        while True:
            began = time.monotonic()
            fault = ""
            try:
                log.read()
            except (WorkbenchError, OSError) as error:
                fault = str(error)  # it is being written at this moment, or is gone for a while
            if log.rows and (lines := _write(target, log, alive=True)):
                tell(lines, max(log.rows))
                beat = time.monotonic()
            elif time.monotonic() - beat > SPARE:
                _write_status(target, log, alive=True, note=fault)
                beat = time.monotonic()
            if pending(run.folder, "stop") is not None:
                clear(run.folder, "stop")
                return "it was stopped"
            if log.total_steps and log.rows and max(log.rows) >= log.total_steps:
                return f"its source has reached its last step, {log.total_steps:,}"
            time.sleep(max(poll_s, SPARE * (time.monotonic() - began)))


def _make(workspace: Workspace, log: ForeignLog, name: str, method: str) -> Imported:
    from workbench.run_launch import default_name, new_run_id

    method = method or guess_method(name for row in log.rows.values() for name in row.metrics)
    run_id = new_run_id(workspace, method, name or default_name(_stem(log.path)))
    known = method if method in METHODS else METHODS[0]
    layer = {"run": {"id": run_id, "name": name, "created": now(), "imported": _source(workspace, log)}}
    config = resolve(known, [("this import", layer)]).config
    with workspace.new_folder("runs", run_id) as hidden:
        folder = RunFolder(hidden)
        lines = _write(_Target(folder, run_id, method), log)
        folder.lay_out(to_toml(config))
    run = Run(RunFolder(workspace.runs / run_id), workspace)
    return Imported(run, len(log.rows), lines, True, log.notes)


def _write(target: _Target, log: ForeignLog, *, alive: bool = False) -> int:
    """Bring metrics.jsonl and status.json to what the source says; how many lines that took."""
    folder = target.folder
    wanted = {step: _as_ours(row, target.method) for step, row in sorted(log.rows.items())}
    there = {line.step: line for line in read_metrics(folder.metrics_path)}
    # Also one of which no line is left: what a lower attempt wrote after it would not count.
    attempt = max(attempts_of(folder.metrics_path).known(), default=1)
    gone = [step for step in there if step not in wanted]
    writer = MetricsWriter(folder.metrics_path, attempt + bool(gone))
    try:
        if gone:
            kept = max((step for step in wanted if step < min(gone)), default=-1)
            writer.resumed_from(kept)
            there = {step: line for step, line in there.items() if step <= kept}
        new = [step for step, row in wanted.items() if step not in there or not _same(row.metrics, there[step].metrics)]
        for step in new:
            writer.write(step, wanted[step].metrics, time=wanted[step].time)
    finally:
        writer.close()
    if new or gone or not folder.status_path.exists():
        _write_status(target, log, alive=alive)
    return len(new) + bool(gone)


def _write_status(target: _Target, log: ForeignLog, *, alive: bool, note: str = "") -> None:
    steps = sorted(log.rows)
    last: dict[str, float | None] = {}
    for step in steps:
        last.update(
            {
                name: v if math.isfinite(v) else None
                for name, v in _as_ours(log.rows[step], target.method).metrics.items()
            }
        )
    times = [row.time for row in log.rows.values() if row.time]
    write_status(
        target.folder,
        Status(
            run=target.run_id,
            phase="running" if alive else "done",
            step=steps[-1] if steps else 0,
            total_steps=log.total_steps,
            attempt=1,
            heartbeat=time.time(),
            started=min(times, default=0.0),
            host=this_host(),
            boot_id=this_boot(),
            pid=os.getpid(),
            last=last,
            note="; ".join(filter(None, (note, *log.notes))),
        ),
    )


def _as_ours(row: Row, method: str) -> Row:
    if "kl" not in row.metrics or method == "kto":
        return row
    return replace(row, metrics={LOGGED_KL if name == "kl" else name: value for name, value in row.metrics.items()})


def _same(a: dict[str, float], b: dict[str, float]) -> bool:
    return a.keys() == b.keys() and all(b[name] == v or (v != v and b[name] != b[name]) for name, v in a.items())


@contextmanager
def _following(run: Run) -> Iterator[None]:
    lock = hold(run.folder.follow_lock_path)
    if lock is None:
        raise WorkbenchError(
            f"run {run.id} is followed by another process already; it grows by itself. Watch it: workbench runs watch "
            f"{run.id}"
        )
    try:
        yield
    finally:
        lock.release()


def _source(workspace: Workspace, log: ForeignLog) -> str:
    """As run.toml has it: the kind and the path."""
    return f"{log.kind}:{workspace.relative(log.path)}"


def _stem(path: Path) -> str:
    """What an imported run is called after: the folder that the program was told to write to."""
    if path.name == "trainer_state.json" or ".tfevents." in path.name:
        path = path.parent
    if path.name.startswith("checkpoint-"):
        path = path.parent
    return path.stem if path.is_file() else path.name
