"""The runs of a workspace: finding one by what a person types, and what a list says of each.

Owns the spellings of a run (its ID, the name it was given, a unique beginning of its ID, or "-" for the latest) and the
reading of a run folder. Invariants: what an unnamed run is called in its ID, after its model, is no name, and never
stands in the way of a run that was given that name, nor of a model; everything is read from the run's files; nothing is
written; and a damaged run is listed as damaged, never an error for the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.run.folder import RunFolder
from engine.run.status import RunState, Status, describe, read_status
from workbench.errors import NotFound, UsageError, WorkbenchError
from workbench.newer_format import newer_words
from workbench.run_tags import tags_of
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from engine.run.config import RunConfig
    from engine.run.metrics_log import MetricsLine

ALIVE = ("queued", "preparing", "running", "stopping", "orphaned")
RESUMABLE = ("stopped", "failed", "interrupted", "orphaned", "unknown-here")
"""`resume` waits for an orphan to end, and takes over what another host left."""
STATE_MARKS = {
    "queued": "…", "preparing": "●", "running": "●", "stopping": "●", "done": "✓", "stopped": "■", "failed": "✗",
    "damaged": "✗", "imported": "▼", "interrupted": "▲", "orphaned": "▲", "unknown-here": "▲",
}  # fmt: skip
STATE_TONES = {
    "queued": "faint", "preparing": "busy", "running": "busy", "stopping": "busy", "done": "good", "failed": "bad",
    "damaged": "bad", "interrupted": "bad", "orphaned": "bad",
}  # fmt: skip
"""The mark and the colour that repeat a state, the same on every screen."""
NAME_CHARACTERS = 30
"""Of a name, in an ID."""
EXIT_CODES = {"done": 0, "imported": 0, "stopped": 3}
_ID = re.compile(r"\d{4}-(?P<method>[a-z]+)-(?P<name>.+)-[0-9a-z]{3}")
_CREATED = re.compile(rb'^created = "([^"\n]*)"', re.MULTILINE)
_NAME = re.compile(rb'^name = "([^"\n]*)"', re.MULTILINE)
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Run:
    """One run of a workspace, read from its folder."""

    folder: RunFolder
    workspace: Workspace

    @property
    def id(self) -> str:
        """The folder's name, which is what a person types."""
        return self.folder.path.name

    @property
    def name(self) -> str:
        """The part of the ID that a person chose, or, where nobody did, that says which model it is of."""
        found = _ID.fullmatch(self.id)
        return found["name"] if found else self.id

    @property
    def method(self) -> str:
        """sft, reward, dpo …; empty for a folder with a foreign name."""
        found = _ID.fullmatch(self.id)
        return found["method"] if found else ""

    @property
    def created(self) -> str:
        """ISO 8601 from run.toml, read without parsing it all; empty where it is damaged."""
        return self._written(_CREATED)

    @property
    def given_name(self) -> str:
        """What --name said, whole, from run.toml in the same way; empty where it was not given."""
        return self._written(_NAME)

    def _written(self, key: re.Pattern[bytes]) -> str:
        """A key of [run], which stands first in run.toml."""
        try:
            with open(self.folder.config_path, "rb") as stream:
                found = key.search(stream.read(_HEAD_BYTES))
        except OSError:
            return ""
        return found[1].decode("utf-8", "replace") if found else ""

    def config(self) -> RunConfig:
        """Everything that was set for this run."""
        from engine.run.config_toml import read_config

        return read_config(self.folder.config_path)

    def status(self) -> Status | None:
        """status.json as it is now; None before the first one is written, or where it is damaged."""
        return read_status(self.folder)

    def state(self) -> RunState:
        """What the run is doing, by its locks and its status."""
        return describe(self.folder)

    def metrics(self) -> Sequence[MetricsLine]:
        """One line a step; the last attempt of a step counts."""
        from engine.run.metrics_log import read_metrics

        return read_metrics(self.folder.metrics_path)

    def events(self) -> Sequence[dict[str, Any]]:
        """What happened to the run, in order."""
        from engine.run.events import read_events

        return read_events(self.folder)

    def checkpoint_steps(self) -> list[int]:
        """Steps of the whole checkpoints."""
        return self.folder.checkpoint_steps()


@dataclass(frozen=True)
class RunSummary:
    """What a list says of one run."""

    id: str
    method: str
    name: str
    created: str
    """ISO 8601, UTC; empty where run.toml is damaged."""
    state: str
    reason: str
    """Why it is in that state, where there is something to say."""
    step: int
    total_steps: int
    """0 while it is not known yet."""
    seconds_left: float | None
    steps_per_s: float | None
    device: str
    last: dict[str, float]
    """The last metrics the worker reported."""
    best: dict[str, Any] | None
    """{"step", "metric", "value"} where the run selects a checkpoint."""
    note: str = ""
    """What a person should know of how it runs, as its worker says; or that a newer version wrote it."""
    alarm: str = ""
    """Which alarms stand, since when and what to do; empty where none does."""
    tags: tuple[str, ...] = ()
    """What a person put on it."""


def all_runs(workspace: Workspace) -> list[Run]:
    """Every run, the oldest first."""
    runs = [Run(RunFolder(workspace.runs / name), workspace) for name in workspace.names("runs")]
    return sorted(runs, key=_by_age)


def find_run(workspace: Workspace, reference: str, *, by_model: bool = True) -> Run:
    """The run that `reference` means: "-", an ID, a given name, a unique beginning of an ID, in this order; last, with
    `by_model`, the model that an unnamed run is called after.

    `run:` before it, as in --model run:ID, is left out. Raises NotFound where there is none, UsageError where there
    are several (they are listed).
    """
    reference = reference.removeprefix("run:")
    names = workspace.names("runs")
    if not names:
        raise NotFound(f"no runs in {workspace.root} yet; start one with: workbench train")
    if reference == "-":
        return max((_run(workspace, name) for name in names), key=_by_age)
    if reference in names:
        return _run(workspace, reference)
    called = [name for name in names if name_in_id(reference) == _run(workspace, name).name]
    for kind, matches in (
        ("named", [name for name in called if _run(workspace, name).given_name == reference]),
        ("that begin with", [name for name in names if reference and name.startswith(reference)]),
        ("called after", called if by_model else []),
    ):
        if len(matches) == 1:
            return _run(workspace, matches[0])
        if matches:
            listed = ", ".join(matches[:6]) + (" …" if len(matches) > 6 else "")
            raise UsageError(f"{len(matches)} runs {kind} {reference}: {listed}. Type more of the ID.")
    raise NotFound(f"no run {reference!r} in {workspace.root}; see: workbench runs ls")


def name_in_id(name: str) -> str:
    """What of a name stands in a run's ID."""
    return name[:NAME_CHARACTERS].rstrip(".-_")


def summarise(run: Run) -> RunSummary:
    """The state of one run, from its status and its locks."""
    state = run.state()
    status = state.status
    return RunSummary(
        id=run.id,
        method=run.method,
        name=run.name,
        created=run.created,
        state=state.state,
        reason=state.reason,
        step=status.step if status else 0,
        total_steps=status.total_steps if status else 0,
        seconds_left=status.seconds_left if status and state.state in ALIVE else None,
        steps_per_s=status.steps_per_s if status else None,
        device=status.device if status else "",
        last={name: value for name, value in status.last.items() if value is not None} if status else {},
        best=dict(status.best) if status and status.best else None,
        note=newer_words(run.folder, status) or (status.note if status else ""),
        alarm=status.alarm if status else "",
        tags=tags_of(run.folder),
    )


def require_alive(run: Run) -> None:
    """Raises WorkbenchError where the run is not running."""
    state = run.state()
    if state.state not in ALIVE:
        raise WorkbenchError(
            f"run {run.id} is not running: {state.state}{f' ({state.reason})' if state.reason else ''}"
        )


def age(created: str, now: datetime) -> str:
    """How long ago an ISO 8601 time was, in one unit: 40s, 5m, 3h, 12d; "-" where it is unknown."""
    try:
        seconds = (now - datetime.fromisoformat(created)).total_seconds()
    except (ValueError, TypeError):
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def exit_code_of(state: str) -> int:
    """The exit code that `--wait` gives for a run that has ended in `state`."""
    return EXIT_CODES.get(state, 1)


def _by_age(run: Run) -> tuple[str, str]:
    return run.created, run.id


def _run(workspace: Workspace, name: str) -> Run:
    return Run(RunFolder(Path(workspace.runs / name)), workspace)
