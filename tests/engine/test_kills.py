"""kill -9 of worker, supervisor or both at random moments: the run says what it is, resumes, and ends bit-equal."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.run.folder import RunFolder
from engine.run.metrics_log import read_metrics
from engine.run.status import RunState, describe, read_status
from engine.run.supervisor import start_detached
from tests.engine.run_maker import make_run
from tests.engine.test_training_runs import curve, weights

pytestmark = pytest.mark.slow
DEADLINE_S = 180
STEPS = 12
KILLS = 4


def wait_until(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not met():
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S} s"
        time.sleep(0.02)


def settled(folder: RunFolder) -> RunState:
    """The run's state once no process of it is left."""
    wait_until(lambda: not describe(folder).alive, "the run's processes end")
    return describe(folder)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill_at_a_random_moment(folder: RunFolder, draw: random.Random) -> str:
    """Wait for the worker, then for a few more lines of metrics or a moment, and kill. Returns what was killed."""
    start_detached(folder.path)
    wait_until(lambda: _worker(folder) != 0, "a worker starts")
    worker = _worker(folder)
    supervisor = parent_of(worker)
    known = len(read_metrics(folder.metrics_path))
    lines = draw.randrange(0, 4)
    wait_until(lambda: len(read_metrics(folder.metrics_path)) >= known + lines or not _alive(worker), "steps go by")
    time.sleep(draw.random() * 0.3)
    target = draw.choice(["worker", "supervisor", "both"])
    for pid in {"worker": [worker], "supervisor": [supervisor], "both": [supervisor, worker]}[target]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return "nothing: it had ended"
    return target


def _worker(folder: RunFolder) -> int:
    """Pid of the torch process of the present attempt, 0 before there is one."""
    status = read_status(folder)
    if status is None or not status.pid or not _alive(status.pid):
        return 0
    command = Path(f"/proc/{status.pid}/cmdline").read_bytes()
    return status.pid if b"engine.train" in command else 0


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("method", ["sft", "reward", "dpo", "ppo"])
def test_killed_runs_resume_to_the_same_curve(tiny_model_folder: Path, tmp_path: Path, method: str) -> None:
    settings = {"train__steps": STEPS, "checkpoint__every": 2}
    if method == "ppo":
        reward = make_run(tmp_path / "reward", "reward", tiny_model_folder)
        start_detached(reward.path)
        assert settled(reward).state == "done", reward.log_path.read_text()
        settings |= {
            "model__reward_path": str(tiny_model_folder), "model__reward_adapter": str(reward.checkpoint_path(6)),
        }  # fmt: skip
    whole = make_run(tmp_path / "whole", method, tiny_model_folder, **settings)
    start_detached(whole.path)
    assert settled(whole).state == "done", whole.log_path.read_text()

    seed = random.randrange(2**32)
    print(f"{method}: seed {seed}")
    draw = random.Random(seed)
    killed = make_run(tmp_path / "killed", method, tiny_model_folder, **settings)
    for _ in range(KILLS):
        what = kill_at_a_random_moment(killed, draw)
        state = settled(killed)
        print(f"killed {what}: {state.state}: {state.reason}")
        if state.state == "done":
            break
        assert state.resumable, state
        assert state.reason
    if settled(killed).state != "done":
        start_detached(killed.path)
    assert settled(killed).state == "done", killed.log_path.read_text()
    assert curve(killed) == curve(whole)
    assert weights(killed, STEPS) == weights(whole, STEPS)
