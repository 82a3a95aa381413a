"""The supervisor: one process per run that outlives every terminal and says truthfully how the run ended.

`python -m engine.run.supervisor RUN_DIR` supervises in the foreground; `engine.run.detached_start` does the same in a
session of its own. Owns supervisor.lock, the leases of the run's GPUs, the worker's life, and the last word in
status.json where the worker could not say it. Invariants: one supervisor per run; when its lock is free, no process of
the run is left but orphans, which tree.lock shows; a final phase is written before the lock is let go; no GPU is held
while data is prepared. The worker is imported nowhere here. Exit codes: 0 done, 3 stopped, 1 failed.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import DeviceTaken, EngineError, RunFolderError
from engine.run import control
from engine.run.config import RunConfig
from engine.run.config_toml import read_config
from engine.run.detached_start import READY, REFUSED, import_root
from engine.run.events import append_event, read_events
from engine.run.folder import RunFolder
from engine.run.gpus import HeldLocks, lease_for_run, needs_lease
from engine.run.locks import HeldLock, hold
from engine.run.mirror import start_mirrors
from engine.run.run_queue import join, take_turn
from engine.run.safe_text import safe
from engine.run.signals import SignalInbox
from engine.run.status import FINAL_PHASES, QUIET_AFTER_S, describe, new_status, read_status, write_status
from engine.run.verdict import Verdict, judge
from engine.run.worker_process import PREPARE, WorkerEnd, WorkerProcess, claim_tree, kills_for_memory, last_line

EXIT_CODES = {"done": 0, "stopped": 3, "failed": 1}


@dataclass(frozen=True)
class Patience:
    """How long the supervisor waits."""

    stop_s: float = 900.0
    """From a stop request to SIGKILL: the time to finish a step and write a large checkpoint."""
    orphans_s: float = 60.0
    """For the processes of an earlier attempt to write their checkpoint and end."""
    restart_s: float = 1.0
    """Between a worker's death and the next attempt."""
    look_s: float = 1.0
    """Between looks at the control folder and at the queue; a worker's end is noticed at once."""


def run_supervised(
    run_dir: str | os.PathLike[str],
    *,
    worker: Sequence[str] | None = None,
    preparation: Sequence[str] | None = None,
    patience: Patience | None = None,
    ready: Callable[[], None] = lambda: None,
    queued: bool = False,
) -> int:
    """Supervise the run to its end in this process and return the exit code. Call it from the main thread.

    `worker` is the argv of the worker, by default `python -m engine.train RUN_DIR`, and `preparation` that of a process
    that makes its data ready before a GPU is leased, by default the same with `--prepare`; for a worker that is given
    there is none by default. `ready` is called once the run is this process's own. With `queued` it waits for its turn
    first (`engine.run.run_queue`). Raises EngineError where it cannot be started; then status.json is as it was.
    """
    folder = RunFolder(Path(run_dir).absolute())
    if not folder.path.is_dir():
        raise RunFolderError(f"{folder.path} is no folder: there is no such run")
    config = read_config(folder.config_path)
    state = describe(folder)
    if state.state == "unknown-here" and state.status and time.time() - state.status.heartbeat < QUIET_AFTER_S:
        raise RunFolderError(f"run {folder.id} seems to be alive on another machine: {state.reason}")
    lock = hold(folder.lock_path)
    if lock is None:
        raise RunFolderError(f"run {folder.id} is supervised already: it is running or stopping. Stop it first")
    try:
        if worker is None:
            worker = [sys.executable, "-m", "engine.train", str(folder.path)]
            preparation = preparation or [*worker, PREPARE]
        with SignalInbox() as inbox:
            supervision = _Supervision(folder, config, list(worker), patience or Patience(), inbox)
            return supervision.run(ready, list(preparation or ()), queued=queued)
    finally:
        lock.release()


class _Supervision:
    """One supervisor's work on one run, from the lock to the final phase."""

    def __init__(
        self, folder: RunFolder, config: RunConfig, argv: list[str], patience: Patience, inbox: SignalInbox
    ) -> None:
        self._folder = folder
        self._config = config
        self._argv = argv
        self._patience = patience
        self._inbox = inbox
        self._leases: HeldLocks | None = None
        self._environment = dict(os.environ)
        # Threads that spin while they wait for each other take the core from the one that works: on a machine shared
        # with anything else that made a step up to ten times slower.
        self._environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self._shown: dict[str, str] = {}
        """What the worker's environment needs beside that to see its GPUs."""
        self._attempt_number = 0
        self._mirrored = False
        self._ours = False
        """Whether this run's status is ours to write."""
        self._last_failure: tuple[object, ...] = ()

    def run(self, ready: Callable[[], None], preparation: list[str], *, queued: bool = False) -> int:
        """The plan: make the run ours, make its data ready, then attempt after attempt until a verdict stands."""
        tree = claim_tree(self._folder, grace_s=self._patience.orphans_s, say=_say)
        try:
            joined = 0.0
            if queued:
                self._clear_requests()
                joined = self._join_queue()
            else:
                self._take_devices()
                self._clear_requests()
                self._begin_attempt()
            ready()
            if preparation and needs_lease(self._config.train.device):
                self._let_go_of_devices()
                if verdict := self._prepare(tree, preparation):
                    return EXIT_CODES[verdict.phase]
                tree = claim_tree(self._folder, grace_s=self._patience.orphans_s, say=_say)
                if queued or not self._devices_are_free():
                    queued = True
                    self._join_queue(joined)
            if queued and not self._wait_for_turn():
                self._tell(Verdict("stopped", told=False))
                control.clear(self._folder, "stop")
                return EXIT_CODES["stopped"]
            restarts = 0
            while True:
                verdict = self._attempt(tree)
                if not self._tries_again(verdict, restarts):
                    return EXIT_CODES[verdict.phase]
                restarts += 1
                tree = claim_tree(self._folder, grace_s=self._patience.orphans_s, say=_say)
                self._begin_attempt()
        except Exception as error:
            if self._ours:
                self._tell(
                    Verdict("failed", f"its supervisor failed: {error}", "see the end of engine.log", told=False)
                )
            raise
        finally:
            tree.release()
            self._let_go_of_devices()

    def _take_devices(self) -> None:
        train = self._config.train
        self._leases, self._shown = lease_for_run(train.device, self._environment, train.processes)

    def _let_go_of_devices(self) -> None:
        if self._leases is not None:
            self._leases.release()
            self._leases = None

    def _devices_are_free(self) -> bool:
        """Take the devices once the data is ready; False where another run has taken them since the start."""
        try:
            self._take_devices()
        except DeviceTaken as taken:
            _say(f"the run queues: {taken}")
            return False
        return True

    def _clear_requests(self) -> None:
        """Requests from before the run was ours are void; those made from `ready` on count."""
        for what in control.REQUESTS:
            control.clear(self._folder, what)

    def _join_queue(self, since: float = 0.0) -> float:
        """Wait in the queue from now on, or again in the place of `since`; since when."""
        status = join(self._folder, since)
        self._attempt_number, self._ours = status.attempt, True
        return status.queued

    def _wait_for_turn(self) -> bool:
        """Park until the turn comes and the attempt has begun; False where the run was asked to stop first."""

        def begin() -> None:
            self._take_devices()
            self._begin_attempt()

        while not self._stop_wanted():
            if take_turn(self._folder, self._config.train.device, begin):
                return True
            self._inbox.wait(self._patience.look_s)
        return False

    def _begin_attempt(self) -> None:
        """Say in status.json that a new attempt begins."""
        status = new_status(self._folder, read_status(self._folder), phase="preparing")
        number = status.attempt + 1
        write_status(self._folder, replace(status, attempt=number))
        self._attempt_number, self._ours = number, True
        if not self._mirrored:
            self._mirrored = True
            start_mirrors(self._folder, self._config, import_root())

    def _prepare(self, tree: HeldLock, argv: list[str]) -> Verdict | None:
        """Make the run's data ready in a process that holds no GPU; the verdict where the run ends with that."""
        hidden = {**self._environment, "CUDA_VISIBLE_DEVICES": ""}
        worker = WorkerProcess(argv, self._folder, tree, environment=hidden, working_folder=import_root())
        return self._see_to_its_end(worker, "data")

    def _attempt(self, tree: HeldLock) -> Verdict:
        """Run one worker to its end; the verdict is in status.json when this returns."""
        worker = WorkerProcess(
            self._argv,
            self._folder,
            tree,
            processes=self._config.train.processes,
            leases=self._leases.descriptors if self._leases else (),
            environment={**self._environment, **self._shown},
            working_folder=import_root(),
        )
        verdict = self._see_to_its_end(worker, "worker")
        assert verdict is not None
        return verdict

    def _see_to_its_end(self, worker: WorkerProcess, what: str) -> Verdict | None:
        """Wait for the end of a worker; the verdict is in status.json then. None where data is ready and no more."""
        kills_before = kills_for_memory()
        pids = ", ".join(map(str, worker.pids))
        _say(f"attempt {self._attempt_number}: {what} {pids} started")
        lost_patience = self._wait_for(worker)
        end = worker.reap()
        _say(f"attempt {self._attempt_number}: {what} {pids} ended with {end.code}")
        status = read_status(self._folder)
        if what == "data" and end.code == 0 and status is not None and status.phase not in FINAL_PHASES:
            return None
        verdict = judge(
            end.code,
            status,
            attempt=self._attempt_number,
            stop_wanted=self._stop_wanted(),
            killed_after_stop_s=self._patience.stop_s if lost_patience else None,
            memory_ran_out=kills_for_memory() > kills_before,
            last_log_line=last_line(self._folder.log_path),
            who=self._named(end) if what == "worker" else "the process that prepares its data",
            said_elsewhere=self._said_by_others(),
        )
        if not verdict.told:
            self._tell(verdict)
        if verdict.phase != "failed":
            # Carried out, or overtaken by the end.
            control.clear(self._folder, "stop")
        return verdict

    def _named(self, end: WorkerEnd) -> str:
        many = self._config.train.processes
        return "the worker" if many == 1 else f"process {end.rank} of {many} (numbered from 0)"

    def _said_by_others(self) -> str:
        """Why a process of this attempt failed that does not lead and so has no status to write it in."""
        for event in reversed(read_events(self._folder)):
            if event["kind"] == "failed" and event.get("rank") and event.get("attempt") == self._attempt_number:
                return f"process {event['rank']} of {self._config.train.processes}: {event.get('what', '')}"
        return ""

    def _wait_for(self, worker: WorkerProcess) -> bool:
        """Wait for the worker's end, passing on requests to stop. True where patience ran out and it was killed."""
        passed_on = False
        deadline: float | None = None
        while not worker.ended():
            if self._inbox.stop_asked and not passed_on:
                passed_on = True
                self._request_stop()
                worker.ask_to_stop()
            if deadline is None and self._stop_wanted():
                deadline = time.monotonic() + self._patience.stop_s
            if deadline is not None and time.monotonic() > deadline:
                worker.kill()
                while not worker.ended():
                    self._inbox.wait(self._patience.look_s)
                return True
            self._inbox.wait(self._patience.look_s)
        return False

    def _tries_again(self, verdict: Verdict, restarts: int) -> bool:
        """Whether another attempt follows; waits a moment before it. The same failure at the same step is final."""
        if verdict.phase != "failed" or restarts >= self._config.run.restarts or self._stop_wanted():
            return False
        status = read_status(self._folder)
        failure = (verdict.what, status.step if status else 0, tuple(self._folder.checkpoint_steps()))
        if failure == self._last_failure:
            _say("the same failure at the same step: another attempt would end alike")
            return False
        self._last_failure = failure
        append_event(self._folder, "restarting", attempt=self._attempt_number, what=verdict.what, restart=restarts + 1)
        deadline = time.monotonic() + self._patience.restart_s
        while not self._stop_wanted() and (left := deadline - time.monotonic()) > 0:
            self._inbox.wait(min(left, self._patience.look_s))
        return not self._stop_wanted()

    def _stop_wanted(self) -> bool:
        return self._inbox.stop_asked or control.pending(self._folder, "stop") is not None

    def _request_stop(self) -> None:
        """Write the request down, so that viewers see it; the signal alone does on a full disk."""
        try:
            control.request(self._folder, "stop", by="signal")
            append_event(self._folder, "stop_requested", by="signal")
        except RunFolderError as error:
            _say(str(error))

    def _tell(self, verdict: Verdict) -> None:
        """Write a verdict that the worker could not write. On a full disk the run's reserve is given up for it."""
        status = new_status(self._folder, read_status(self._folder), phase=verdict.phase)
        error = {"what": verdict.what, "remedy": verdict.remedy} if verdict.what else None
        status = replace(status, attempt=self._attempt_number, error=error)
        for last_try in (False, True):
            try:
                write_status(self._folder, status)
                append_event(self._folder, verdict.phase, attempt=self._attempt_number, what=verdict.what)
                return
            except RunFolderError as fault:
                _say(str(fault))
                if last_try:
                    return
                with suppress(OSError):
                    self._folder.reserve_path.unlink(missing_ok=True)


def main(argv: list[str] | None = None) -> int:
    """`python -m engine.run.supervisor RUN_DIR [--ready-fd N] [--queued] [-- WORKER …]`; the descriptor detaches it."""
    given = sys.argv[1:] if argv is None else argv
    split = given.index("--") if "--" in given else len(given)
    arguments, worker = given[:split], given[split + 1 :] or None
    queued = arguments[-1:] == ["--queued"]
    arguments = arguments[:-1] if queued else arguments
    ready_fd = -1
    if len(arguments) == 3 and arguments[1] == "--ready-fd" and arguments[2].isdigit():
        ready_fd = int(arguments[2])
    elif len(arguments) != 1:
        print("usage: python -m engine.run.supervisor RUN_DIR [--queued]", file=sys.stderr)
        return 2
    if ready_fd >= 0:
        os.set_inheritable(ready_fd, False)
        if os.fork() > 0:
            # The supervisor is thereby no session leader and can never get a controlling terminal.
            os._exit(0)

    def reply(text: str) -> None:
        nonlocal ready_fd
        if ready_fd >= 0:
            with suppress(OSError):
                os.write(ready_fd, text.encode("utf-8", "replace"))
            os.close(ready_fd)
            ready_fd = -1

    try:
        return run_supervised(arguments[0], worker=worker, ready=lambda: reply(READY), queued=queued)
    except EngineError as error:
        _say(str(error))
        reply(f"{REFUSED}{error}")
        return 1
    except Exception as error:
        # The last resort: the log must hold the traceback, and a waiting starter must hear of it.
        traceback.print_exc()
        reply(f"{REFUSED}{type(error).__name__}: {error}")
        return 1


def _say(text: str) -> None:
    """A line for engine.log, or for the terminal of a foreground supervisor; one that is gone is no fault."""
    with suppress(OSError, ValueError):
        print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} supervisor: {safe(text)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
