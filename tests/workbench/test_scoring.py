"""Scored datasets: which texts are answers, the figures, and the rows that are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from workbench import scoring
from workbench.dataset_store import add_dataset, open_dataset
from workbench.errors import UsageError
from workbench.evaluation import EvaluationJob, Measured
from workbench.model_names import ResolvedModel
from workbench.scoring import keep_scores, score
from workbench.workspace import Workspace

PAIRS = [
    {"prompt": "p0", "chosen": "longest", "rejected": "long", "kind": "x"},
    {"prompt": "p1", "chosen": "short", "rejected": "longer", "kind": "y"},
    {"prompt": "p1", "chosen": "same", "rejected": "size", "kind": "y", "margin": 0.5},
]


@pytest.fixture
def model(tmp_path: Path) -> ResolvedModel:
    folder = tmp_path / "reward-model"
    folder.mkdir()
    (folder / "reward_head.safetensors").touch()
    return ResolvedModel("run:rm@9", folder)


@pytest.fixture(autouse=True)
def length_is_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the engine: an answer's reward is its length, of scale 5 +- 2; "unscorable" has none."""

    def evaluate(jobs: Sequence[EvaluationJob], *, quiet: bool = False) -> list[Measured]:
        (job,) = jobs
        assert job.kind == "score"
        rows: dict[str, Mapping[str, float]] = {}
        for row in job.rows:
            said = row["completion"] if isinstance(row["completion"], str) else row["completion"][0]["content"]
            if said != "unscorable":
                rows[row["id"]] = {"reward": float(len(said)), "normalised": (len(said) - 5) / 2}
        return [Measured(rows, {"empty completion": len(job.rows) - len(rows)})]

    monkeypatch.setattr(scoring, "evaluate", evaluate)


def dataset(workspace: Workspace, tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    file = tmp_path / "d.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return add_dataset(workspace, file, "d").name


def test_pairs(workspace: Workspace, tmp_path: Path, model: ResolvedModel) -> None:
    scores = score(workspace, model, dataset(workspace, tmp_path, PAIRS), by="kind")
    assert scores.rewards["chosen"].mean == pytest.approx((7 + 5 + 4) / 3)
    assert scores.rewards["chosen"].clusters == 2
    assert scores.normalised["rejected"].mean == pytest.approx((-0.5 + 0.5 - 0.5) / 3)
    assert scores.accuracy is not None
    assert scores.accuracy.mean == pytest.approx(1.5 / 3)
    assert {value: one.mean for value, one in scores.by.items()} == {"x": 1.0, "y": -0.25}
    kept = keep_scores(workspace, "scored", scores)
    rows = list(open_dataset(workspace, "scored").rows())
    assert kept.shape == "preference"
    assert [row["tags"]["chosen_reward"] for row in rows] == [7.0, 5.0, 4.0]
    assert [row["tags"]["rejected_normalised_reward"] for row in rows] == [-0.5, 0.5, -0.5]
    assert [row["tags"]["kind"] for row in rows] == ["x", "y", "y"]
    assert [row["margin"] for row in rows] == [None, None, 0.5]  # type: ignore[typeddict-item]


def test_conversations_are_scored_by_the_turn_that_ends_them(
    workspace: Workspace, tmp_path: Path, model: ResolvedModel
) -> None:
    turns = [("user", "a"), ("assistant", "bb"), ("user", "c"), ("assistant", "dddd")]
    talk = [{"role": role, "content": text} for role, text in turns]
    name = dataset(workspace, tmp_path, [{"messages": talk}])
    scores = score(workspace, model, name)
    assert scores.rewards["completion"].mean == 4.0
    assert scores.accuracy is None
    keep_scores(workspace, "scored", scores)
    (row,) = open_dataset(workspace, "scored").rows()
    assert row["prompt"] == talk[:3]  # type: ignore[typeddict-item]
    assert row["tags"] == {"reward": 4.0, "normalised_reward": -0.5}


def test_rows_without_every_score_are_left_out_and_counted(
    workspace: Workspace, tmp_path: Path, model: ResolvedModel
) -> None:
    rows = [*PAIRS, {"prompt": "p9", "chosen": "unscorable", "rejected": "fine", "kind": "x"}]
    scores = score(workspace, model, dataset(workspace, tmp_path, rows))
    assert len(scores.rows) == 3
    assert scores.not_scored == {"empty completion": 1}


def test_prompts_alone_point_at_generate(workspace: Workspace, tmp_path: Path, model: ResolvedModel) -> None:
    name = dataset(workspace, tmp_path, [{"prompt": "p"}])
    with pytest.raises(UsageError, match=r"no answers to score; .* workbench generate --model M --prompts d --to N"):
        score(workspace, model, name)


def test_another_model_is_no_reward_model(workspace: Workspace, tmp_path: Path) -> None:
    name = dataset(workspace, tmp_path, PAIRS)
    with pytest.raises(UsageError, match="sample is no reward model"):
        score(workspace, ResolvedModel("sample", tmp_path), name)
