"""Whole runs of every method on the tiny model: what they write, that they learn, stop, resume and fail as promised."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import train
from engine.run import control
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.metrics_log import read_metrics
from engine.run.status import new_status, read_status, write_status
from tests.engine.run_maker import make_run

TIMINGS = {"tokens_per_second", "step_time_s", "peak_memory_bytes", "probe/seconds"}
KL = "kl/policy_reference_nats_per_sequence"


def run(folder: RunFolder) -> dict[int, dict[str, float]]:
    """Train to the end of this attempt, counted as the supervisor does; each step's metrics, timings left out."""
    before = new_status(folder, read_status(folder), phase="preparing")
    write_status(folder, replace(before, attempt=before.attempt + 1))
    assert train.main([str(folder.path)]) == 0, folder.log_path
    return curve(folder)


def curve(folder: RunFolder) -> dict[int, dict[str, float]]:
    return {
        line.step: {name: value for name, value in line.metrics.items() if name not in TIMINGS}
        for line in read_metrics(folder.metrics_path)
    }


def kinds(folder: RunFolder) -> list[str]:
    return [event["kind"] for event in read_events(folder)]


@pytest.fixture(scope="module")
def reward_model(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a short reward run."""
    folder = make_run(tmp_path_factory.mktemp("reward") / "reward", "reward", tiny_model_folder)
    run(folder)
    return folder.checkpoint_path(6)


@pytest.fixture
def make(tiny_model_folder: Path, tmp_path: Path, reward_model: Path) -> Callable[..., RunFolder]:
    def build(name: str, method: str, **settings: Any) -> RunFolder:
        if method == "ppo":
            settings = {
                "model__reward_path": str(tiny_model_folder), "model__reward_adapter": str(reward_model), **settings,
            }  # fmt: skip
        return make_run(tmp_path / name, method, tiny_model_folder, **settings)

    return build


METHODS = [("sft", "lora"), ("sft", "full"), ("reward", "lora"), ("dpo", "lora"), ("dpo", "full"), ("ppo", "lora")]


@pytest.mark.parametrize(("method", "kind"), METHODS)
def test_a_run_writes_what_the_design_says(make: Callable[..., RunFolder], method: str, kind: str) -> None:
    folder = make("whole", method, adapter__kind=kind)
    steps = run(folder)
    assert list(steps) == list(range(7))
    assert all(math.isfinite(steps[s]["loss"]) for s in range(1, 7))
    status = read_status(folder)
    assert status is not None
    assert (status.phase, status.step, status.total_steps) == ("done", 6, 6)
    assert folder.checkpoint_steps()[-1] == 6
    assert {"started", "checkpoint", "done"} <= set(kinds(folder))
    assert not folder.reserve_path.exists()
    if method == "reward":
        assert KL not in steps[0]
    else:
        assert steps[0][KL] == 0.0
        assert steps[0]["kl/policy_reference_standard_error"] == 0.0
        assert steps[6][KL] != 0.0
        samples = [json.loads(line) for line in folder.samples_path.read_text().splitlines()]
        assert {s["step"] for s in samples if s["source"] == "probe"} == {0, 3, 6}
        assert all(len(s["logratio"]) == s["length"] for s in samples)


def test_dpo_starts_at_ln_2(make: Callable[..., RunFolder]) -> None:
    for kind in ("lora", "full"):
        steps = run(make(f"start-{kind}", "dpo", adapter__kind=kind))
        assert steps[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert steps[1]["loss"] == pytest.approx(math.log(2), abs=1e-4)
        assert steps[1]["rewards/margins"] == pytest.approx(0.0, abs=1e-4)


def test_ppo_starts_at_ratio_1_and_kl_0(make: Callable[..., RunFolder]) -> None:
    steps = run(make("start", "ppo"))
    assert steps[1]["objective/kl"] == 0.0
    assert steps[1]["objective/non_score_reward"] == 0.0
    for step in range(1, 7):
        assert steps[step]["val/first_ratio_deviation"] == 0.0
    assert steps[2]["objective/kl"] != 0.0


def test_a_reward_model_learns_which_answer_names_the_word(make: Callable[..., RunFolder]) -> None:
    steps = run(make("learn", "reward", train__steps=40, train__batch_size=12, evaluation__every=40))
    assert steps[40]["loss"] < steps[1]["loss"] - 0.2
    assert steps[40]["accuracy"] > 0.8


@pytest.mark.parametrize(("method", "kind"), METHODS)
def test_a_stopped_run_resumes_bit_equal(
    make: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch, method: str, kind: str
) -> None:
    whole = make("whole", method, adapter__kind=kind)
    expected = run(whole)
    halved = make("halved", method, adapter__kind=kind)
    stop_at_step(monkeypatch, halved, 3)
    run(halved)
    status = read_status(halved)
    assert status is not None
    assert (status.phase, status.step) == ("stopped", 3)
    assert control.pending(halved, "stop") is None
    assert run(halved) == expected
    assert "resumed" in kinds(halved)
    assert weights(halved, 6) == weights(whole, 6)


def stop_at_step(monkeypatch: pytest.MonkeyPatch, folder: RunFolder, step: int) -> None:
    """Ask for a stop, as a person would, once the run has written the line of `step`."""
    from engine.reporting import Reporter

    write = Reporter.metrics

    def write_and_ask(self: Reporter, at: int, metrics: Any) -> None:
        write(self, at, metrics)
        if at == step and self._folder.path == folder.path and self._status.attempt == 1:
            control.request(folder, "stop")

    monkeypatch.setattr(Reporter, "metrics", write_and_ask)


def weights(folder: RunFolder, step: int) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder.checkpoint_path(step))): file.read_bytes()
        for file in sorted(folder.checkpoint_path(step).rglob("*.safetensors"))
    }


def test_a_stop_during_evaluation_loses_no_line(
    make: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(make("whole", "dpo"))
    folder = make("halved", "dpo")
    from engine.methods.preference import PreferenceOptimisation

    evaluate = PreferenceOptimisation.evaluate
    asked = []

    def ask_in_the_middle(self: Any, check: Callable[[], None]) -> dict[str, float]:
        if not asked and self._roles.trainable and curve(folder).keys() >= {2}:
            asked.append(True)
            control.request(folder, "stop")
        return evaluate(self, check)

    monkeypatch.setattr(PreferenceOptimisation, "evaluate", ask_in_the_middle)
    stopped = run(folder)
    assert asked
    assert 3 not in stopped
    assert run(folder) == expected


def test_a_torn_checkpoint_is_moved_aside_and_the_one_before_is_used(
    make: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(make("whole", "sft"))
    folder = make("torn", "sft")
    stop_at_step(monkeypatch, folder, 5)
    run(folder)
    newest = folder.checkpoint_path(5)
    victim = newest / "trainer" / "optimizer.safetensors"
    victim.write_bytes(victim.read_bytes()[:-7])
    assert run(folder) == expected
    assert "quarantined" in kinds(folder)
    assert list(folder.checkpoints.glob("bad-step-000005-*"))


def test_numbers_that_break_down_are_refused_before_the_optimizer(
    make: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.methods import preference

    true_loss = preference.dpo_loss
    calls = []

    def broken(chosen: torch.Tensor, rejected: torch.Tensor, *, beta: float) -> torch.Tensor:
        if torch.is_grad_enabled():
            calls.append(True)
            if len(calls) > 2:
                return true_loss(chosen, rejected, beta=beta) * math.nan
        return true_loss(chosen, rejected, beta=beta)

    monkeypatch.setattr(preference, "dpo_loss", broken)
    folder = make("broken", "dpo", train__nonfinite_stop_after=2)
    assert train.main([str(folder.path)]) == 1
    status = read_status(folder)
    assert status is not None
    assert status.phase == "failed"
    assert status.error is not None
    assert "2 times in a row" in status.error["what"]
    assert "optim.lr" in status.error["what"]
    assert [e["step"] for e in read_events(folder) if e["kind"] == "nonfinite"] == [3, 4]


def test_a_failed_checkpoint_is_told_and_the_run_goes_on(
    make: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine import checkpoints

    true_save = checkpoints.save_file
    failures = iter([True, True])

    def full_once(*arguments: Any, **options: Any) -> None:
        if next(failures, False):
            raise OSError(28, "No space left on device")
        true_save(*arguments, **options)

    monkeypatch.setattr(checkpoints, "save_file", full_once)
    folder = make("full", "sft")
    run(folder)
    failed = [e for e in read_events(folder) if e["kind"] == "checkpoint_failed"]
    assert failed
    assert "No space left" in failed[0]["what"]
    assert "MB are free" in failed[0]["what"]
    assert folder.checkpoint_steps()[-1] == 6
    assert not list(folder.checkpoints.glob("*.tmp-*"))


def test_a_best_step_without_its_checkpoint_is_not_the_best(
    make: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine import checkpoints
    from engine.methods.sft import SupervisedFineTuning

    true_save = checkpoints.save_file
    failures = iter([True])
    rising = iter([9.0, 1.0, 2.0, 3.0])

    def full_once(*arguments: Any, **options: Any) -> None:
        if next(failures, False):
            raise OSError(28, "No space left on device")
        true_save(*arguments, **options)

    monkeypatch.setattr(checkpoints, "save_file", full_once)
    monkeypatch.setattr(SupervisedFineTuning, "evaluate", lambda self, check: {"eval_loss": next(rising)})
    folder = make("worse", "sft", evaluation__every=1, checkpoint__every=100, train__steps=3)
    run(folder)
    # Step 1 has the lowest loss, but its checkpoint met the full disk.
    assert folder.best() == {"step": 2, "metric": "eval_loss", "value": 2.0}
    assert 2 in folder.checkpoint_steps()


def test_micro_batch_size_does_not_change_the_loss(make: Callable[..., RunFolder]) -> None:
    for method in ("sft", "reward", "dpo"):
        one = run(make(f"one-{method}", method, train__steps=3))
        many = run(make(f"many-{method}", method, train__steps=3, train__tokens_per_micro_batch=40))
        for step in range(1, 4):
            assert many[step]["loss"] == pytest.approx(one[step]["loss"], rel=2e-4)


def test_keeps_the_newest_and_the_best_checkpoint(make: Callable[..., RunFolder]) -> None:
    folder = make("kept", "sft", train__steps=12, checkpoint__every=1, checkpoint__keep=2, optim__lr=0.5)
    run(folder)
    best = folder.best()
    assert best is not None
    assert folder.checkpoint_steps() == sorted({best["step"], 11, 12})


def test_a_model_that_does_not_fit_is_named_in_status(make: Callable[..., RunFolder], tmp_path: Path) -> None:
    folder = make("nowhere", "sft", model__path=str(tmp_path / "nothing"))
    assert train.main([str(folder.path)]) == 1
    status = read_status(folder)
    assert status is not None
    assert status.phase == "failed"
    assert status.error is not None
    assert "nothing" in status.error["what"]


def test_few_held_out_prompts_are_filled_up_from_training(make: Callable[..., RunFolder]) -> None:
    folder = make("few", "sft", eval_rows=1, probe__prompts=6, train__steps=1)
    assert KL in run(folder)[1]
    samples = [json.loads(line) for line in folder.samples_path.read_text().splitlines()]
    assert len({s["prompt"] for s in samples}) == 6
