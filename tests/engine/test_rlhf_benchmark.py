"""The RLHF benchmark on a model of two small layers: it runs on both sides, and their losses agree round by round."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import rlhf, rlhf_ppo
from tests.benchmarks.rlhf_sides import Plan, reward_folder
from tests.benchmarks.training_data import draw_rows, write_model
from tests.engine.test_training_benchmark import SMALL


@pytest.mark.parametrize("method", ["grpo", pytest.param("rloo", marks=pytest.mark.slow)])
def test_both_sides_train_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    folder = write_model(tmp_path / "model", layers=2, source=None, **SMALL)
    rows = [row.prompt[:20] for row in draw_rows(2, SMALL["vocab_size"])]
    line = rlhf.compare(Plan(method, "fp32", 2, 3, 5, 3), folder, rows)
    assert line["losses_agree"], line["losses"]
    assert len({round(loss, 6) for loss in line["losses"]["engine"]}) == 3
    assert line["rounds"] == 2
    for stage in ("round", "generation", "the rest"):
        assert line["stages"][stage]["cpu_trl_s"] > 0
    report = {
        "date": "2026-11-30", "threads": 1, "load_before": 0.0, "load_after": 0.0, "model": "random weights",
        "layers": 2, "precision": "fp32", "prompts": 2, "generations": 3, "new_tokens": 5, "prompt_tokens": 20,
        "lines": [line],
    }  # fmt: skip
    assert f"{method} generation" in rlhf.table(report)


def test_the_rest_is_what_generation_leaves() -> None:
    found = rlhf.stages({"round": [(5.0, 9.0), (6.0, 8.0)], "generation": [(2.0, 3.0), (1.0, 1.0)]})
    assert found["the rest"] == [(3.0, 6.0), (5.0, 7.0)]


def test_sampling_alone_is_timed_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    folder = write_model(tmp_path / "model", layers=2, source=None, **SMALL)
    rows = [row.prompt[:20] for row in draw_rows(2, SMALL["vocab_size"])]
    line = rlhf.sampling_alone(Plan("rloo", "fp32", 2, 3, 5, 3), folder, rows)
    assert line["stages"].keys() == {"generation"}
    assert min(line["stages"]["generation"][f"cpu_{side}_s"] for side in ("trl", "engine")) > 0


def test_ppos_engine_side_makes_rounds_of_its_own_rollouts(tmp_path: Path) -> None:
    """TRL 1.12 cannot be installed beside 1.16: its side refuses, and the other is tried alone."""
    folder = write_model(tmp_path / "model", layers=2, source=None, **SMALL)
    plan = Plan("ppo", "fp32", 2, 3, 5, 2)
    rows = [row.prompt[:20] for row in draw_rows(plan.rows, SMALL["vocab_size"])]
    engine = rlhf_ppo.engine_side(plan, folder, reward_folder(plan, folder, tmp_path / "reward"), rows)
    before = {name: value.detach().clone() for name, value in engine.roles.value_weights.items()}
    with rlhf_ppo.timed_sampling(engine):
        for _ in range(plan.rounds):
            engine.round(list(range(plan.rows)), [])
    assert {stage: len(found) for stage, found in engine.clock.seconds.items()} == {"generation": 2, "round": 2}
    assert len(set(engine.losses)) == 2
    assert any(bool((engine.roles.value_weights[name] != value).any()) for name, value in before.items())
    with pytest.raises(SystemExit, match="there is trl 1.16.0"):
        rlhf_ppo.trl_side(plan, folder, rows, tmp_path / "trl")
