"""kill -9 at random moments, and what is left: `python -m tests.benchmarks.kills --kills 200`.

Runs of SFT, reward modelling and DPO on a tiny model are killed at moments drawn evenly over their length (from the
building of the model to the last checkpoint), go on, and must end with the curve and the weights of a run that was
never disturbed, bit for bit; times are all that may differ. A step that was run twice must have said the same twice.

Each worker is forked from this process, which has imported torch and trained nothing, so that a kill costs a part of a
second. One line of JSON with the figures comes out; the exit code is 1 where anything differed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.run.metric_names import OF_THE_MACHINE

METHODS = ("sft", "reward", "dpo")
STEPS = 20
LONGEST_S = 120.0


@dataclass
class Figures:
    """What was counted."""

    kills: int = 0
    """Workers that died of signal 9 before they were done."""
    phases: Counter[str] = field(default_factory=Counter)
    """What their status.json last said."""
    runs: int = 0
    """Runs that were killed at least once and came to their end."""
    torn: int = 0
    """Half-written checkpoints that a kill left behind."""
    repeated_steps: int = 0
    """Steps that were run more than once."""
    differences: list[str] = field(default_factory=list)
    """Everything that was not as it should be."""


def main(argv: list[str] | None = None) -> int:
    """Kill until `--kills` are counted, let the runs that are open end, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=30, metavar="N")
    parser.add_argument(
        "--seed", type=int, default=None, metavar="S", help="of the moments; drawn and printed if not given"
    )
    args = parser.parse_args(argv)
    seed = args.seed if args.seed is not None else random.randrange(2**32)
    print(f"seed {seed}", file=sys.stderr)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        figures = campaign(Path(scratch), args.kills, random.Random(seed))
    told: dict[str, Any] = {**vars(figures), "phases": dict(figures.phases), "seed": seed}
    print(json.dumps(told | {"seconds": round(time.monotonic() - began, 1)}))
    return 1 if figures.differences else 0


def campaign(scratch: Path, kills: int, draw: random.Random) -> Figures:
    """Method after method, run after run, until enough workers have been killed."""
    from tests.engine.conftest import write_tiny_model

    model = write_tiny_model(scratch / "tiny")
    undisturbed = {method: _Whole(scratch, method, model) for method in METHODS}
    figures = Figures()
    while figures.kills < kills:
        method = METHODS[figures.runs % len(METHODS)]
        whole = undisturbed[method]
        folder = _make(scratch / f"{method}-{figures.runs}", method, model)
        while not _attempt(folder, draw.uniform(0.0, whole.seconds) if figures.kills < kills else None, figures):
            pass
        _compare(folder, whole, figures)
        figures.runs += 1
    return figures


class _Whole:
    """A run of a method that was never disturbed."""

    def __init__(self, scratch: Path, method: str, model: Path) -> None:
        folder = _make(scratch / f"{method}-whole", method, model)
        began = time.monotonic()
        assert _attempt(folder, None, Figures()), folder.log_path.read_text()
        self.seconds = time.monotonic() - began
        self.curve = curve_of(folder)
        self.weights = weights_of(folder)
        self.best = folder.best()


def _make(path: Path, method: str, model: Path) -> Any:
    from tests.engine.run_maker import make_run

    return make_run(path, method, model, train__steps=STEPS, checkpoint__every=2)


def _attempt(folder: Any, kill_after_s: float | None, figures: Figures) -> bool:
    """Fork a worker, kill it after so many seconds if it still lives; whether the run is done."""
    child = os.fork()
    if child == 0:
        _work(folder)
    deadline = time.monotonic() + (LONGEST_S if kill_after_s is None else kill_after_s)
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.002)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    status = ended[1]
    if os.WIFEXITED(status):
        if os.WEXITSTATUS(status) != 0:
            raise RuntimeError(f"{folder.path.name} failed:\n{folder.log_path.read_text()}")
        return True
    if kill_after_s is None:
        raise RuntimeError(f"{folder.path.name} did not end within {LONGEST_S:.0f} s")
    figures.kills += 1
    from engine.run.status import read_status

    said = read_status(folder)
    figures.phases[said.phase if said is not None else "before its first word"] += 1
    figures.torn += len(list(folder.checkpoints.glob("step-*.tmp-*")))
    return False


def _work(folder: Any) -> None:
    """The worker, in the forked process: counted as the supervisor counts it, its words in engine.log."""
    code = 1
    try:
        log = os.open(folder.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from engine import train
        from engine.run.status import new_status, read_status, write_status

        before = new_status(folder, read_status(folder), phase="preparing")
        write_status(folder, replace(before, attempt=before.attempt + 1))
        code = train.main([str(folder.path)])
    finally:
        os._exit(code)


def _compare(folder: Any, whole: _Whole, figures: Figures) -> None:
    name = folder.path.name
    if curve_of(folder) != whole.curve:
        figures.differences.append(f"{name}: another curve")
    if weights_of(folder) != whole.weights:
        figures.differences.append(f"{name}: other weights, moments or random state at the end")
    if folder.best() != whole.best:
        figures.differences.append(f"{name}: another best checkpoint")
    first: dict[int, dict[str, Any]] = {}
    again = set()
    for line in folder.metrics_path.read_text().splitlines():
        written = json.loads(line)
        if "metrics" not in written:
            continue
        figures_of_step = {key: value for key, value in written["metrics"].items() if key not in OF_THE_MACHINE}
        if (step := written["step"]) in first:
            again.add(step)
            if figures_of_step != first[step]:
                figures.differences.append(f"{name}: step {step} said another thing when it was run again")
        first[step] = figures_of_step
    figures.repeated_steps += len(again)


def curve_of(folder: Any) -> dict[int, dict[str, float]]:
    """The metrics of each step that count, without times."""
    from engine.run.metrics_log import read_metrics

    return {
        line.step: {name: value for name, value in line.metrics.items() if name not in OF_THE_MACHINE}
        for line in read_metrics(folder.metrics_path)
    }


def weights_of(folder: Any) -> dict[str, bytes]:
    """Every tensor file of the last checkpoint: weights, heads, moments, random state."""
    last = folder.checkpoint_path(STEPS)
    return {str(file.relative_to(last)): file.read_bytes() for file in sorted(last.rglob("*.safetensors"))}


if __name__ == "__main__":
    # A fork carries no threads with it: this process starts none, and what a worker needs is imported before.
    os.environ["OMP_NUM_THREADS"] = "1"
    import engine.worker  # noqa: F401

    sys.exit(main())
