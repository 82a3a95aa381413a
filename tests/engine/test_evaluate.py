"""`engine.evaluate`: its figures are those of a plain forward pass, and its faults are one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import evaluate, train
from engine.data.chat import ChatTokenizer
from engine.data.examples import read_preferences
from tests.engine.run_maker import make_run, preference_rows, write_rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_rows(tmp_path / "pairs.jsonl", preference_rows(6, seed=4))
    return tmp_path / "pairs.jsonl"


def run(tmp_path: Path, *jobs: dict[str, Any]) -> list[list[dict[str, Any]]]:
    for number, job in enumerate(jobs):
        job |= {"out": str(tmp_path / f"out{number}.jsonl"), "device": "cpu"}
    (tmp_path / "job.json").write_text(json.dumps({"jobs": jobs}))
    assert evaluate.main([str(tmp_path / "job.json")]) == 0
    return [[json.loads(line) for line in Path(job["out"]).read_text().splitlines()] for job in jobs]


def plain_log_prob(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> float:
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        logs = model(ids).logits[0].log_softmax(-1)
    return float(sum(logs[t - 1, ids[0, t]] for t in range(len(prompt), ids.shape[1])))


def test_log_probs_and_losses(tiny_model: Any, tiny_model_folder: Path, data: Path, tmp_path: Path) -> None:
    model = {"path": str(tiny_model_folder), "adapter": ""}
    pairs, losses = run(
        tmp_path,
        {"model": model, "data": str(data), "kind": "logprob"},
        {"model": model, "data": str(data), "kind": "loss"},
    )
    examples, _ = read_preferences(data, ChatTokenizer.from_folder(tiny_model_folder), 1024)
    right = 0.0
    for example, pair, loss in zip(examples, pairs, losses, strict=False):
        chosen = plain_log_prob(tiny_model, example.prompt, example.chosen)
        rejected = plain_log_prob(tiny_model, example.prompt, example.rejected)
        assert pair["chosen"] == pytest.approx(chosen, abs=1e-3)
        assert pair["rejected"] == pytest.approx(rejected, abs=1e-3)
        assert loss["nll"] == pytest.approx(-chosen, abs=1e-3)
        assert loss["tokens"] == len(example.chosen)
        right += chosen > rejected
    assert pairs[-1]["summary"]["accuracy"] == pytest.approx(right / len(examples))
    assert losses[-1]["summary"]["n"] == len(examples)


def test_rewards_are_those_that_peft_and_transformers_compute(
    tiny_model_folder: Path, data: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    folder = make_run(tmp_path / "reward", "reward", tiny_model_folder, train__steps=4)
    assert train.main([str(folder.path)]) == 0
    checkpoint = folder.checkpoint_path(4)
    model = {"path": str(tiny_model_folder), "adapter": str(checkpoint)}
    (rows,) = run(tmp_path, {"model": model, "data": str(data), "kind": "reward"})
    base = AutoModelForSequenceClassification.from_pretrained(str(tiny_model_folder), num_labels=1, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, str(checkpoint)).eval()
    examples, _ = read_preferences(data, ChatTokenizer.from_folder(tiny_model_folder), 1024)
    for example, row in zip(examples, rows, strict=False):
        with torch.no_grad():
            reward = theirs(torch.tensor([[*example.prompt, *example.chosen]])).logits.item()
        assert row["chosen"] == pytest.approx(reward, abs=1e-4)


def scored_rows(rows: list[dict[str, Any]], answer: str) -> list[dict[str, Any]]:
    return [{"id": row["id"], "prompt": row["prompt"], "completion": row[answer]} for row in rows]


@pytest.mark.parametrize(("kind", "tied"), [("lora", True), ("full", True), ("full", False)])
def test_answers_are_scored_one_by_one_as_in_pairs(
    make_tiny_model: Any, data: Path, tmp_path: Path, kind: str, tied: bool
) -> None:
    base = make_tiny_model(tmp_path / "base", tie_word_embeddings=tied)
    folder = make_run(tmp_path / "reward", "reward", base, train__steps=4, adapter__kind=kind)
    assert train.main([str(folder.path)]) == 0
    checkpoint = folder.checkpoint_path(4)
    model = {"path": str(base), "adapter": str(checkpoint)} if kind == "lora" else {"path": str(checkpoint)}
    write_rows(tmp_path / "chosen.jsonl", scored_rows(preference_rows(6, seed=4), "chosen"))
    pairs, answers = run(
        tmp_path,
        {"model": model, "data": str(data), "kind": "reward"},
        {"model": model, "data": str(tmp_path / "chosen.jsonl"), "kind": "score"},
    )
    scale = json.loads((checkpoint / "reward_head.json").read_text())
    assert len(answers) == 7
    for pair, answer in zip(pairs[:-1], answers, strict=False):
        assert answer["reward"] == pytest.approx(pair["chosen"], abs=1e-5)
        assert answer["normalised"] == pytest.approx((answer["reward"] - scale["mean"]) / scale["std"])
    summary = answers[-1]["summary"]
    assert summary["reward"] == pytest.approx(sum(row["reward"] for row in answers[:-1]) / 6)
    assert summary["scale"]["of"] == "held-out answers"


def test_texts_are_read_by_the_tokenizer_and_template_that_the_checkpoint_carries(
    tiny_model_folder: Path, data: Path, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "reward", "reward", tiny_model_folder, train__steps=1)
    assert train.main([str(folder.path)]) == 0
    checkpoint = folder.checkpoint_path(1)
    write_rows(tmp_path / "chosen.jsonl", scored_rows(preference_rows(2, seed=4), "chosen"))
    job = {"model": {"path": str(tiny_model_folder), "adapter": str(checkpoint)}, "kind": "score"}
    (before,) = run(tmp_path, job | {"data": str(tmp_path / "chosen.jsonl")})
    config = checkpoint / "tokenizer_config.json"
    template = json.loads(config.read_text())
    config.write_text(json.dumps(template | {"chat_template": "In short. " + template["chat_template"]}))
    (after,) = run(tmp_path, job | {"data": str(tmp_path / "chosen.jsonl")})
    assert before[0]["reward"] != after[0]["reward"]


def test_a_model_without_a_reward_head_is_named(
    tiny_model_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = {"model": {"path": str(tiny_model_folder)}, "data": str(data), "kind": "reward", "out": str(tmp_path / "o")}
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert evaluate.main([str(tmp_path / "job.json")]) == 1
    assert "not a reward model" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
