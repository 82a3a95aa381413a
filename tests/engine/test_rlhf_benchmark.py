"""The RLHF benchmark on a model of two small layers: it runs on both sides, and their losses agree round by round."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import rlhf
from tests.benchmarks.rlhf_sides import Plan
from tests.benchmarks.training_data import draw_rows, write_model
from tests.engine.test_training_benchmark import SMALL


@pytest.mark.parametrize("method", rlhf.METHODS)
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
        "layers": 2, "precision": "fp32", "prompts": 2, "generations": 3, "new_tokens": 5, "lines": [line],
    }  # fmt: skip
    assert f"{method} generation" in rlhf.table(report)


def test_the_rest_is_what_generation_leaves() -> None:
    found = rlhf.stages({"round": [(5.0, 9.0), (6.0, 8.0)], "generation": [(2.0, 3.0), (1.0, 1.0)]})
    assert found["the rest"] == [(3.0, 6.0), (5.0, 7.0)]
