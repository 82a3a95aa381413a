"""What a person may ask of a run on any screen that shows one: stop it, or let it go on.

Owns the question before a stop, and that both are done in a thread. Nothing here waits for the run.
"""

from __future__ import annotations

from collections.abc import Callable

from screens.modals import Choice, Question
from screens.station import Station
from screens.tasks import Task
from workbench.run_list import Run


def ask_to_stop(station: Station, run: Run, then: Callable[[str], None], *, waits: bool = False) -> None:
    """Ask, and stop the run after a yes; `waits` says that it is still in the queue. `then` is told what was done."""
    from workbench.run_control import stop_run

    details = (
        "It leaves the queue; it has not begun."
        if waits
        else "It finishes its step, writes a checkpoint and ends; R resumes it."
    )

    def stop(answer: str | None) -> None:
        if answer:
            station.start_task(
                f"stopping {run.id}", lambda task: stop_run(run), lambda _: then(f"{run.id} was asked to stop")
            )

    station.app.push_screen(Question(f"Stop {run.id}?", [Choice("S", "stop it")], details=details), stop)


def resume(station: Station, run: Run, then: Callable[[str], None]) -> None:
    """Let the run go on from its newest checkpoint."""
    from workbench.run_control import prepare_resume
    from workbench.run_launch import start_run

    def work(task: Task) -> None:
        prepare_resume(run)
        task.check()
        start_run(run)

    station.start_task(f"resuming {run.id}", work, lambda _: then(f"{run.id} goes on"))
