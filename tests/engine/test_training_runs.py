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
from engine.run.config_toml import read_config
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.method_names import ON_ROLLOUTS
from engine.run.metric_names import OF_THE_MACHINE
from engine.run.metrics_log import read_metrics
from engine.run.resume_settings import change_settings, changes_of
from engine.run.status import describe, new_status, read_status, write_status
from tests.engine.run_maker import make_run, write_rows

KL = "kl/policy_reference_nats_per_sequence"


def run(folder: RunFolder) -> dict[int, dict[str, float]]:
    """Train to the end of this attempt, counted as the supervisor does; each step's metrics, timings left out."""
    before = new_status(folder, read_status(folder), phase="preparing")
    write_status(folder, replace(before, attempt=before.attempt + 1))
    assert train.main([str(folder.path)]) == 0, folder.log_path
    return curve(folder)


def curve(folder: RunFolder) -> dict[int, dict[str, float]]:
    return {
        line.step: {name: value for name, value in line.metrics.items() if name not in OF_THE_MACHINE}
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
        if method in ON_ROLLOUTS:
            settings = {
                "model__reward_path": str(tiny_model_folder), "model__reward_adapter": str(reward_model), **settings,
            }  # fmt: skip
        return make_run(tmp_path / name, method, tiny_model_folder, **settings)

    return build


METHODS = [
    *[("sft", "lora"), ("sft", "full"), ("reward", "lora"), ("dpo", "lora"), ("dpo", "full"), ("ppo", "lora")],
    *[("kto", "lora"), ("simpo", "lora"), ("orpo", "full"), ("grpo", "lora"), ("rloo", "lora")],
]
BESIDE_OTHERS = [("dpo", "lora"), ("simpo", "lora"), ("rloo", "lora")]
"""Those that resume as another one does, which the fast tests have."""


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
        assert {s["step"] for s in samples if s["source"] == "greedy"} == {0, 3, 6}
        assert all(len(s["logratio"]) == s["length"] for s in samples if s["source"] != "greedy")


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
    assert [s for s in range(1, 7) if "loss/policy_avg" in steps[s]] == [3, 4, 5, 6]  # two steps warm the value up
    for step in range(3, 7):
        assert steps[step]["val/first_ratio_deviation"] == 0.0
    assert [steps[s]["objective/kl"] for s in (1, 2, 3)] == [0.0] * 3
    assert steps[4]["objective/kl"] != 0.0


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_grouped_methods_start_at_ratio_1_and_kl_0(make: Callable[..., RunFolder], method: str) -> None:
    folder = make("start", method)
    steps = run(folder)
    assert steps[1]["objective/kl"] == 0.0
    for step in range(1, 7):
        assert steps[step]["val/first_ratio_deviation"] == 0.0
        assert steps[step]["completions/max_length"] <= 8
    assert steps[2]["objective/kl"] != 0.0
    assert steps[6]["eval_reward_standard_error"] > 0.0
    samples = [json.loads(line) for line in folder.samples_path.read_text().splitlines()]
    rollouts = [s for s in samples if s["source"] == "rollout" and s["step"] == 1]
    assert [s["prompt_id"] for s in rollouts[:2]] == [rollouts[0]["prompt_id"]] * 2
    assert len({s["prompt_id"] for s in rollouts}) == 4
    assert all(len(s["logratio"]) == s["length"] for s in rollouts)


def test_a_reward_model_learns_which_answer_names_the_word(make: Callable[..., RunFolder]) -> None:
    steps = run(make("learn", "reward", train__steps=40, train__batch_size=12, evaluation__every=40))
    assert steps[40]["loss"] < steps[1]["loss"] - 0.2
    assert steps[40]["accuracy"] > 0.8


def test_a_reward_run_tells_slices_calibration_and_baseline_at_each_evaluation(make: Callable[..., RunFolder]) -> None:
    folder = make("told", "reward")
    lines = (folder.data / "eval.jsonl").read_text().splitlines()
    write_rows(
        folder.data / "eval.jsonl", [json.loads(line) | {"tags": {"kind": "ab"[i % 2]}} for i, line in enumerate(lines)]
    )
    steps = run(folder)
    reports = {e["step"]: e for e in read_events(folder) if e["kind"] == "held_out_report"}
    assert list(reports) == [0, 3, 6]
    for step, report in reports.items():
        assert report["pairs"] == 8
        assert report["accuracy"] == steps[step]["eval_accuracy"]
        assert report["calibration_error"] == steps[step]["eval_calibration_error"]
        assert sum(found["pairs"] for found in report["slices"]["kind"].values()) == 8
        assert report["baselines"]["always_longer"]["pairs"] == 8


@pytest.mark.parametrize(("eval_rows", "of", "answers"), [(8, "held-out answers", 16), (0, "training answers", 48)])
def test_a_reward_model_is_saved_with_the_scale_of_its_own_weights(
    make: Callable[..., RunFolder], eval_rows: int, of: str, answers: int
) -> None:
    folder = make("scaled", "reward", eval_rows=eval_rows, train__steps=2, checkpoint__every=1, evaluation__every=2)
    run(folder)
    scales = [json.loads((folder.checkpoint_path(s) / "reward_head.json").read_text()) for s in (1, 2)]
    assert [(scale["of"], scale["answers"]) for scale in scales] == [(of, answers)] * 2
    assert scales[0]["mean"] != scales[1]["mean"]


@pytest.mark.parametrize(
    ("method", "kind"),
    [pytest.param(*one, marks=[pytest.mark.slow] * (one in BESIDE_OTHERS)) for one in METHODS],
)
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


def test_a_run_that_goes_on_in_smaller_portions_keeps_its_losses_and_its_reference(
    make: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(make("whole", "dpo"))
    folder = make("halved", "dpo")
    stop_at_step(monkeypatch, folder, 3)
    run(folder)
    change_settings(folder, changes_of(read_config(folder.config_path), ["train.tokens_per_micro_batch=60"], "halved"))
    steps = run(folder)
    assert kinds(folder).count("settings_changed") == kinds(folder).count("reference_cached") == 1
    for step in range(1, 7):
        assert steps[step]["loss"] == pytest.approx(expected[step]["loss"], rel=2e-4)


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
    from engine.objectives import preference

    calls = []

    def broken(chosen: torch.Tensor, rejected: torch.Tensor, settings: preference.LossSettings) -> torch.Tensor:
        if torch.is_grad_enabled():
            calls.append(True)
            if len(calls) > 2:
                return preference.sigmoid(chosen, rejected, settings) * math.nan
        return preference.sigmoid(chosen, rejected, settings)

    monkeypatch.setitem(preference.LOSSES, "sigmoid", broken)
    folder = make("broken", "dpo", train__nonfinite_stop_after=2)
    assert train.main([str(folder.path)]) == 1
    status = read_status(folder)
    assert status is not None
    assert status.phase == "failed"
    assert status.error is not None
    assert "2 times in a row" in status.error["what"]
    assert "optim.lr" in status.error["what"]
    assert [e["step"] for e in read_events(folder) if e["kind"] == "nonfinite"] == [3, 4]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_refused_step_leaves_weights_and_moments_as_they_were(
    make: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    from engine.methods.sft import SupervisedFineTuning

    true_terms = SupervisedFineTuning._terms
    calls = []

    def broken(self: Any, examples: Any) -> Any:
        terms = true_terms(self, examples)
        calls.append(True)
        if len(calls) != 3:
            return terms
        # The root of 0 has an infinite slope, times 0: a loss that is a number and a gradient that is none.
        harm = {"loss": lambda x: x * math.nan, "gradient": lambda x: x + (x * 0.0).sqrt()}[what]
        return replace(terms, losses={key: harm(value) for key, value in terms.losses.items()})

    monkeypatch.setattr(SupervisedFineTuning, "_terms", broken)
    folder = make("refused", "sft", train__steps=4, checkpoint__every=1, checkpoint__keep=4, evaluation__every=4)
    steps = run(folder)
    assert "loss" not in steps[3]
    assert math.isfinite(steps[4]["loss"])
    (event,) = [e for e in read_events(folder) if e["kind"] == "nonfinite"]
    assert (event["step"], event["what"], event["in_a_row"]) == (3, what, 1)
    before, refused, after = (weights(folder, step) for step in (2, 3, 4))
    state = [name for name in before if not name.endswith("random.safetensors")]
    assert len(state) == 2
    assert all(refused[name] == before[name] != after[name] for name in state)


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


def test_a_run_that_no_longer_improves_ends_early(
    make: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.methods.sft import SupervisedFineTuning

    losses = iter([5.0, 2.0, 1.0, 1.5, 1.0])
    monkeypatch.setattr(SupervisedFineTuning, "evaluate", lambda self, check: {"eval_loss": next(losses)})
    folder = make("spent", "sft", evaluation__every=1, checkpoint__every=100, checkpoint__patience=2, train__steps=9)
    steps = run(folder)
    # Evaluations at steps 3 and 4 are no better than the one at step 2: equal is not better.
    assert max(steps) == 4
    assert KL in steps[4]
    assert folder.best() == {"step": 2, "metric": "eval_loss", "value": 1.0}
    assert folder.checkpoint_steps()[-1] == 4
    (event,) = [e for e in read_events(folder) if e["kind"] == "early_stopped"]
    assert (event["step"], event["total_steps"], event["best"]["step"]) == (4, 9, 2)
    state = describe(folder)
    assert (state.state, state.reason[:25]) == ("done", "early, at step 4 of 9: no")
    # What was spent stays spent: a worker that was killed before its last word has nothing left to train.
    assert max(run(folder)) == 4


def test_a_metric_that_is_not_measured_is_refused_by_name(make: Callable[..., RunFolder]) -> None:
    folder = make("unmeasured", "reward", checkpoint__metric="eval_acc")
    assert train.main([str(folder.path)]) == 1
    status = read_status(folder)
    assert status is not None
    assert status.error is not None
    assert '"eval_acc": this run does not measure it. It measures: eval_accuracy, ' in status.error["what"]


def test_probes_that_cost_too_much_come_more_rarely(make: Callable[..., RunFolder]) -> None:
    folder = make("dear", "sft", train__steps=9, probe__every=1, probe__max_share=0.0)
    assert [step for step, metrics in run(folder).items() if KL in metrics] == [0, 9]
    (event,) = [e for e in read_events(folder) if e["kind"] == "probe_stretched"]
    assert event["step"] == 1
    assert "probe.max_share = 0 " in event["what"]


def test_a_best_checkpoint_that_a_kill_kept_from_being_told_is_told_on_resume(make: Callable[..., RunFolder]) -> None:
    folder = make("untold", "sft")
    run(folder)
    best = folder.best()
    assert best is not None
    folder.best_path.unlink()
    run(folder)
    assert folder.best() == best


def test_micro_batch_size_does_not_change_the_loss(make: Callable[..., RunFolder]) -> None:
    for method in ("sft", "reward", "dpo", "grpo"):
        one = run(make(f"one-{method}", method, train__steps=2))
        many = run(make(f"many-{method}", method, train__steps=2, train__tokens_per_micro_batch=40))
        for step in range(1, 3):
            assert many[step]["loss"] == pytest.approx(one[step]["loss"], rel=2e-4)


def test_keeps_the_newest_and_the_best_checkpoint(make: Callable[..., RunFolder]) -> None:
    folder = make("kept", "sft", train__steps=12, checkpoint__every=1, checkpoint__keep=2, optim__lr=0.5)
    run(folder)
    best = folder.best()
    assert best is not None
    assert folder.checkpoint_steps() == sorted({best["step"], 11, 12})
    whole = {step for step in folder.checkpoint_steps() if (folder.checkpoint_path(step) / "trainer").is_dir()}
    assert whole == {11, 12}


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


def test_a_template_of_ones_own_goes_from_run_toml_to_answers(
    make_tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped and resumed after the model's folder was given another template, the run is as it would have been."""
    from engine.data.chat import ChatTokenizer
    from engine.generate import Job, generate
    from engine.run.config_toml import read_config, to_toml
    from engine.run_tokenizer import chat_tokenizer, frozen

    model = make_tiny_model(tmp_path / "model")
    own = (
        "{% for m in messages %}<|im_start|>{{ m.role[0] }} {{ m.content }}<|im_end|>{% endfor %}"
        "{{ '<|im_start|>a ' if add_generation_prompt }}"
    )

    def build(name: str) -> RunFolder:
        folder = make_run(tmp_path / name, "sft", model, chat__arguments="mood=glad", probe__prompts=0)
        config = read_config(folder.config_path)
        chat = frozen(config.chat, own, chat_tokenizer(config.chat, model, None, own))
        folder.config_path.write_text(to_toml(replace(config, chat=chat)))
        folder.chat_template_path.write_text(own)
        return folder

    whole, parts = build("whole"), build("parts")
    expected = run(whole)
    stop_at_step(monkeypatch, parts, 3)
    run(parts)
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert run(parts) == expected
    adapter = parts.checkpoint_path(6)
    assert ChatTokenizer.of_model(model, adapter).render([{"role": "user", "content": "Hi"}], True) == (
        "<|im_start|>u Hi<|im_end|><|im_start|>a "
    )
    answers = []
    for over in (str(adapter), ""):
        (tmp_path / "prompts.jsonl").write_text('{"id": "p", "prompt": [{"role": "user", "content": "Say sea"}]}\n')
        job = {"model": {"path": str(model), "adapter": over}, "prompts": str(tmp_path / "prompts.jsonl")}
        generate(Job.read({**job, "out": str(tmp_path / "out.jsonl"), "max_new_tokens": 4, "temperature": 0}))
        answers.append(json.loads((tmp_path / "out.jsonl").read_text()))
    assert answers[0]["logprob"] != answers[1]["logprob"]
