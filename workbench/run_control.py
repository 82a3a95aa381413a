"""Stopping and resuming runs, for the command line and the screens alike.

Owns which states allow what, and the words of the refusals. Refuses to wait.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from engine.run.config_alarms import PREFIX
from workbench.errors import UsageError, WorkbenchError
from workbench.newer_format import newer_words
from workbench.run_list import ALIVE, RESUMABLE, Run, require_alive


def stop_run(run: Run) -> None:
    """Ask the run to finish its step, write a checkpoint and end. Raises where it is not running."""
    from engine.run.control import request
    from engine.run.events import append_event

    run.workspace.require_writable()
    require_alive(run)
    request(run.folder, "stop")
    if run.config().run.imported:
        return  # who follows it ends; the other program goes on
    append_event(run.folder, "stop_requested")


def prepare_resume(run: Run, gpus: Sequence[int] = (), changes: Collection[str] = ()) -> None:
    """Make sure that the run can go on here, and take back an old request to stop. Start it with `start_run` then.

    `changes` are the settings that will be changed before it goes on.
    """
    from engine.rewards.frozen import approved_functions
    from engine.run.control import clear
    from workbench.launch_device import choose_device

    run.workspace.require_writable()
    state = run.state()
    if state.state in ALIVE and state.state not in RESUMABLE:
        raise WorkbenchError(
            f"run {run.id} is {state.state if state.state == 'queued' else 'running'} already; watch it with: "
            f"workbench runs watch {run.id}"
        )
    if state.state not in RESUMABLE:
        why = {
            "done": "it reached its end; start another run from its checkpoint with --model run:" + run.id,
            "imported": "another program trained it, and only its numbers are here; read them on with: "
            f"workbench runs import {run.config().run.imported.partition(':')[2]}",
        }
        raise WorkbenchError(f"run {run.id} cannot be resumed: {why.get(state.state, f'it is {state.state}')}")
    if newer := newer_words(run.folder, state.status):
        raise WorkbenchError(f"run {run.id} cannot be resumed: it was {newer}")
    _require_alarm_is_answered(run, changes)
    train = run.config().train
    if gpus and train.device == "cpu":
        raise UsageError(f"run {run.id} trains on the CPU; --gpus has no meaning for it")
    if gpus and len(gpus) != train.processes:
        raise UsageError(
            f"run {run.id} trains with {train.processes} {'process' if train.processes == 1 else 'processes'}, one on "
            f"each GPU, and goes on with as many; --gpus names {len(gpus)}. Or: workbench runs clone {run.id} --gpus …"
        )
    choose_device(train.device, gpus, processes=train.processes)
    if (rewards := run.config().rewards).functions:
        approved_functions(rewards, run.folder.rewards)
    clear(run.folder, "stop")


def _require_alarm_is_answered(run: Run, changes: Collection[str]) -> None:
    """What an alarm has paused goes on as it is; what one has stopped needs another word about that alarm."""
    status = run.status()
    by = status.stopped_by if status else None
    if not by or by.get("action") != "stop":
        return
    section = f"{PREFIX}{by.get('alarm')}"
    if not any(change.startswith(f"{section}.") for change in changes):
        raise WorkbenchError(
            f"run {run.id} was stopped by the alarm {by.get('alarm')}. What it means and what to do: workbench runs "
            f"show {run.id}. To go on all the same: workbench runs resume {run.id} --set {section}.on_alarm=note"
        )
