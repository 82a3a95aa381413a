"""A worker without torch that keeps the worker's contract: `python fake_worker.py RUN_DIR OPTIONS_AS_JSON`.

It "trains" one step after another; the metric of a step is a pure function of the step, so a resumed run can be
compared with one that was never killed.
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
from engine.run.metrics_log import MetricsWriter
from engine.run.status import Status, new_status, read_status, write_status

DEFAULTS = {
    "steps": 40, "step_s": 0.01, "checkpoint_every": 5, "crash_at": 0, "crash": "", "crash_in_attempts": 1000,
    "obeys": True, "grandchild": False, "deaf_s": 0.0,
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
        os.kill(os.getpid(), int(str(self.options["crash"])))


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
    return worker.run()


if __name__ == "__main__":
    sys.exit(main())
