"""Runs on two sources with weights: what they take of each, what they say, and held-out figures of each source."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import train
from engine.data.chat import ChatTokenizer
from engine.data.sft_examples import read_sft
from engine.methods.sft import trained_tokens
from engine.prepared_data import PreparedData
from engine.run.blobs import blobs_used_by
from engine.run.config_toml import read_config
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.method_names import ON_ROLLOUTS
from engine.run.metric_names import metric_info
from engine.run.status import read_status
from tests.engine.run_maker import MIXED, make_run, write_rows
from tests.engine.test_training_runs import run, stop_at_step, weights

FIGURES = {
    "sft": ("eval_loss", "eval_mean_token_accuracy"),
    "reward": ("eval_loss", "eval_accuracy"),
    "dpo": ("eval_loss", "eval_rewards/accuracies"),
    "orpo": ("eval_loss", "eval_preference_loss", "eval_nll_loss"),
    "kto": ("eval_loss",),
    "ppo": ("eval_objective/scores",),
    "grpo": ("eval_reward",),
    "rloo": ("eval_reward",),
}


@pytest.fixture(scope="module")
def reward_model(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a short reward run."""
    folder = make_run(tmp_path_factory.mktemp("reward") / "reward", "reward", tiny_model_folder, train__steps=2)
    run(folder)
    return folder.checkpoint_path(2)


@pytest.fixture
def make(tiny_model_folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., RunFolder]:
    def made(name: str, method: str, **settings: Any) -> RunFolder:
        judge: dict[str, Any] = {}
        if method in ON_ROLLOUTS:
            adapter = str(request.getfixturevalue("reward_model"))
            judge = {"model__reward_path": str(tiny_model_folder), "model__reward_adapter": adapter}
        together = {"probe__prompts": 0, **MIXED, **judge, **settings}
        return make_run(tmp_path / name, method, tiny_model_folder, **together)

    return made


def rows_of(folder: RunFolder, side: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.data / f"{side}.jsonl").read_text().splitlines()]


def sources_told(folder: RunFolder) -> list[dict[str, Any]]:
    (event,) = (event for event in read_events(folder) if event["kind"] == "data")
    told: list[dict[str, Any]] = event["sources"]
    return told


@pytest.mark.parametrize("method", FIGURES)
def test_figures_of_the_sources_weighted_together_are_those_of_the_whole(
    make: Callable[..., RunFolder], method: str, tiny_model_folder: Path
) -> None:
    settings = {"ppo__value_warmup": 0} if method == "ppo" else {}
    folder = make("mixed", method, train__steps=1, evaluation__every=1, **settings)
    last = run(folder)[1]
    per_source = dict.fromkeys(FIGURES[method], (3.0, 5.0))
    if method in ("sft", "orpo"):
        held_out, _ = read_sft(folder.data / "eval.jsonl", ChatTokenizer.from_folder(tiny_model_folder), 128)
        tokens = [trained_tokens(example) for example in held_out]
        of_tokens = FIGURES["sft"] if method == "sft" else ("eval_nll_loss",)
        per_source |= dict.fromkeys(of_tokens, (float(sum(tokens[:3])), float(sum(tokens[3:]))))
    if method == "orpo":
        del per_source["eval_loss"]  # a sum of two means over different numbers
    for name, (near, far) in per_source.items():
        found = last[f"{name}/near"] * near + last[f"{name}/far"] * far
        assert found / (near + far) == pytest.approx(last[name], rel=1e-6), name
        assert last[f"{name}/near"] != last[f"{name}/far"] or "acc" in name
        info = metric_info(f"{name}/far")
        assert info is not None
        assert "of far alone" in info.definition
        if name in ("eval_loss", "eval_objective/scores", "eval_reward"):
            assert last[f"{name}_standard_error/far"] > 0


def test_a_figure_of_a_source_is_that_of_its_rows_alone(make: Callable[..., RunFolder]) -> None:
    told = run(make("mixed", "dpo", train__steps=1))[1]
    alone = make("alone", "dpo", train__steps=1, data__eval_rows_each=[0, 5], data__eval_rows=5)
    write_rows(alone.data / "eval.jsonl", rows_of(alone, "eval")[3:])
    expected = run(alone)[1]
    assert told["eval_loss/far"] == pytest.approx(expected["eval_loss"], rel=1e-6)
    assert told["eval_loss_standard_error/far"] == pytest.approx(expected["eval_loss_standard_error"], rel=1e-6)
    assert "eval_loss/near" not in expected


@pytest.mark.parametrize("weights_by", ["rows", "tokens"])
def test_a_run_takes_and_tells_the_shares_that_it_was_asked_for(
    make: Callable[..., RunFolder], weights_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.methods.sft import SupervisedFineTuning

    taken: Counter[str] = Counter()
    terms = SupervisedFineTuning._terms

    def counted(self: Any, examples: Any) -> Any:
        for example in examples:
            taken[example.id] += len(example.ids) if weights_by == "tokens" else 1
        return terms(self, examples)

    monkeypatch.setattr(SupervisedFineTuning, "_terms", counted)
    settings = {"train__steps": 0, "train__epochs": 3, "data__weights_by": weights_by}
    folder = make("mixed", "sft", **settings, evaluation__at_start=False, evaluation__every=1000)
    last = run(folder)
    near = sum(count for name, count in taken.items() if int(name[1:]) < 18)
    longest = 1 if weights_by == "rows" else 40
    assert abs(near - 0.25 * taken.total()) <= longest
    told = sources_told(folder)
    share = "share_of_examples" if weights_by == "rows" else "share_of_tokens"
    assert [source["name"] for source in told] == ["near", "far"]
    assert told[0][share] == pytest.approx(0.25, abs=0.02 if weights_by == "rows" else 0.05)
    assert [(source["rows"], source["held_out"]) for source in told] == [(18, 3), (6, 5)]
    assert told[1]["passes_an_epoch"] > 2
    if weights_by == "rows":
        assert max(last) == 18  # three epochs of 24 examples, four a step
        assert [source["examples_an_epoch"] for source in told] == [6, 18]


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_stopped_mixture_resumes_bit_equal(
    make: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Of 28 examples the last four are of the second epoch, and the small source is in its fourth pass or later."""
    settings = {"train__steps": 7, "data__weights_by": "tokens" if method == "dpo" else "rows"}
    whole = make("whole", method, **settings)
    expected = run(whole)
    folder = make("halved", method, **settings)
    stop_at_step(monkeypatch, folder, 3)
    run(folder)
    assert run(folder) == expected
    assert weights(folder, 7) == weights(whole, 7)


def test_runs_that_differ_in_weights_alone_share_their_tokens(
    make: Callable[..., RunFolder], tiny_model_folder: Path
) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    used = []
    for name, settings in (
        ("a", {}),
        ("b", {"data__weights": [0.5, 0.5]}),
        ("c", {"data__train_rows_each": [17, 7]}),
    ):
        folder = make(name, "sft", **settings)
        PreparedData(read_config(folder.config_path), folder, tokenizer).prepare()
        used.append(blobs_used_by(folder))
    assert used[0] == used[1]
    # What is counted for each source is kept with the tokens.
    assert used[2]["train"] != used[0]["train"]
    assert used[2]["eval"] == used[0]["eval"]


def test_what_is_lost_and_cut_is_counted_for_each_source(
    make: Callable[..., RunFolder], tiny_model_folder: Path
) -> None:
    folder = make("lossy", "sft")
    rows = rows_of(folder, "train")
    for place, text in ((0, "long " * 200), (19, ""), (20, "long " * 200), (21, "long " * 200)):
        rows[place] = {"id": f"p{place}", "prompt": rows[place]["prompt"], "completion": text}
    write_rows(folder.data / "train.jsonl", rows)
    for _ in range(2):  # counted as it is tokenised, and read back from the store
        prepared = PreparedData(read_config(folder.config_path), folder, ChatTokenizer.from_folder(tiny_model_folder))
        near, far = prepared.train.counts_each
        assert (near.truncated, near.dropped.total()) == (1, 0)
        assert (far.truncated, far.dropped.total()) == (2, 1)
        assert prepared.train.counts.truncated == 3


def test_a_part_of_the_held_out_rows_is_a_part_of_each_source(make: Callable[..., RunFolder]) -> None:
    folder = make("part", "sft", train__steps=1, evaluation__max_rows=4)
    assert {"eval_loss/near", "eval_loss/far"} <= run(folder)[1].keys()
    assert [source["held_out"] for source in sources_told(folder)] == [1, 3]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data__weights": [1e-9, 1.0]}, "of 24 examples an epoch the share of near"),
        ({"data__train_rows_each": [24, 0]}, "far: 0 usable rows"),
        ({"data__train_rows_each": []}, "train_rows_each"),
    ],
)
def test_a_source_without_a_part_is_named(make: Callable[..., RunFolder], settings: dict[str, Any], words: str) -> None:
    folder = make("bad", "sft", **settings)
    assert train.main([str(folder.path)]) == 1
    status = read_status(folder)
    assert status is not None
    assert words in str(status.error)
