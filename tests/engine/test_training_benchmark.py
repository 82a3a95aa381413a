"""The training benchmark on a model of two small layers: it runs on both sides, and their losses agree step by step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import training
from tests.benchmarks.training_data import draw_rows, write_model
from tests.benchmarks.training_sides import Plan

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@pytest.mark.parametrize(
    ("method", "tuned"), [("sft", False), ("sft", True), ("reward", False), ("dpo", False), ("dpo", True)]
)
def test_both_sides_train_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, tuned: bool) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    folder = write_model(tmp_path / "model", layers=2, source=None, **SMALL)
    line = training.compare(Plan(method, "fp32", 3, 2, tuned), folder, draw_rows(2, SMALL["vocab_size"]))
    assert line["steps"] == 2
    assert line["losses_agree"], line["losses"]
    assert len(set(line["losses"]["engine"])) == 3
    assert line["useful_gflop"] > 0


def test_the_interval_is_of_the_median() -> None:
    found = training._interval([2.0, 2.0, 2.0, 9.0, 2.0])
    assert found == {"median": 2.0, "low": 2.0, "high": 9.0}
