"""`workbench demo`: the whole loop on the sample data, from files to a better model, every number computed here.

Owns the order of the stations, their clock, and the workspace they happen in. Invariants: everything it makes is an
ordinary dataset, pair set, preference set, run or arena of that workspace, made by the functions the commands use; a
figure that falls short is reported as it is.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench import demo_figures, demo_stations
from workbench.demo_stations import Stage
from workbench.errors import WorkbenchError
from workbench.workspace import MARKER, Workspace, init, open_workspace

SCHEMA = 1
Say = Callable[[str], None]


@dataclass
class Clock:
    """Wall time by station, in order."""

    say: Say
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def station(self, name: str, what: str) -> Iterator[None]:
        """Announce a station and time it."""
        self.say(what)
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


def run_demo(path: str | None, say: Say, rlhf: Sequence[str] = ("ppo",)) -> dict[str, Any]:
    """Run the loop and return its report as plain values. `say` hears one line for each step of it.

    `rlhf` names the methods that train against the reward model, one after the other. Without `path` the workspace is
    a new temporary folder, which is kept.
    """
    workspace = demo_workspace(path)
    say(f"workspace {workspace.root}")
    started = time.monotonic()
    clock = Clock(say)
    stage = Stage(workspace, say, rlhf=tuple(dict.fromkeys(rlhf)))
    try:
        with clock.station("data", "reading the sample data"):
            data = demo_stations.read_data(stage)
        with clock.station("judge", "judging pairs by the sample rule (synthetic verdicts)"):
            judged = demo_stations.judge_pairs(stage)
        with clock.station("sft", "supervised fine-tuning"):
            demo_stations.tune(stage)
        with clock.station("reward and dpo", "reward model and DPO, side by side"):
            demo_stations.train_on_preferences(stage)
        for method in stage.rlhf:
            with clock.station(method, f"{method.upper()} against the reward model"):
                demo_stations.train_on_rollouts(stage, method)
        with clock.station("measure", "measuring on held-out data"):
            measured = demo_figures.measure_all(stage)
        with clock.station("answer", f"{len(stage.models)} models answer the held-out prompts"):
            answered = demo_stations.answer_prompts(stage)
            gold = demo_figures.gold_scores(answered, stage.models)
        with clock.station("compare", "comparing SFT and DPO blindly"):
            arena = demo_stations.compare(stage, answered)
    except BaseException:
        stage.stop_runs()
        raise
    return {
        "schema": SCHEMA,
        "workspace": str(workspace.root),
        "runs": {name: run.id for name, run in stage.runs.items()},
        "data": data,
        "pairs": judged,
        **measured,
        "sampled_kl": demo_figures.sampled_kl(stage),
        "gold": gold,
        "arena": arena,
        "seconds": {**clock.seconds, "total": time.monotonic() - started},
    }


def demo_workspace(path: str | None) -> Workspace:
    """The workspace at `path`, made where there is none; without a path a new one in the temporary folder."""
    if path is None:
        return init(Path(tempfile.mkdtemp(prefix="workbench-demo-")))
    if not (Path(path) / MARKER).exists():
        return init(path)
    workspace = open_workspace(path)
    workspace.require_writable()
    taken = [name for name in demo_stations.DATASETS if (workspace.datasets / name).exists()]
    if taken:
        raise WorkbenchError(
            f"{workspace.root} holds a demo already (dataset {taken[0]}); name another --workspace, or leave it out "
            "for a temporary one"
        )
    return workspace
