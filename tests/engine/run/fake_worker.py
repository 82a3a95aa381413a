"""A worker without torch that keeps the worker's contract: `python fake_worker.py RUN_DIR OPTIONS_AS_JSON`.

It "trains" one step after another; the metric of a step is a pure function of the step, so a resumed run can be
compared with one that was never killed. Of several processes the first trains; the others do what the option
"others" says: follow it to its end, or fail. With "--prepare" behind its arguments it prepares rows and trains nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from engine.run import control
from engine.run.events import append_event
from engine.run.folder import RunFolder
from engine.run.locks import is_held
from engine.run.metrics_log import MetricsWriter
from engine.run.status import Status, new_status, read_status, write_status
from engine.run.worker_process import PEER_LOST, PREPARE, rank_here

DEFAULTS = {
    "steps": 40, "step_s": 0.01, "checkpoint_every": 5, "crash_at": 0, "crash": "", "crash_in_attempts": 1000,
    "obeys": True, "grandchild": False, "deaf_s": 0.0, "others": "follow", "rows": 3, "leases": "", "prepare": "",
}  # fmt: skip


def loss_of(step: int) -> float:
    """What the metric of a step must be, however often the run was killed."""
    return 1.0 / (step + 1)


class FakeWorker:
    """One attempt."""

    def __init__(self, folder: RunFolder, options: dict[str, object]) -> None:
        self.folder = folder
        self.options = options
        self.stopping = False
        self.status: Status = new_status(folder, read_status(folder), phase="preparing")

    def run(self) -> int:
        """Train to the end or to a stop request."""
        steps = self.folder.checkpoint_steps()
        step = steps[-1] if steps else 0
        metrics = MetricsWriter(self.folder.metrics_path, self.status.attempt)
        append_event(self.folder, "started", attempt=self.status.attempt)
        if step:
            metrics.resumed_from(step)
            append_event(self.folder, "resumed", step=step)
        if self.options["grandchild"]:
            # Forgets the group, keeps the descriptors: what a data loader that outlives its worker looks like.
            subprocess.Popen(["sleep", "300"], close_fds=False, start_new_session=True)
        while step < int(str(self.options["steps"])):
            if self.options["obeys"] and (self.stopping or control.pending(self.folder, "stop") is not None):
                self.say("stopping", step)
                self.checkpoint(step)
                self.say("stopped", step)
                append_event(self.folder, "stopped", step=step)
                return 0
            self.say("running", step)
            time.sleep(float(str(self.options["step_s"])))
            step += 1
            metrics.write(step, {"loss": loss_of(step)})
            if step % int(str(self.options["checkpoint_every"])) == 0:
                self.checkpoint(step)
            self.crash_if_told(step)
        self.say("done", step)
        append_event(self.folder, "done", step=step)
        return 0

    def follow(self, rank: int) -> int:
        """Be a process that does not lead."""
        if self.options["others"] == "told":
            append_event(self.folder, "failed", attempt=self.status.attempt, rank=rank, what="out of memory")
            return 1
        if self.options["others"] != "follow":
            os.kill(os.getpid(), int(str(self.options["others"])))
        while True:
            now = read_status(self.folder)
            if now is not None and now.attempt == self.status.attempt and now.phase in ("done", "stopped", "failed"):
                return 0
            time.sleep(0.01)

    def prepare(self) -> int:
        """Make data ready: say so row by row, and which devices are held meanwhile."""
        rows = int(str(self.options["rows"]))
        for row in range(1, rows + 1):
            self.status = replace(self.status, rows_prepared=row, rows_to_prepare=rows)
            self.say("preparing", 0)
            if self.options["prepare"] == "stop":
                control.request(self.folder, "stop")
            if self.stopping or control.pending(self.folder, "stop") is not None:
                self.say("stopped", 0)
                return 0
        leases = sorted(Path(str(self.options["leases"])).glob("*.lock"))
        held = [lease.stem for lease in leases if is_held(lease)]
        print("PREPARED", repr(os.environ.get("CUDA_VISIBLE_DEVICES")), held, flush=True)
        if self.options["prepare"] == "taken":
            # Another program takes the devices for a moment just when the data is ready.
            taken = subprocess.Popen([sys.executable, "-c", _TAKE, *map(str, leases)], stdout=subprocess.PIPE)
            assert taken.stdout is not None
            taken.stdout.readline()
        elif self.options["prepare"]:
            os.kill(os.getpid(), int(str(self.options["prepare"])))
        return 0

    def say(self, phase: str, step: int) -> None:
        """Write status.json."""
        total = int(str(self.options["steps"]))
        self.status = replace(self.status, phase=phase, step=step, total_steps=total, heartbeat=time.time())
        write_status(self.folder, self.status)

    def checkpoint(self, step: int) -> None:
        """A sealed checkpoint folder."""
        aside = self.folder.checkpoints / f"step-{step:06d}.tmp-{os.getpid()}"
        if self.folder.checkpoint_path(step).exists():
            return
        aside.mkdir()
        (aside / "MANIFEST.json").write_text(json.dumps({"step": step}))
        aside.rename(self.folder.checkpoint_path(step))

    def crash_if_told(self, step: int) -> None:
        """End in the way that the options ask for."""
        if step != self.options["crash_at"] or self.status.attempt > int(str(self.options["crash_in_attempts"])):
            return
        if self.options["crash"] == "told":
            self.status = replace(self.status, error={"what": "the loss was not finite", "remedy": "lower optim.lr"})
            self.say("failed", step)
            append_event(self.folder, "failed", what="the loss was not finite")
            sys.exit(1)
        if self.options["crash"] == "after done":
            self.say("done", step)
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.options["crash"] == "untold":
            print("Traceback: something unforeseen", file=sys.stderr, flush=True)
            os._exit(7)
        if self.options["crash"] == "silent":
            os._exit(0)
        if self.options["crash"] == "peer lost":
            os._exit(PEER_LOST)
        os.kill(os.getpid(), int(str(self.options["crash"])))


_TAKE = """
import fcntl, os, sys, time
os.setsid()
for path in sys.argv[1:]:
    fcntl.flock(os.open(path, os.O_RDWR), fcntl.LOCK_EX)
print(flush=True)
time.sleep(1)
"""


def main() -> int:
    """Keep the contract: die gently with the parent, take SIGTERM as a stop request, ignore a hang-up."""
    parent = os.getppid()
    folder = RunFolder(sys.argv[1])
    options = {**DEFAULTS, **json.loads(sys.argv[2])}
    time.sleep(float(str(options["deaf_s"])))
    worker = FakeWorker(folder, options)

    def ask(number: int, frame: object) -> None:
        worker.stopping = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != parent:
        worker.stopping = True
    if sys.argv[3:] == [PREPARE]:
        return worker.prepare()
    return worker.follow(rank_here()) if rank_here() else worker.run()


if __name__ == "__main__":
    sys.exit(main())
