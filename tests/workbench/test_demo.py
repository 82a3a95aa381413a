"""The demo's figures from what was measured, its report within 80 columns, its workspace never overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench.canonical_rows import PromptRow, user
from workbench.demo import demo_workspace
from workbench.demo_figures import gold_scores
from workbench.demo_report import report_lines
from workbench.demo_stations import DATASETS, MODELS
from workbench.errors import WorkbenchError
from workbench.generation import Answer, Sampling
from workbench.model_names import ResolvedModel
from workbench.pair_generation import Answered
from workbench.workspace import init

NAMES = (*MODELS, "ppo", "grpo")
ASKED = "I am Mia and my chain slips. Answer in one line, without a note."
GOOD, BAD = "Hello Mia, your chain slips, so replace it.", "Hello Mia, your chain slips, so oil it."


def estimate(mean: float = 0.5) -> dict[str, Any]:
    return {"mean": mean, "standard_error": 0.01, "n": 600, "clusters": 24}


def facts() -> dict[str, Any]:
    """A report's values as `run_demo` returns them."""
    change = {**estimate(0.1), "in_standard_errors": 10.0}
    gold = {
        "total": estimate(),
        "tokens": estimate(19.25),
        "distinct_words": 134,
        "components": {name: estimate() for name in ("part", "action", "form")},
    }
    kl = {"nats_per_sequence": 1.2, "standard_error": None, "nats_per_token": 0.05, "step": 40}
    rate = {"rate": 0.6, "low": 0.55, "high": 0.65, "wins": 9, "losses": 3, "ties": 3}
    return {
        "workspace": "/somewhere/workbench-demo-abcdefgh",
        "data": dict.fromkeys(DATASETS, 1000),
        "pairs": {
            "pairs": 5000, "verdicts": {"a": 2500, "b": 2500}, "verdicts_from": "the sample rule (synthetic)",
            "train": 4500, "held_out": 500,
        },
        "sft": {"loss_before": estimate(), "loss_after": estimate(), "difference": change},
        "reward": {"accuracy": estimate(), "by_error": {"part": estimate(0.515), "several": estimate(0.9)}},
        "dpo": {
            f"accuracy_{name}": estimate(0.9)
            for name in ("before", "after", "by_dpo_log_prob", "by_sft_log_prob", "by_base_log_prob")
        },
        "controls": {"always_longer": 0.5, "always_shorter": 0.5, "bag_of_words": 0.5},
        "sampled_kl": dict.fromkeys(NAMES[1:], kl),
        "gold": {
            "prompts": 672,
            "models": dict.fromkeys(NAMES, gold),
            "differences": {"sft - base": change, "dpo - sft": change, "ppo - sft": change, "grpo - sft": change},
        },
        "arena": {"arena": "sft-dpo", "identical": 3, "win_rate": rate},
        "seconds": {"data": 1.0, "total": 200.0},
    }  # fmt: skip


def test_the_report_fits_80_columns_and_calls_verdicts_synthetic() -> None:
    lines = report_lines(facts())
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "sample rule (synthetic)" in text
    assert "DPO over SFT: +0.100 ± 0.010 (10.0 s.e.)" in text
    assert "GRPO over SFT: +0.100" in text
    # 0.515 less 1.96 standard errors of 0.01 is below 0.5.
    assert "The reward model may be at chance on part:" in text
    assert [line.split() for line in lines].count(["distinct", "words", *["134"] * 4]) == 1
    # Four models stand side by side, and the fifth below.
    heads = [line.split() for line in lines]
    assert heads.index(["base", "SFT", "DPO", "PPO"]) < heads.index(["GRPO"])


def test_gold_scores_are_means_with_paired_differences() -> None:
    prompts: list[PromptRow] = [
        {"id": f"p:{n}", "prompt": [user(ASKED)], "tags": {"combination": f"c{n}"}} for n in range(4)
    ]

    def said(texts: list[str]) -> list[Answer]:
        return [Answer(f"p:{n}", 0, text, True, 9, -1.0) for n, text in enumerate(texts)]

    answered = Answered(
        prompts,
        [ResolvedModel(name, Path("/")) for name in NAMES],
        [said([BAD] * 4), said([BAD, BAD, GOOD, GOOD]), said([GOOD] * 4), said([GOOD] * 4), said([BAD] * 4)],
        Sampling(),
        {},
    )
    gold = gold_scores(answered, NAMES)
    assert gold["models"]["dpo"]["total"]["mean"] == 1.0
    assert gold["models"]["base"]["components"]["action"]["mean"] == 0.0
    assert gold["models"]["base"]["tokens"]["mean"] == 9.0
    # oil and replace
    assert gold["models"]["sft"]["distinct_words"] == gold["models"]["base"]["distinct_words"] + 1
    parts = len(gold["models"]["base"]["components"])
    assert gold["differences"]["sft - base"]["mean"] == pytest.approx(0.5 / parts)
    assert gold["differences"]["dpo - sft"]["clusters"] == 4
    assert gold["differences"]["grpo - sft"]["mean"] == pytest.approx(-0.5 / parts)


def test_a_workspace_that_holds_a_demo_is_refused(tmp_path: Path) -> None:
    made = demo_workspace(str(tmp_path / "new"))
    (made.datasets / "answers").mkdir()
    with pytest.raises(WorkbenchError, match="holds a demo already"):
        demo_workspace(str(tmp_path / "new"))
    other = init(tmp_path / "other")
    assert demo_workspace(str(other.root)) == other
