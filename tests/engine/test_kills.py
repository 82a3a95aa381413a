"""kill -9 at random moments: a run says what it is, resumes, and ends bit-equal.

Workers of SFT, reward and DPO are killed many times, forked from a process that has imported torch; with PPO worker,
supervisor or both are killed as they run for a person.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.run.detached_start import start_detached
from engine.run.folder import RunFolder
from engine.run.metrics_log import read_metrics
from engine.run.status import RunState, describe, read_status
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


def test_workers_killed_thirty_times_give_the_undisturbed_curve() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.kills", "--kills", "30"], cwd=root, capture_output=True, text=True
    )
    print(done.stdout, done.stderr[-2000:])
    assert done.returncode == 0
    figures = json.loads(done.stdout)
    assert figures["kills"] >= 30
    assert figures["differences"] == []
    assert figures["runs"] >= 3
    assert {"running", "preparing"} <= set(figures["phases"])


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_supervised_runs_on_rollouts_killed_anywhere_resume_to_the_same_curve(
    tiny_model_folder: Path, tmp_path: Path, method: str
) -> None:
    reward = make_run(tmp_path / "reward", "reward", tiny_model_folder)
    start_detached(reward.path)
    assert settled(reward).state == "done", reward.log_path.read_text()
    settings = {
        "train__steps": STEPS, "checkpoint__every": 2,
        "model__reward_path": str(tiny_model_folder), "model__reward_adapter": str(reward.checkpoint_path(6)),
        # All that PPO learns beside weights: moments of the scores, and the weight of the KL.
        "ppo__score_scale": "running", "ppo__kl_control": "adaptive", "ppo__kl_target": 0.01, "ppo__kl_horizon": 40.0,
        "alarm_kl_runaway__on_alarm": "off",  # so small a target is passed at once
    }  # fmt: skip
    whole = make_run(tmp_path / "whole", method, tiny_model_folder, **settings)
    start_detached(whole.path)
    assert settled(whole).state == "done", whole.log_path.read_text()

    seed = random.randrange(2**32)
    print(f"seed {seed}")
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
