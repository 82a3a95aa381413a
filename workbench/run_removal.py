"""Deleting a run: what would go, what refers to it, and the removal itself.

Owns the refusals. Invariants: a run that is alive, here or by its word on another machine, is never touched; nor is one
whose checkpoint another run was trained over, because that run could not be loaded any more. The folder leaves the list
in one step: it is renamed to a hidden name and then removed; a rest that a killed process leaves is swept with the
others. What was made with the run (pairs, datasets, arenas) stays and is named.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from engine.errors import EngineError
from engine.run.locks import hold, is_held
from engine.run.reward_models import model_folders, model_sources
from engine.run.status import QUIET_AFTER_S
from workbench.errors import WorkbenchError, explain_os_errors
from workbench.run_list import Run, all_runs
from workbench.terminal_output import counted
from workbench.workspace import Kind

HIDDEN = ".new-gone-"
"""Begins as the hidden folders of a workspace do, so that its sweep takes a rest along."""
_MADE: tuple[tuple[Kind, str, str], ...] = (
    ("datasets", "dataset.toml", "dataset"),
    ("pairs", "pairs.toml", "pair set"),
    ("arena", "pairs.toml", "arena"),
)


@dataclass(frozen=True)
class Removal:
    """What deleting a run would free, and what would stay."""

    run: Run
    freed_bytes: int
    checkpoints: tuple[int, ...]
    """Steps."""
    step: int
    stays: tuple[str, ...]
    """What was made with the run, in words."""

    def words(self) -> str:
        """One sentence for a person."""
        kept = counted(len(self.checkpoints), "checkpoint") if self.checkpoints else "no checkpoint"
        metrics = f", the metrics of {counted(self.step, 'step')}" if self.step else ""
        text = f"{self.freed_bytes / 1e6:,.1f} MB: {kept}{metrics}, its examples."
        return text + (f" What was made with it stays: {', '.join(self.stays)}." if self.stays else "")


def removal_of(run: Run) -> Removal:
    """What deleting `run` means. Raises WorkbenchError where it may not be deleted; touches nothing."""
    _require_dead(run)
    if users := _users_of(run):
        named = ", ".join(users[:4]) + (" …" if len(users) > 4 else "")
        raise WorkbenchError(
            f"run {run.id} is needed: {named} {'was' if len(users) == 1 else 'were'} trained over its checkpoint and "
            "could not be loaded without it. Delete what needs it first"
        )
    status = run.status()
    return Removal(
        run=run,
        freed_bytes=bytes_in(run.folder.path),
        checkpoints=tuple(run.checkpoint_steps()),
        step=status.step if status else 0,
        stays=_made_with(run),
    )


def remove_run(run: Run) -> Removal:
    """Delete the run; what was freed. Raises as `removal_of`, and ReadOnly."""
    run.workspace.require_writable()
    removal = removal_of(run)
    path = run.folder.path
    with explain_os_errors(f"deleting run {run.id}", path):
        # Whoever starts the run in this moment finds its lock taken, and then no folder.
        lock = hold(run.folder.lock_path)
        if lock is None:
            raise WorkbenchError(f"run {run.id} has been started in this moment; stop it first")
        try:
            if is_held(run.folder.tree_lock_path):
                raise WorkbenchError(f"processes of run {run.id} are still alive; see: workbench runs show {run.id}")
            hidden = hidden_name(path)
            os.rename(path, hidden)
        finally:
            lock.release()
        shutil.rmtree(hidden)
    return removal


def _require_dead(run: Run) -> None:
    state = run.state()
    if state.alive:
        raise WorkbenchError(f"run {run.id} is {state.state}; stop it first: workbench runs stop {run.id}")
    if state.state == "unknown-here" and state.status and time.time() - state.status.heartbeat < QUIET_AFTER_S:
        raise WorkbenchError(f"run {run.id} seems to be alive on another machine: {state.reason}")


def _users_of(run: Run) -> list[str]:
    """Runs whose model or reward model is a checkpoint of this one."""
    users = []
    for other in all_runs(run.workspace):
        if other.id == run.id:
            continue
        try:
            config = other.config()
        except (EngineError, OSError):
            continue  # a torn run.toml names nothing, and such a run cannot be used in any case
        if any(source.partition("@")[0] == f"run:{run.id}" for source in model_sources(config)) or any(
            _lies_in(run, path) for path in model_folders(config)
        ):
            users.append(other.id)
    return users


def _lies_in(run: Run, written: str) -> bool:
    return Path(os.path.abspath(run.workspace.resolve(written))).is_relative_to(run.folder.path)


def _made_with(run: Run) -> tuple[str, ...]:
    """Datasets, pair sets and arenas whose description names the run."""
    wanted = f"run:{run.id}".encode()
    found = []
    for kind, file, noun in _MADE:
        for name in run.workspace.names(kind):
            try:
                content = (run.workspace.folder(kind) / name / file).read_bytes()
            except OSError:
                continue
            if wanted in content:
                found.append(f"{noun} {name}")
    return tuple(found)


def hidden_name(path: Path) -> Path:
    """What a folder is renamed to before it is removed, so that it leaves its list in one step."""
    return path.with_name(f"{HIDDEN}{path.name}-{secrets.token_hex(4)}")


def bytes_in(folder: Path) -> int:
    """What deleting a folder frees: not a file that has a name elsewhere, too, as frozen examples have."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                found = os.lstat(os.path.join(place, name))
            except OSError:
                continue
            total += found.st_size if found.st_nlink == 1 else 0
    return total
