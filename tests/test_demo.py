"""The demo, start to end, as a person runs it: its figures, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The report of `workbench demo --headless --json --rlhf ppo --rlhf grpo`, and its workspace."""
    workspace = tmp_path_factory.mktemp("demo") / "workspace"
    done = subprocess.run(
        [sys.executable, "-m", "workbench.cli", "--workspace", str(workspace), "demo", "--headless", "--json",
         "--rlhf", "ppo", "--rlhf", "grpo"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(json.dumps({key: report[key] for key in ("sft", "reward", "dpo", "controls", "sampled_kl")}, indent=1))
    print(json.dumps(report["gold"], indent=1))
    print("seconds", report["seconds"])
    return report, workspace


def test_sft_lowers_the_held_out_loss_by_more_than_five_standard_errors(demo: Any) -> None:
    difference = demo[0]["sft"]["difference"]
    assert difference["mean"] < 0
    assert abs(difference["in_standard_errors"]) > 5


def test_sft_leaves_room_to_improve(demo: Any) -> None:
    assert 0.75 <= demo[0]["gold"]["models"]["sft"]["total"]["mean"] <= 0.88


def test_the_reward_model_is_above_080_and_above_chance_on_every_component(demo: Any) -> None:
    reward = demo[0]["reward"]
    assert reward["accuracy"]["mean"] > 0.80
    for name, one in reward["by_error"].items():
        assert one["mean"] > 0.5 + 2 * one["standard_error"], name


@pytest.mark.parametrize("after", ["dpo", "ppo", "grpo"])
def test_preference_training_raises_the_gold_score_by_more_than_five_standard_errors(demo: Any, after: str) -> None:
    difference = demo[0]["gold"]["differences"][f"{after} - sft"]
    assert demo[0]["gold"]["prompts"] >= 600
    assert difference["mean"] > 0
    assert difference["in_standard_errors"] > 5


def test_the_controls_cannot_do_it(demo: Any) -> None:
    controls = demo[0]["controls"]
    assert 0.40 <= controls["always_longer"] <= 0.60
    assert 0.40 <= controls["always_shorter"] <= 0.60
    assert controls["bag_of_words"] < 0.60


def test_every_run_that_changes_a_policy_tells_its_sampled_kl(demo: Any) -> None:
    assert set(demo[0]["sampled_kl"]) == {"sft", "dpo", "ppo", "grpo"}
    for one in demo[0]["sampled_kl"].values():
        assert one["nats_per_sequence"] > 0
        assert one["standard_error"] > 0


def test_its_runs_begin_where_they_must(demo: Any) -> None:
    """DPO at ln 2, PPO at ratio 1 and KL 0, every sampled KL at 0."""
    import math

    import workbench as wb

    report, path = demo
    workspace = wb.open(path)

    def first(method: str) -> dict[str, float]:
        return workspace.run(report["runs"][method]).metrics()[0].metrics

    assert first("dpo")["eval_preference_loss"] == pytest.approx(math.log(2), abs=1e-4)
    for method in ("sft", "dpo", "ppo", "grpo"):
        assert first(method)["kl/policy_reference_nats_per_sequence"] == 0.0
    ppo = [line.metrics for line in workspace.run(report["runs"]["ppo"]).metrics()]
    first_of_policy = next(metrics for metrics in ppo if "loss/policy_avg" in metrics)
    assert first_of_policy["val/first_ratio_deviation"] == 0.0
    assert first_of_policy["objective/kl"] == 0.0


def test_the_value_of_its_ppo_foresees_returns_after_warm_up(demo: Any) -> None:
    import workbench as wb

    report, path = demo
    ppo = [line.metrics for line in wb.open(path).run(report["runs"]["ppo"]).metrics()]
    explained = [metrics["val/explained_variance"] for metrics in ppo if "loss/policy_avg" in metrics]
    assert sum(explained) / len(explained) > 0.3


@pytest.mark.parametrize("method", ["sft", "reward", "dpo", "ppo", "grpo"])
def test_healthy_runs_raise_no_alarm(demo: Any, method: str) -> None:
    """And those on rollouts have heard what they judge by: silence because nothing was measured is none."""
    import workbench as wb
    from engine.run.alarm_rules import RULES, limits_of

    report, path = demo
    run = wb.open(path).run(report["runs"][method])
    assert [event["what"] for event in run.events() if event["kind"] == "alarm"] == []
    rows = run.metrics()
    for rule in RULES:
        if (limits := limits_of(rule, run.config())) is not None:
            kept: list[Any] = []
            readings = 0
            for line in rows:
                if row := rule.takes(line.metrics):
                    found = rule.measure([*kept, (line.step, row)], limits.window)
                    kept = list(rule.kept([*kept, (line.step, row)], limits.window))
                    readings += found is not None
            assert readings >= limits.window, rule.name


def test_its_arena_prefers_what_was_trained(demo: Any) -> None:
    rate = demo[0]["arena"]["win_rate"]
    assert rate["low"] > 0.5
    assert rate["low"] < rate["rate"] < rate["high"]


def test_what_it_saved_loads_with_plain_peft_and_transformers(demo: Any) -> None:
    report, path = demo
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "full, adapter = map(Path, sys.argv[1:])\n"
        "model = AutoModelForCausalLM.from_pretrained(full)\n"
        "tuned = PeftModel.from_pretrained(model, adapter)\n"
        "tokenizer = AutoTokenizer.from_pretrained(full)\n"
        "ids = tokenizer('Hello', return_tensors='pt').input_ids\n"
        "assert tuned(ids).logits.isfinite().all()\n"
    )
    newest = [sorted((path / "runs" / report["runs"][m] / "checkpoints").glob("step-*"))[-1] for m in ("sft", "ppo")]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, newest)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
