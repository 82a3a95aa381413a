"""A queued run begins when its device is free, in order, whoever is killed, and without any process but supervisors."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import DeviceTaken
from engine.run import control, run_queue
from engine.run.detached_start import start_detached
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.locks import hold
from engine.run.run_queue import join, take_turn
from engine.run.status import describe, new_status, read_status, write_status
from engine.run.supervisor import run_supervised
from tests.engine.run.run_processes import fake_worker, supervisor_pid, wait_until, worker_pids

MakeRun = Callable[..., RunFolder]
FOREVER = {"steps": 100_000}


def state_of(folder: RunFolder) -> str:
    return describe(folder).state


def begin(folder: RunFolder, *, queued: bool = False, **options: object) -> RunFolder:
    """Start a run with a fake worker; a queued one is waited for until it says what it waits for."""
    start_detached(folder.path, worker=fake_worker(folder, **options), queued=queued)
    if queued:
        wait_until(lambda: read_status(folder).waits_for or state_of(folder) != "queued", "its place")  # type: ignore[union-attr]
    else:
        wait_until(lambda: state_of(folder) == "running", "the first step")
    return folder


def test_a_free_device_lets_a_queued_run_begin_at_once(make_run: MakeRun) -> None:
    folder = make_run()
    assert run_supervised(folder.path, worker=fake_worker(folder, steps=3, step_s=0), queued=True) == 0
    assert state_of(folder) == "done"
    status = read_status(folder)
    assert status is not None
    assert (status.attempt, status.queued, status.waits_for) == (1, 0.0, "")
    assert read_events(folder)[0]["kind"] == "queued"


def test_the_queue_is_first_come_first_served(make_run: MakeRun) -> None:
    first = begin(make_run("r1"), **FOREVER)
    # The later one has the smaller name: only the time at which a run joined counts.
    second = begin(make_run("r9"), queued=True, steps=3)
    third = begin(make_run("r2"), queued=True, steps=3)
    assert describe(second).reason == "it waits for run r1 to end"
    assert describe(third).reason == "it waits for run r1 to end"
    assert describe(second).alive
    control.request(first, "stop")
    wait_until(lambda: state_of(third) == "done", "the end of the last run")
    assert state_of(second) == "done"
    begun = [read_events(folder)[1]["time"] for folder in (second, third)]
    assert [read_events(folder)[1]["kind"] for folder in (second, third)] == ["started", "started"]
    assert begun[0] < begun[1]


def test_what_is_before_it_in_the_queue_is_named(make_run: MakeRun) -> None:
    folders = [make_run(name) for name in ("r1", "r2", "r3")]
    locks = [hold(folder.lock_path) for folder in folders]
    for folder in folders:
        join(folder)
    assert not take_turn(folders[2], "cpu", lambda: None)
    assert describe(folders[2]).reason == "it waits for run r2, which is before it in the queue"
    for lock in locks:
        assert lock is not None
        lock.release()


def test_a_killed_run_lets_the_next_one_begin(make_run: MakeRun) -> None:
    first = begin(make_run("r1"), **FOREVER)
    second = begin(make_run("r2"), queued=True, steps=3)
    third = begin(make_run("r3"), queued=True, steps=3)
    for pid in (supervisor_pid(second), supervisor_pid(first)):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    # The orphan of the first one writes its checkpoint, or is killed with it: either way the third begins.
    for pid in worker_pids(first):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: state_of(third) == "done", "the third run's end")
    state = describe(second)
    assert (state.state, state.reason) == (
        "interrupted", "killed while it was queued; resume begins at the start",
    )  # fmt: skip
    assert state.resumable
    assert "started" not in [event["kind"] for event in read_events(second)]


def test_an_orphaned_worker_still_has_the_device(make_run: MakeRun) -> None:
    first = begin(make_run("r1"), obeys=False, grandchild=True, **FOREVER)
    pid = supervisor_pid(first)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: state_of(first) == "orphaned", "the orphan")
    second = begin(make_run("r2"), queued=True, steps=3)
    assert state_of(second) == "queued"


@pytest.mark.parametrize("how", ["request", "signal"])
def test_a_queued_run_is_stopped_without_having_begun(make_run: MakeRun, how: str) -> None:
    begin(make_run("r1"), **FOREVER)
    second = begin(make_run("r2"), queued=True, steps=3)
    if how == "request":
        control.request(second, "stop")
    else:
        pid = supervisor_pid(second)
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not describe(second).alive, "the end of the queued run")
    assert state_of(second) == "stopped"
    assert [event["kind"] for event in read_events(second)] == ["queued", "stopped"]
    assert control.pending(second, "stop") is None


def test_a_run_of_another_device_does_not_wait(make_run: MakeRun) -> None:
    other = make_run("r1", train={"device": "cuda"})
    lock = hold(other.lock_path)
    assert lock is not None
    folder = make_run("r2")
    assert run_supervised(folder.path, worker=fake_worker(folder, steps=2, step_s=0), queued=True) == 0
    lock.release()


def test_on_a_gpu_the_lease_decides(make_run: MakeRun) -> None:
    training, waiting = make_run("r1", train={"device": "cuda"}), make_run("r2", train={"device": "cuda"})
    lock, own = hold(training.lock_path), hold(waiting.lock_path)
    assert lock is not None
    assert own is not None
    write_status(training, new_status(training, None, phase="running"))
    join(waiting)

    def taken() -> None:
        raise DeviceTaken("no GPU is free: GPU x is leased by process 7. Wait for one, or use --device cpu")

    assert not take_turn(waiting, "cuda", taken)
    assert describe(waiting).reason == "it waits for a GPU: no GPU is free: GPU x is leased by process 7"
    assert take_turn(waiting, "cuda", lambda: None)
    lock.release()
    own.release()


def test_who_looks_keeps_the_others_out(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    join(folder)
    lock = hold(tmp_path / run_queue.LOCK_NAME)
    assert lock is not None
    assert not take_turn(folder, "cpu", lambda: pytest.fail("it began"))
    lock.release()


def test_a_run_that_joins_again_has_the_place_that_it_had(make_run: MakeRun) -> None:
    folder = make_run()
    first = join(folder)
    write_status(folder, new_status(folder, read_status(folder), phase="preparing"))
    assert join(folder, first.queued).queued == first.queued
    assert [event["kind"] for event in read_events(folder)] == ["queued"]
