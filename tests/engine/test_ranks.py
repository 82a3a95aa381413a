"""Several processes train one run: the figures and weights of one process, whatever dies or is asked meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine import ranks
from engine.rewards.approvals import approve
from engine.rewards.frozen import freeze_functions
from engine.rewards.function_files import FunctionFile
from engine.run import control
from engine.run.detached_start import start_detached
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.locks import holders
from engine.run.metrics_log import read_metrics
from engine.run.status import describe, read_status
from tests.engine.rank_processes import train_together
from tests.engine.run_maker import MIXED, make_run
from tests.engine.test_training_runs import curve, run, weights

STEPS = 3
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft-lora": ("sft", {}),
    # One row a step: the second process has no micro-batch at all.
    "sft-single": ("sft", {"train__batch_size": 1}),
    "sft-full": ("sft", {"adapter__kind": "full", "optim__weight_decay": 0.1}),
    # Many small micro-batches: three for one process, two for the other, and so on.
    "reward-lora": ("reward", {"train__batch_size": 5, "train__tokens_per_micro_batch": 40}),
    # The LM head of a reward model has no gradient in any process, and must not decay.
    "reward-full": ("reward", {"adapter__kind": "full", "optim__weight_decay": 0.1}),
    "dpo-lora": ("dpo", {"train__tokens_per_micro_batch": 40}),
    "kto-lora": ("kto", {"train__tokens_per_micro_batch": 40}),
    "dpo-mixed": ("dpo", {"train__tokens_per_micro_batch": 40, **MIXED}),
    "dpo-single": ("dpo", {"train__batch_size": 1, "dpo__sft_coef": 0.5}),
    # Judged by functions in a child, of which one only watches; the leading process alone asks it.
    "ppo-judged": ("ppo", {"ppo__value_warmup": 1, "train__tokens_per_micro_batch": 40}),
    "grpo-judged": ("grpo", {"grpo__generations": 2, "grpo__score_scale": "running"}),
    "rloo-judged": ("rloo", {"rloo__generations": 2, "train__tokens_per_micro_batch": 40}),
}
JUDGE = b"""
asked = []

def length(prompts, completions):
    asked.append(len(completions))
    return [len(c) / 10 for c in completions]

def calls(prompts, completions):
    return [len(asked) + c.count("e") for c in completions]
"""
"""How often it was called stands in the scores: twice for one step would not go unnoticed."""


def make(place: Path, name: str, model: Path, **more: Any) -> RunFolder:
    """One of RUNS."""
    method, settings = RUNS[name]
    if not name.endswith("-judged"):
        return make_run(place, method, model, train__steps=STEPS, **settings, **more)
    functions, sha256 = ("length", "calls"), hashlib.sha256(JUDGE).hexdigest()
    judged: dict[str, Any] = {
        "rewards__functions": [f"judge.py:{one}" for one in functions], "rewards__function_weights": [1.0, 0.0],
        "rewards__function_files": ["judge.py"] * 2, "rewards__function_sha256": [sha256] * 2,
    }  # fmt: skip
    folder = make_run(place, method, model, train__steps=STEPS, **settings, **judged, **more)
    freeze_functions([FunctionFile(one, one, Path("judge.py"), JUDGE) for one in functions], folder.rewards)
    approve(Path("judge.py"), JUDGE, sha256)
    return folder


class TestShares:
    """What each process is given, without any process."""

    @pytest.fixture(params=[2, 3])
    def world(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
        monkeypatch.setattr(ranks, "world_size", lambda: request.param)
        world: int = request.param
        return world

    def test_every_item_is_in_one_group_and_no_group_is_over_the_budget(self, world: int) -> None:
        sizes = [torch.randint(1, 40, (), generator=torch.Generator().manual_seed(i)).item() for i in range(50)]
        groups = ranks.balanced_groups([int(size) for size in sizes], 100)
        assert sorted(i for group in groups for i in group) == list(range(50))
        assert all(sum(sizes[i] for i in group) <= 100 for group in groups)
        assert len(groups) % world == 0
        loads = [sum(sizes[i] for group in groups[r::world] for i in group) for r in range(world)]
        assert max(loads) - min(loads) <= 40

    def test_what_one_micro_batch_would_hold_is_split(self, world: int) -> None:
        assert sorted(ranks.balanced_groups([10, 10, 10, 10, 10, 10], 1000), key=min)[0] != list(range(6))
        assert len(ranks.balanced_groups([10] * 6, 1000)) == world

    def test_an_item_over_the_budget_has_a_group_of_its_own(self, world: int) -> None:
        groups = ranks.balanced_groups([500, 10, 10], 20)
        assert [0] in groups

    def test_all_processes_ask_equally_often(self, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
        shares = []
        for rank in range(world):
            monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
            shares.append(ranks.own_share([[0], [1], [2], [3]]))
        assert len({len(share) for share in shares}) == 1
        assert sorted(i for share in shares for group in share for i in group) == [0, 1, 2, 3]

    def test_sums_are_merged_by_name(self, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
        told = [{"a": [1.0, 2.0]}, {"a": [3.0, 1.0], "b": [5.0, 1.0]}, {}]
        monkeypatch.setattr(ranks, "words_of_all", lambda word: told)
        assert ranks.merged_sums({"a": (1.0, 2.0)}) == {"a": (4.0, 3.0), "b": (5.0, 1.0)}


def test_alone_nothing_is_asked_of_anyone() -> None:
    assert (ranks.world_size(), ranks.rank(), ranks.leads()) == (1, 0, True)
    assert ranks.any_rank(True)
    assert ranks.words_of_all({"a": float("inf")}) == [{"a": float("inf")}]
    assert ranks.balanced_groups([5, 5, 5], 10) == [[0, 1], [2]]


@pytest.fixture(scope="module")
def together(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """All of RUNS, trained by two processes that are started once."""
    base = tmp_path_factory.mktemp("together")
    folders = {name: make(base / name, name, tiny_model_folder, train__processes=2) for name in RUNS}
    codes = train_together(list(folders.values()))
    assert codes == {name: [0, 0] for name in RUNS}
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_what_one_trains(
    together: dict[str, RunFolder], tiny_model_folder: Path, tmp_path: Path, name: str
) -> None:
    alone = make(tmp_path / name, name, tiny_model_folder)
    expected, found = run(alone), curve(together[name])
    assert list(found) == list(expected)
    for step in expected:
        # A log-ratio is the difference of two fp32 sums of some fifty nats: their last bits are 4e-6.
        assert found[step] == pytest.approx(expected[step], rel=1e-4, abs=2e-5), step
    assert completions(together[name]) == completions(alone)
    mine = load_file(together[name].checkpoint_path(STEPS) / "trainer" / "optimizer.safetensors")
    theirs = load_file(alone.checkpoint_path(STEPS) / "trainer" / "optimizer.safetensors")
    assert mine.keys() == theirs.keys()
    for key in theirs:
        torch.testing.assert_close(mine[key], theirs[key], rtol=1e-3, atol=1e-6)
    for file in sorted(alone.checkpoint_path(STEPS).glob("*.safetensors")):
        mine, theirs = load_file(together[name].checkpoint_path(STEPS) / file.name), load_file(file)
        assert mine.keys() == theirs.keys()
        for key in theirs:
            torch.testing.assert_close(mine[key], theirs[key], rtol=1e-3, atol=2e-5)


def completions(folder: RunFolder) -> list[tuple[int, str, str, str]]:
    """What the probes were answered, in the order in which it was written."""
    if not folder.samples_path.exists():
        return []
    rows = [json.loads(line) for line in folder.samples_path.read_text().splitlines()]
    return [(row["step"], row["source"], row["prompt"], row["completion"]) for row in rows]


@pytest.mark.slow
def test_only_the_leading_process_writes(together: dict[str, RunFolder]) -> None:
    for folder in together.values():
        lines = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(STEPS + 1))
        kinds = [event["kind"] for event in read_events(folder)]
        assert kinds.count("started") == kinds.count("done") == 1
        status = read_status(folder)
        assert status is not None
        assert status.device == "cpu, 2 processes"


def wait_until(met: Callable[[], Any], folder: RunFolder, what: str) -> None:
    deadline = time.monotonic() + 180
    while not met():
        assert time.monotonic() < deadline, f"{what}: {describe(folder)} {folder.log_path.read_text()[-3000:]}"
        time.sleep(0.02)


def ranks_of(folder: RunFolder) -> dict[int, int]:
    """The process of each rank, from what the processes that hold the run's tree lock were told."""
    found = {}
    for pid in holders(folder.tree_lock_path):
        told = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        rank = next((word.partition(b"=")[2] for word in told if word.startswith(b"WORKBENCH_RANK=")), None)
        if rank is not None and pid != os.getpid():
            found[int(rank)] = pid
    return found


def start_and_wait_for_lines(folder: RunFolder, more: int) -> None:
    known = len(read_metrics(folder.metrics_path))
    start_detached(folder.path)
    wait_until(lambda: len(read_metrics(folder.metrics_path)) >= known + more, folder, "steps go by")


def settled(folder: RunFolder) -> str:
    wait_until(lambda: not describe(folder).alive, folder, "the run's processes end")
    assert not holders(folder.tree_lock_path)
    return describe(folder).state


@pytest.mark.slow
def test_killed_and_stopped_processes_resume_to_the_same_curve(tiny_model_folder: Path, tmp_path: Path) -> None:
    settings = {"train__processes": 2, "train__steps": 24, "checkpoint__every": 4, "evaluation__every": 2}
    whole = make_run(tmp_path / "whole", "dpo", tiny_model_folder, **settings)
    start_detached(whole.path)
    assert settled(whole) == "done", whole.log_path.read_text()

    folder = make_run(tmp_path / "harmed", "dpo", tiny_model_folder, **settings)
    start_and_wait_for_lines(folder, 3)
    os.kill(ranks_of(folder)[1], signal.SIGKILL)
    assert settled(folder) == "failed"
    assert "process 1 of 2 (numbered from 0) was killed" in describe(folder).reason

    start_and_wait_for_lines(folder, 2)
    control.request(folder, "stop")
    assert settled(folder) == "stopped"
    assert control.pending(folder, "stop") is None

    start_detached(folder.path)
    wait_until(lambda: (s := read_status(folder)) and s.phase == "evaluating", folder, "an evaluation")
    os.kill(ranks_of(folder)[1], signal.SIGTERM)
    assert settled(folder) in ("stopped", "done")

    if describe(folder).state != "done":
        start_and_wait_for_lines(folder, 1)
        for pid in [*holders(folder.lock_path), *ranks_of(folder).values()]:
            os.kill(pid, signal.SIGKILL)
        assert settled(folder) in ("interrupted", "done")
        start_detached(folder.path)
    assert settled(folder) == "done"
    assert curve(folder) == curve(whole)
    assert weights(folder, 24) == weights(whole, 24)


@pytest.mark.slow
def test_why_another_process_failed_is_the_run_s_reason(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "torn", "sft", tiny_model_folder, train__processes=2)
    # Only the second process meets this fault: it is asked for a device that is not there.
    worker = [
        "/bin/sh", "-c",
        'test "$WORKBENCH_RANK" = 0 || exec "$0" -c "$2" "$1"; exec "$0" -m engine.train "$1"',
        sys.executable, str(folder.path), BROKEN,
    ]  # fmt: skip
    start_detached(folder.path, worker=worker)
    assert settled(folder) == "failed"
    assert "process 1 of 2: out of memory" in describe(folder).reason


BROKEN = """
import sys
from engine import train, worker
def fail(*arguments, **options):
    raise MemoryError("no memory left")
worker.assemble = fail
sys.exit(train.main(sys.argv[1:]))
"""
