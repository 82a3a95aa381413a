"""A reward run's held-out report as `runs show` words it."""

from __future__ import annotations

from typing import Any

from workbench.reward_words import report_fields

REPORT: dict[str, Any] = {
    "kind": "held_out_report",
    "step": 40,
    "accuracy": 0.8,
    "standard_error": 0.02,
    "pairs": 1200,
    "baselines": {"always_longer": {"accuracy": 0.55, "standard_error": 0.03, "pairs": 1200}},
    "calibration_error": 0.0412,
    "slices": {"longer answer": {"chosen": {"accuracy": 0.9, "pairs": 700}}},
}


def test_the_last_report_is_told_beside_its_baseline() -> None:
    fields = report_fields([{**REPORT, "step": 20, "accuracy": 0.1}, REPORT, {"kind": "done"}])
    assert fields["held out"] == (
        "accuracy 0.800 ± 0.020 of 1,200 pairs at step 40; always the longer answer: 0.550 ± 0.030"
    )
    assert fields["calibration"] == "expected error 0.041"
    assert fields["  longer answer"] == "chosen 0.900 (700)"


def test_without_a_report_or_with_a_damaged_one_nothing_is_said() -> None:
    assert report_fields([{"kind": "done"}]) == {}
    assert report_fields([{**REPORT, "slices": 3}]) == {}
