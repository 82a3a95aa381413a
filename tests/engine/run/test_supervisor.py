"""A run is started, stopped, killed, restarted: what it says of itself is true each time."""

from __future__ import annotations

import os
import pty
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import ConfigError, RunFolderError
from engine.run import control
from engine.run.detached_start import import_root, start_detached
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.locks import hold, is_held
from engine.run.metrics_log import read_metrics
from engine.run.status import describe, new_status, read_status, write_status
from engine.run.supervisor import Patience, main, run_supervised
from tests.engine.run.fake_worker import loss_of
from tests.engine.run.run_processes import fake_worker, supervisor_pid, wait_until, worker_pids

MakeRun = Callable[..., RunFolder]
SWIFT = Patience(restart_s=0.0, orphans_s=20.0, look_s=0.05)
FOREVER = {"steps": 100_000}


def step_of(folder: RunFolder) -> int:
    """The step status.json shows now."""
    status = read_status(folder)
    return status.step if status and status.phase != "preparing" else 0


def start(folder: RunFolder, **options: object) -> None:
    """Start detached with a fake worker and wait until it trains."""
    before = read_status(folder)
    begun = before.attempt if before else 0
    start_detached(folder.path, worker=fake_worker(folder, **options))

    def trains() -> bool:
        now = read_status(folder)
        return now is not None and now.attempt > begun and now.phase != "preparing"

    wait_until(trains, "the worker's first step")


def kinds(folder: RunFolder) -> list[str]:
    return [event["kind"] for event in read_events(folder)]


def assert_metrics_whole(folder: RunFolder, steps: int) -> None:
    lines = read_metrics(folder.metrics_path)
    assert [line.step for line in lines] == list(range(1, steps + 1))
    assert [line.metrics["loss"] for line in lines] == [loss_of(step) for step in range(1, steps + 1)]


class TestForeground:
    """`run_supervised` in this process."""

    def test_a_run_that_ends_well_is_done_with_code_0(self, make_run: MakeRun) -> None:
        folder = make_run()
        assert run_supervised(folder.path, worker=fake_worker(folder, steps=10, step_s=0)) == 0
        assert describe(folder).state == "done"
        assert not is_held(folder.lock_path)
        assert not is_held(folder.tree_lock_path)
        assert_metrics_whole(folder, 10)
        assert read_status(folder).attempt == 1  # type: ignore[union-attr]
        assert "supervisor" not in kinds(folder)

    def test_a_stop_request_is_code_3_and_resume_goes_on(self, make_run: MakeRun) -> None:
        folder = make_run()
        assert run_supervised(folder.path, worker=fake_worker(folder, crash_at=3, crash="15", **FOREVER)) == 3
        state = describe(folder)
        assert (state.state, state.reason) == ("stopped", "at step 3; resume continues from step 3")
        assert state.resumable
        assert control.pending(folder, "stop") is None
        assert run_supervised(folder.path, worker=fake_worker(folder, steps=9, step_s=0)) == 0
        assert_metrics_whole(folder, 9)

    @pytest.mark.parametrize(
        ("crash", "what"),
        [
            ("9", "killed by the kernel or by hand (signal 9)"),
            ("11", "died of signal 11 (SIGSEGV)"),
            (
                "untold",
                "exit code 7 and gave no reason; the last line of engine.log is: Traceback: some",
            ),
            ("silent", "ended without having finished"),
            ("told", "the loss was not finite"),
        ],
    )
    def test_every_other_end_is_failed_with_its_reason(self, make_run: MakeRun, crash: str, what: str) -> None:
        folder = make_run()
        assert run_supervised(folder.path, worker=fake_worker(folder, crash_at=7, crash=crash)) == 1
        state = describe(folder)
        assert state.state == "failed"
        assert what in state.reason
        assert "resume continues from step 5" in state.reason
        assert kinds(folder).count("failed") == 1
        assert state.status is not None
        assert state.status.error is not None
        assert state.status.error["remedy"]

    def test_a_crash_after_the_last_word_takes_nothing_back(self, make_run: MakeRun) -> None:
        folder = make_run()
        assert run_supervised(folder.path, worker=fake_worker(folder, crash_at=7, crash="after done")) == 0
        assert describe(folder).state == "done"

    def test_it_restarts_as_often_as_the_config_says(self, make_run: MakeRun) -> None:
        folder = make_run(run={"id": "r1", "restarts": 2})
        worker = fake_worker(folder, steps=12, step_s=0, crash_at=7, crash="9", crash_in_attempts=1)
        assert run_supervised(folder.path, worker=worker, patience=SWIFT) == 0
        assert kinds(folder).count("restarting") == 1
        assert read_status(folder).attempt == 2  # type: ignore[union-attr]
        assert_metrics_whole(folder, 12)

    def test_it_does_not_repeat_the_same_failure_at_the_same_step(self, make_run: MakeRun) -> None:
        folder = make_run(run={"id": "r1", "restarts": 50})
        worker = fake_worker(folder, step_s=0, crash_at=7, crash="told")
        assert run_supervised(folder.path, worker=worker, patience=SWIFT) == 1
        assert kinds(folder).count("restarting") == 1

    def test_what_the_worker_left_running_is_ended(self, make_run: MakeRun) -> None:
        folder = make_run()
        worker = fake_worker(folder, steps=5, step_s=0, grandchild=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("engine.run.worker_process.LEFTOVER_GRACE_S", 0.2)
            assert run_supervised(folder.path, worker=worker) == 0
        assert not is_held(folder.tree_lock_path)
        assert worker_pids(folder) == []

    def test_a_worker_that_does_not_stop_is_killed_in_the_end(self, make_run: MakeRun) -> None:
        folder = make_run()

        def ask() -> None:
            control.request(folder, "stop")

        patience = Patience(stop_s=0.3, look_s=0.05)
        worker = fake_worker(folder, obeys=False, **FOREVER)
        assert run_supervised(folder.path, worker=worker, patience=patience, ready=ask) == 1
        assert "did not stop within" in describe(folder).reason

    def test_a_worker_that_cannot_be_started_is_an_error(self, make_run: MakeRun) -> None:
        folder = make_run()
        with pytest.raises(RunFolderError, match="could not be started"):
            run_supervised(folder.path, worker=["/nonexistent/python"])
        assert not is_held(folder.lock_path)
        assert describe(folder).state == "failed"

    def test_a_torn_config_is_named(self, make_run: MakeRun) -> None:
        folder = make_run()
        folder.config_path.write_text("[run]\nmethod = ")
        with pytest.raises(ConfigError, match=r"run\.toml: not readable as TOML"):
            run_supervised(folder.path, worker=fake_worker(folder))

    def test_a_run_that_beats_on_another_machine_is_left_alone(self, make_run: MakeRun) -> None:
        folder = make_run()
        there = replace(new_status(folder, None, phase="running"), host="gpu-7", boot_id="theirs")
        write_status(folder, there)
        with pytest.raises(RunFolderError, match=r"alive on another machine: it ran on host gpu-7"):
            run_supervised(folder.path, worker=fake_worker(folder))
        write_status(folder, replace(there, heartbeat=there.heartbeat - 3600))
        assert run_supervised(folder.path, worker=fake_worker(folder, steps=1)) == 0

    def test_signal_handlers_are_put_back(self, make_run: MakeRun) -> None:
        folder = make_run()
        before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)]
        run_supervised(folder.path, worker=fake_worker(folder, steps=1))
        assert before == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)]

    def test_wrong_use_is_code_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 2
        assert "usage" in capsys.readouterr().err


class TestSeveralProcesses:
    """A worker of three processes that train together."""

    @pytest.fixture
    def three(self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
        monkeypatch.setattr("engine.run.worker_process.PEER_GRACE_S", 0.2)
        return make_run(train={"device": "cpu", "processes": 3})

    def test_they_are_one_group_with_the_run_s_locks_and_stop_together(self, three: RunFolder) -> None:
        start(three, **FOREVER)
        pids = wait_until(lambda: len(found := worker_pids(three)) == 3 and found, "three processes")
        told = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in pids]
        assert sorted(word for words in told for word in words if word.startswith(b"WORKBENCH_RANK=")) == [
            b"WORKBENCH_RANK=0", b"WORKBENCH_RANK=1", b"WORKBENCH_RANK=2",
        ]  # fmt: skip
        assert len({os.getpgid(pid) for pid in pids}) == 1
        control.request(three, "stop")
        wait_until(lambda: not describe(three).alive, "the end")
        assert describe(three).state == "stopped"

    @pytest.mark.parametrize(
        ("others", "what"),
        [("9", r"process [12] of 3 \(numbered from 0\) was killed"), ("told", "process [12] of 3: out of memory")],
    )
    def test_one_that_fails_ends_the_others_and_is_the_reason(self, three: RunFolder, others: str, what: str) -> None:
        worker = fake_worker(three, others=others, obeys=False, **FOREVER)
        assert run_supervised(three.path, worker=worker, patience=SWIFT) == 1
        assert re.search(what, describe(three).reason)
        assert worker_pids(three) == []

    def test_one_that_only_missed_another_is_not_the_reason(self, three: RunFolder) -> None:
        worker = fake_worker(three, others="11", crash_at=1, crash="peer lost")
        assert run_supervised(three.path, worker=worker, patience=SWIFT) == 1
        assert "(numbered from 0) died of signal 11" in describe(three).reason


class TestDetached:
    """`start_detached`: the supervisor has a session of its own."""

    def test_it_runs_to_its_end_without_us(self, make_run: MakeRun) -> None:
        folder = make_run()
        start(folder, steps=30)
        assert describe(folder).state == "running"
        pid = supervisor_pid(folder)
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0)
        assert os.getsid(pid) != pid, "a session leader could get a controlling terminal"
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        assert os.readlink(f"/proc/{pid}/cwd") == str(import_root())
        assert folder.log_path.stat().st_mode & 0o777 == 0o600
        wait_until(lambda: describe(folder).state == "done", "the end of the run")
        assert_metrics_whole(folder, 30)

    def test_a_second_supervisor_is_refused(self, make_run: MakeRun) -> None:
        folder = make_run()
        start(folder, **FOREVER)
        with pytest.raises(RunFolderError, match="r1 was not started: run r1 is supervised already"):
            start_detached(folder.path, worker=fake_worker(folder))
        with pytest.raises(RunFolderError, match="supervised already"):
            run_supervised(folder.path, worker=fake_worker(folder))
        assert describe(folder).state == "running"

    def test_a_stop_request_right_after_the_start_is_honoured(self, make_run: MakeRun) -> None:
        folder = make_run()
        control.request(folder, "stop")  # From before the start: void.
        start_detached(folder.path, worker=fake_worker(folder, **FOREVER))
        assert control.pending(folder, "stop") is None
        control.request(folder, "stop")
        assert describe(folder).state == "stopping"
        wait_until(lambda: describe(folder).state == "stopped", "the stop")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_is_a_stop_request(self, make_run: MakeRun, number: int) -> None:
        folder = make_run()
        start(folder, **FOREVER)
        pid = supervisor_pid(folder)
        assert pid is not None
        os.kill(pid, number)
        wait_until(lambda: describe(folder).state == "stopped", "the stop")
        assert "stop_requested" in kinds(folder)
        assert folder.checkpoint_steps()[-1] == step_of(folder)

    def test_a_stop_that_meets_a_worker_before_it_listens_is_a_stop(self, make_run: MakeRun) -> None:
        folder = make_run()
        start_detached(folder.path, worker=fake_worker(folder, deaf_s=300.0))
        pid = wait_until(lambda: supervisor_pid(folder), "the supervisor")
        wait_until(lambda: worker_pids(folder), "the worker")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: describe(folder).state == "stopped", "the stop")

    def test_a_terminal_that_dies_changes_nothing(self, make_run: MakeRun) -> None:
        folder = make_run()
        terminal, slave = pty.openpty()
        program = (
            "import os, signal, sys, time\n"
            # A suite that is itself run under nohup hands an ignored SIGHUP down.
            "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
            "os.login_tty(0)\n"
            "from engine.run.detached_start import start_detached\n"
            "start_detached(sys.argv[1], worker=sys.argv[2:])\n"
            "time.sleep(300)\n"
        )
        command = [sys.executable, "-c", program, str(folder.path), *fake_worker(folder, steps=60)]
        starter = subprocess.Popen(command, stdin=slave, cwd=import_root(), stderr=subprocess.DEVNULL)
        os.close(slave)
        wait_until(lambda: step_of(folder) > 2, "the first steps")
        supervisor = supervisor_pid(folder)
        assert supervisor is not None
        os.close(terminal)  # The kernel hangs up: SIGHUP to the session of that terminal.
        assert starter.wait() == -signal.SIGHUP
        for pid in (supervisor, *worker_pids(folder)):
            os.kill(pid, signal.SIGHUP)
        wait_until(lambda: describe(folder).state == "done", "the end of the run")
        assert_metrics_whole(folder, 60)

    def test_a_refusal_reaches_the_starter_in_words(self, make_run: MakeRun, tmp_path: Path) -> None:
        folder = make_run()
        folder.config_path.write_text('[run]\nmethod = "sft"\n[optim]\nlr = -1\n')
        with pytest.raises(RunFolderError, match=r"\[optim\] lr = -1"):
            start_detached(folder.path)
        with pytest.raises(RunFolderError, match="there is no such run"):
            start_detached(tmp_path / "nothing")


class TestKilled:
    """kill -9 of anything leaves a run that says what it is, and goes on."""

    def test_killed_supervisor_leaves_an_orphan_that_ends_gently(self, make_run: MakeRun) -> None:
        folder = make_run()
        start(folder, **FOREVER)
        wait_until(lambda: step_of(folder) > 2, "some steps")
        pid = supervisor_pid(folder)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_held(folder.tree_lock_path), "the orphan's end")
        state = describe(folder)
        assert state.state == "stopped"
        assert folder.checkpoint_steps()[-1] == state.status.step  # type: ignore[union-attr]

    def test_an_orphan_is_called_an_orphan_and_a_new_start_ends_it(self, make_run: MakeRun) -> None:
        folder = make_run()
        start(folder, obeys=False, **FOREVER)
        first = worker_pids(folder)
        pid = supervisor_pid(folder)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        state = wait_until(lambda: (s := describe(folder)).state == "orphaned" and s, "the orphan")
        assert str(first[0]) in state.reason
        assert state.alive
        patience = Patience(orphans_s=0.2, look_s=0.05)
        code = run_supervised(folder.path, worker=fake_worker(folder, steps=1), patience=patience)
        assert code == 0
        assert first[0] not in worker_pids(folder)

    def test_both_killed_is_interrupted_and_names_both_steps(self, make_run: MakeRun) -> None:
        folder = make_run()
        start(folder, **FOREVER)
        wait_until(lambda: step_of(folder) > 5, "some steps")
        kill_all(folder)
        state = describe(folder)
        assert state.state == "interrupted"
        newest = folder.checkpoint_steps()[-1]
        assert state.reason == f"killed at step {step_of(folder)}; resume continues from step {newest}"

    def test_killed_at_random_moments_the_numbers_are_those_of_an_unkilled_run(self, make_run: MakeRun) -> None:
        seed = random.SystemRandom().randrange(2**32)
        assert_survives_kills(make_run(), kills=4, seed=seed)

    @pytest.mark.slow
    def test_killed_a_hundred_times(self, make_run: MakeRun) -> None:
        seed = random.SystemRandom().randrange(2**32)
        assert_survives_kills(make_run(), kills=100, seed=seed)


def kill_all(folder: RunFolder) -> None:
    """kill -9 of worker and supervisor at once, as the kernel does it when a machine dies; waits for the locks."""
    pids = [*worker_pids(folder), *filter(None, [supervisor_pid(folder)])]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_held(folder.lock_path) and not is_held(folder.tree_lock_path), "the locks to be free")


def assert_survives_kills(folder: RunFolder, *, kills: int, seed: int) -> None:
    """Start, kill something at a random step, look, start again … until the run is done."""
    draw = random.Random(seed)
    steps = 12 * kills
    for n in range(kills):
        start(folder, steps=steps, step_s=0.005)
        target = step_of(folder) + draw.randint(1, 8)
        wait_until(lambda t=target: step_of(folder) >= t or not describe(folder).alive, "the moment of the kill")
        victim = draw.choice(["supervisor", "worker", "both"])
        where = f"seed {seed}, kill {n} of the {victim}"
        if victim == "both":
            kill_all(folder)
            expected = {"interrupted", "done"}
        else:
            pids = [supervisor_pid(folder)] if victim == "supervisor" else worker_pids(folder)
            for pid in filter(None, pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            expected = {"stopped", "done"} if victim == "supervisor" else {"failed", "done"}
        state = wait_until(lambda: not (s := describe(folder)).alive and s, f"the end of the run, {where}")
        assert state.state in expected, f"{where}: {state}"
        assert hold_and_let_go(folder), where
        if state.state == "done":
            break
    start_detached(folder.path, worker=fake_worker(folder, steps=steps, step_s=0))
    wait_until(lambda: describe(folder).state == "done", f"the end, seed {seed}")
    assert_metrics_whole(folder, steps)


def hold_and_let_go(folder: RunFolder) -> bool:
    """Whether both locks can be taken."""
    taken = [hold(folder.lock_path), hold(folder.tree_lock_path)]
    for lock in filter(None, taken):
        lock.release()
    return None not in taken
