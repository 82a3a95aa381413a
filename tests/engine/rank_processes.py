"""Processes that train run folders together, started once: `python -m tests.engine.rank_processes WORLD RUN[@KILL]…`.

The starter imports torch once and forks the ranks of each run in turn, before any thread exists; they print
"RANK FOLDER CODE" lines. Where a KILL is named, one of the ranks gets signal 9 in the middle of a phase of a step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from engine.run.folder import RunFolder
from engine.run.status import new_status, read_status, write_status
from engine.run.worker_process import RANK_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
PHASES = ("rollout", "scoring", "update")
"""Of a step of PPO, GRPO and RLOO: some tokens are sampled; one micro-batch is measured; one update is made."""


@dataclass(frozen=True)
class Kill:
    """Signal 9 in the middle of a phase."""

    phase: str
    """One of PHASES."""
    step: int
    """Of the training step with this number, from 0."""
    rank: int = 0
    """The process that is killed."""

    @classmethod
    def read(cls, text: str) -> Kill:
        """From "PHASE:STEP:RANK"."""
        phase, step, rank = text.split(":")
        return cls(phase, int(step), int(rank))


def train_together(
    folders: list[RunFolder], processes: int = 2, kills: Mapping[str, Kill] | None = None
) -> dict[str, list[int]]:
    """Train each folder with so many processes; exit codes by run, in the order of the ranks, -9 where one was killed.

    `kills` names runs of which a process is killed.
    """
    arguments = []
    for folder in folders:
        before = new_status(folder, read_status(folder), phase="preparing")
        write_status(folder, replace(before, attempt=before.attempt + 1))
        folder.meeting_path.unlink(missing_ok=True)
        kill = (kills or {}).get(folder.id)
        arguments.append(str(folder.path) + (f"@{':'.join(map(str, astuple(kill)))}" if kill else ""))
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.rank_processes", str(processes), *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=240 * len(folders),
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    codes: dict[str, list[int]] = {f.id: [] for f in folders}
    for line in done.stdout.splitlines():
        _, name, code = line.split()
        codes[name].append(int(code))
    assert all(len(each) == processes for each in codes.values()), (codes, done.stderr[-4000:])
    return codes


def main(processes: int, runs: list[str]) -> int:
    """Fork the ranks of each run, wait for all of them, and print how they ended."""
    import peft  # noqa: F401
    import torch  # noqa: F401
    import transformers.models.llama  # noqa: F401

    import engine.worker  # noqa: F401

    for run in runs:
        folder, _, kill = run.partition("@")
        children = []
        for rank in range(processes):
            pid = os.fork()
            if pid == 0:
                os.environ[RANK_VARIABLE] = str(rank)
                os._exit(_be(rank, folder, Kill.read(kill) if kill else None))
            children.append(pid)
        for rank, pid in enumerate(children):
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(rank, Path(folder).name, code, flush=True)
    return 0


def _be(rank: int, folder: str, kill: Kill | None) -> int:
    from engine import train

    if kill is not None and kill.rank == rank:
        die_in(kill.phase, kill.step)
    return train.main([folder])


def die_in(phase: str, step: int) -> None:
    """This process gets signal 9 in the middle of `phase` of step `step`.

    The calls of the step are counted where each phase cannot do without them: a token is a pass of the whole language
    model, a measured micro-batch asks the policy for its entropy, an update is a step of the optimizer.
    """
    from transformers.models.llama import LlamaForCausalLM

    from engine.model.adapters import RoleModel
    from engine.optimizer import Optimizer
    from engine.training_loop import TrainingLoop

    now = {"step": -1}
    calls: Counter[str] = Counter()

    def counted(owner: Any, name: str, of: str, last: int, counts: Callable[[Any], bool]) -> None:
        inner = getattr(owner, name)

        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            if of == phase and now["step"] == step and counts(options):
                calls[of] += 1
                if calls[of] == last:
                    os.kill(os.getpid(), signal.SIGKILL)
            return inner(self, *arguments, **options)

        setattr(owner, name, call)

    counted(LlamaForCausalLM, "forward", "rollout", 4, lambda options: True)
    counted(RoleModel, "scores", "scoring", 2, lambda options: bool(options.get("entropy")))
    counted(Optimizer, "step", "update", 2, lambda options: True)
    train = TrainingLoop._train

    def noting(loop: TrainingLoop, number: int) -> dict[str, float]:
        now["step"] = number
        return train(loop, number)

    TrainingLoop._train = noting  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
