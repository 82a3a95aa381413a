"""status.json, and what a run is at this moment.

Owns the one sentence that every list, screen and script shows about a run. Invariants: a run is alive only where its
lock is held on this host; a phase in status.json is what the worker last said, and only the locks say whether it is
still true. Refuses to look at process numbers, to read run.toml's content, and to wait.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import orjson

from engine.run import control
from engine.run.durable_files import disk_faults_named, read_json_object, write_atomically
from engine.run.folder import RunFolder
from engine.run.locks import holders, is_held

SCHEMA = 1
PHASES = ("queued", "preparing", "running", "evaluating", "checkpointing", "stopping", "done", "stopped", "failed")
FINAL_PHASES = ("done", "stopped", "failed")
STATES = (
    "queued",
    "preparing",
    "running",
    "stopping",
    "done",
    "stopped",
    "failed",
    "interrupted",
    "orphaned",
    "unknown-here",
    "imported",
    "damaged",
)
QUIET_AFTER_S = 30.0
"""Without a heartbeat for this long a living run is said to be quiet; workers beat every few seconds."""
_BOOT_SLACK_S = 60.0
_IMPORTED = re.compile(rb'^imported = (?!"")[^\n]*', re.MULTILINE)


@dataclass(frozen=True)
class Status:
    """What a run last said about itself."""

    run: str
    """The run's ID."""
    phase: str
    """One of PHASES."""
    schema: int = SCHEMA
    """Format of status.json."""
    step: int = 0
    """Optimizer-complete steps."""
    total_steps: int = 0
    """0 until it is known."""
    attempt: int = 0
    """How many workers the run has had; the lines of metrics.jsonl carry it."""
    heartbeat: float = 0.0
    """Unix seconds at which this was written; says "quiet", never "dead"."""
    started: float = 0.0
    """Unix seconds of the first attempt."""
    host: str = ""
    """Where it runs or ran."""
    boot_id: str = ""
    """Changes when that machine is restarted."""
    pid: int = 0
    """The process that wrote this. For people and signals; never a proof of life."""
    device: str = ""
    """cpu, cuda:0 …; empty until it is known."""
    error: dict[str, str] | None = None
    """{"what", "remedy"} of a failed run."""
    best: dict[str, Any] | None = None
    """{"step", "metric", "value"} of the best checkpoint."""
    last: dict[str, float | None] = field(default_factory=dict)
    """Metrics of the last step that was written; None for a value that is no finite number."""
    steps_per_s: float | None = None
    """Speed of late."""
    seconds_left: float | None = None
    """Guess at the time that is left."""
    queued: float = 0.0
    """Unix seconds at which it joined the queue; 0 where it is in none."""
    waits_for: str = ""
    """Of a queued run: what must happen before it begins."""
    stalled: str = ""
    """Of a run that stands still: for how long, and what to do."""
    rows_prepared: int = 0
    """Of a run that is preparing: rows that are tokenised."""
    rows_to_prepare: int = 0
    """Of a run that is preparing: rows in all; 0 where nothing is being tokenised."""
    pairs_measured: int = 0
    """Of a run that is preparing: pairs of which the reference's log-probs are there."""
    pairs_to_measure: int = 0
    """Of a run that is preparing: pairs in all; 0 while the reference is not asked."""
    note: str = ""
    """What a person should know of how it runs, in a sentence; empty where all is as usual."""
    alarm: str = ""
    """Which alarms stand, since which step and what to do; empty where none does."""
    stopped_by: dict[str, str] | None = None
    """{"alarm", "action"} of a run that an alarm has ended: action is pause or stop."""


@dataclass(frozen=True)
class RunState:
    """What a run is, as far as this host can tell."""

    state: str
    """One of STATES."""
    reason: str
    """A clause in words: why, and what would happen next; empty where the state says it all."""
    status: Status | None = None
    """What it was read from; None where there is no status.json."""

    @property
    def alive(self) -> bool:
        """Processes of the run exist on this host."""
        return self.state in ("queued", "preparing", "running", "stopping", "orphaned")

    @property
    def resumable(self) -> bool:
        """`resume` would go on with it; it waits for an orphan to end, and takes over what another host left."""
        return self.state in ("interrupted", "stopped", "failed", "orphaned", "unknown-here")


def new_status(folder: RunFolder, previous: Status | None, *, phase: str) -> Status:
    """The status of a process that takes over: of this host, without the error of before; attempt and step stay."""
    now = time.time()
    base = previous or Status(run=folder.id, phase=phase, started=now)
    return replace(
        base,
        run=folder.id,
        phase=phase,
        schema=SCHEMA,
        heartbeat=now,
        started=base.started or now,
        host=this_host(),
        boot_id=this_boot(),
        pid=os.getpid(),
        error=None,
        stopped_by=None,
        steps_per_s=None,
        seconds_left=None,
        queued=0.0,
        waits_for="",
        stalled="",
        rows_prepared=0,
        rows_to_prepare=0,
        pairs_measured=0,
        pairs_to_measure=0,
    )


def write_status(folder: RunFolder, status: Status) -> None:
    """Replace status.json in one step. A final phase survives a power cut, too. Raises RunFolderError."""
    if status.phase not in PHASES:
        raise ValueError(f"{status.phase!r} is no phase: {', '.join(PHASES)}")
    data = orjson.dumps(asdict(status), option=orjson.OPT_INDENT_2) + b"\n"
    with disk_faults_named("writing the run's status", folder.status_path):
        write_atomically(folder.status_path, data, durable=status.phase in FINAL_PHASES)


def read_status(folder: RunFolder) -> Status | None:
    """The status last written; None where there is none, or it is none. Unknown keys are left out.

    The phase is one of PHASES, or another word where a newer program wrote it.
    """
    content = read_json_object(folder.status_path)
    if content is None or (content.get("phase") not in PHASES and not _is_newer(content)):
        return None
    known: dict[str, Any] = {}
    for name, kinds in _KINDS.items():
        value = content.get(name)
        if value is not None and isinstance(value, kinds) and not isinstance(value, bool):
            known[name] = value
    return Status(**{"run": folder.id, **known})


def _is_newer(content: Mapping[str, Any]) -> bool:
    schema = content.get("schema")
    return type(schema) is int and schema > SCHEMA and isinstance(content.get("phase"), str)


def describe(folder: RunFolder) -> RunState:
    """What the run is now. Costs a few file reads, no waiting, and never disturbs the run."""
    content, fault = _config_of(folder)
    if fault:
        return RunState("damaged", fault, read_status(folder))
    if imported := _IMPORTED.search(content):
        return _imported(folder, imported[0].decode("utf-8", "replace"))
    state = _look(folder)
    # Between the looks at lock and status a run may have started or ended: believe only what is so twice.
    for _ in range(3):
        if state.state not in ("interrupted", "orphaned"):
            break
        again = _look(folder)
        if again.state == state.state:
            break
        state = again
    return state


def this_host() -> str:
    """This machine's name."""
    return os.uname().nodename


def this_boot() -> str:
    """Changes with every start of this machine; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _look(folder: RunFolder) -> RunState:
    # Locks first: a run writes its last phase before it lets go.
    supervised = is_held(folder.lock_path)
    tree = is_held(folder.tree_lock_path)
    status = read_status(folder)
    if supervised:
        return _alive(folder, status)
    if tree:
        return _orphaned(folder, status)
    if status is None:
        if folder.status_path.exists():
            return RunState("interrupted", f"its status.json cannot be read; {_resume_from(folder)}")
        return RunState("interrupted", f"it was never started; {_resume_from(folder)}")
    if status.phase not in PHASES:
        return RunState("unknown-here", f"{status.phase}: a phase that a newer version of this program has", status)
    if status.phase in FINAL_PHASES:
        return RunState(status.phase, _final_reason(folder, status), status)
    if elsewhere := _elsewhere(status):
        return RunState("unknown-here", elsewhere, status)
    killed = "killed" if status.boot_id in ("", this_boot()) else "the machine was restarted"
    at = f"at step {status.step}" if status.step else "before its first step was done"
    if status.phase == "queued":
        at = "while it was queued"
    return RunState("interrupted", f"{killed} {at}; {_resume_from(folder)}", status)


def _alive(folder: RunFolder, status: Status | None) -> RunState:
    if status is None:
        return RunState("preparing", "its supervisor has just started")
    if status.phase == "queued":
        if control.pending(folder, "stop") is not None:
            return RunState("stopping", "it leaves the queue", status)
        return RunState("queued", f"it waits for {status.waits_for or 'its turn'}", status)
    if status.phase in FINAL_PHASES:
        # Final only once the supervisor is gone: until then it may start the worker again, and `resume` is refused.
        return RunState("stopping", f"its worker has ended ({status.phase}), its supervisor is about to", status)
    quiet_s = time.time() - status.heartbeat
    reason = f"no heartbeat for {quiet_s:.0f} s; see engine.log" if quiet_s > QUIET_AFTER_S else status.stalled
    if status.phase == "stopping" or control.pending(folder, "stop") is not None:
        return RunState("stopping", reason or "it stops once its checkpoint is written", status)
    if status.phase == "preparing":
        if status.pairs_to_measure:
            done, total = status.pairs_measured, status.pairs_to_measure
            reason = reason or f"the reference has judged {done:,} of {total:,} pairs"
        elif status.rows_to_prepare:
            reason = reason or f"{status.rows_prepared:,} of {status.rows_to_prepare:,} rows are tokenised"
        reason = reason or "its program and the model are being loaded"
        return RunState("preparing", reason, status)
    return RunState("running", reason, status)


def _orphaned(folder: RunFolder, status: Status | None) -> RunState:
    pids = holders(folder.tree_lock_path)
    named = f" ({'process' if len(pids) == 1 else 'processes'} {', '.join(map(str, pids))})" if pids else ""
    return RunState(
        "orphaned",
        f"its supervisor is gone, its worker is not{named}: it writes a checkpoint and ends; `resume` waits for that",
        status,
    )


def _elsewhere(status: Status) -> str | None:
    """Why the locks of this host say nothing about a run that was last heard of unfinished; None where they do."""
    if not status.boot_id or status.boot_id == this_boot():
        return None
    ago_s = max(0.0, time.time() - status.heartbeat)
    # The same name and another boot: this machine was restarted, unless the heartbeat is younger than this boot.
    if status.host == this_host() and (up_s := _seconds_up()) is not None and ago_s + _BOOT_SLACK_S > up_s:
        return None
    where = f"it ran on host {status.host}; its last heartbeat is {ago_s:.0f} s old"
    return f"{where}. Look there, or resume it here if it is dead"


def _seconds_up() -> float | None:
    try:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    except (AttributeError, OSError):
        return None


def _final_reason(folder: RunFolder, status: Status) -> str:
    if status.phase == "done":
        early = 0 < status.step < status.total_steps
        return f"early, at step {status.step} of {status.total_steps}: no longer better on held-out data" * early
    where = f"at step {status.step}; {_resume_from(folder)}"
    if status.phase == "stopped":
        return f"{alarm_end_words(status.stopped_by)} {where}" if status.stopped_by else where
    return f"{(status.error or {}).get('what') or 'no reason was written; see engine.log'} ({where})"


def alarm_end_words(stopped_by: Mapping[str, str]) -> str:
    """paused by the alarm NAME, or stopped by it."""
    done = {"pause": "paused", "stop": "stopped"}.get(stopped_by.get("action", ""), "ended")
    return f"{done} by the alarm {stopped_by.get('alarm', '')}"


def _resume_from(folder: RunFolder) -> str:
    steps = folder.checkpoint_steps()
    return f"resume continues from step {steps[-1]}" if steps else "resume begins at the start"


def _imported(folder: RunFolder, line: str) -> RunState:
    """Of a run that another program trains: whether someone reads its log on."""
    import tomllib

    try:
        source = str(tomllib.loads(line).get("imported"))
    except tomllib.TOMLDecodeError:
        source = line
    status = read_status(folder)
    kind, _, path = source.partition(":")
    if is_held(folder.follow_lock_path):
        state = "stopping" if control.pending(folder, "stop") is not None else "running"
        return RunState(state, f"its numbers are read from {path} ({kind}) as they come", status)
    return RunState("imported", f"its numbers are those of {path} ({kind}); to read on: runs import {path}", status)


def _config_of(folder: RunFolder) -> tuple[bytes, str]:
    """run.toml and what is wrong with it at a glance: it is written last and whole, so a torn one means a damaged
    folder."""
    try:
        content = folder.config_path.read_bytes()
    except FileNotFoundError:
        return b"", "it has no run.toml: its creation was cut short, or the file was removed"
    except OSError as error:
        return b"", f"its run.toml cannot be read ({error.strerror})"
    if not content.endswith(b"\n") or b"[run]" not in content:
        return b"", "its run.toml is torn: restore it from a copy"
    return content, ""


_KINDS: dict[str, tuple[type, ...]] = {
    "run": (str,),
    "phase": (str,),
    "schema": (int,),
    "step": (int,),
    "total_steps": (int,),
    "attempt": (int,),
    "heartbeat": (int, float),
    "started": (int, float),
    "host": (str,),
    "boot_id": (str,),
    "pid": (int,),
    "device": (str,),
    "error": (dict,),
    "best": (dict,),
    "last": (dict,),
    "steps_per_s": (int, float),
    "seconds_left": (int, float),
    "queued": (int, float),
    "waits_for": (str,),
    "stalled": (str,),
    "rows_prepared": (int,),
    "rows_to_prepare": (int,),
    "pairs_measured": (int,),
    "pairs_to_measure": (int,),
    "note": (str,),
    "alarm": (str,),
    "stopped_by": (dict,),
}
assert set(_KINDS) == {f.name for f in fields(Status)}
