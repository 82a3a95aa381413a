"""A launch on several sources with weights: what is frozen and written down, and where the weights may come from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError, DataError
from engine.example_parts import example_order, source_facts
from engine.methods.method import HeldOutSources
from engine.prepared_data import PreparedData
from engine.run.config_layers import resolve
from engine.run.config_toml import read_layer
from engine.run_tokenizer import run_tokenizer
from workbench.dataset_store import add_dataset
from workbench.errors import UsageError
from workbench.run_clone import clone_request
from workbench.run_launch import LaunchRequest, Plan, create_run, plan_run
from workbench.run_list import Run
from workbench.run_preview import config_with_origins, dry_run
from workbench.run_sources import source_fields, sources_told
from workbench.workspace import Workspace


@pytest.fixture(autouse=True)
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def data(workspace: Workspace, tmp_path: Path) -> Workspace:
    for name, count in (("a", 40), ("b", 10), ("c", 10)):
        rows = [{"prompt": f"{name} {n}", "completion": f"{name} answers {n}"} for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        add_dataset(workspace, tmp_path / f"{name}.jsonl")
    return workspace


def plan(workspace: Workspace, *data: str, method: str = "sft", **options: Any) -> Plan:
    return plan_run(workspace, LaunchRequest(method, "sample", data, **options), quiet=True)


def launched(workspace: Workspace, *data: str, **options: Any) -> Run:
    return create_run(plan(workspace, *data, **options))


def test_run_toml_says_the_sources_their_weights_and_their_rows(data: Workspace) -> None:
    run = launched(data, "b:0.3", "a:0.7")
    written = run.config().data
    assert (written.names, written.weights) == (("b", "a"), (0.3, 0.7))
    for side, rows_each in (("train", written.train_rows_each), ("eval", written.eval_rows_each)):
        rows = [json.loads(line) for line in (run.folder.data / f"{side}.jsonl").read_text().splitlines()]
        sources = [row["prompt"][0]["content"][0] for row in rows]
        assert sources == ["b"] * rows_each[0] + ["a"] * rows_each[1]
    assert written.train_rows == sum(written.train_rows_each)
    assert launched(data, "a").config().data.train_rows_each == ()


def test_weights_do_not_change_what_is_frozen(data: Workspace) -> None:
    mixed, plain = launched(data, "a:1", "b:9").config().data, launched(data, "a", "b").config().data
    assert (mixed.train_sha256, mixed.train_rows_each) == (plain.train_sha256, plain.train_rows_each)
    assert plain.weights == ()


def test_a_clone_has_the_weights(data: Workspace) -> None:
    first = launched(data, "a:0.7", "b:0.3", settings=("data.weights_by=tokens",))
    request = clone_request(first)
    assert request.data == ("a:0.7", "b:0.3")
    assert request.settings == ("data.weights_by=tokens",)
    again = create_run(plan_run(data, request, quiet=True))
    assert replace(again.config(), run=first.config().run) == first.config()


def test_a_recipe_brings_its_weights_unless_other_data_is_named(data: Workspace) -> None:
    recipe = launched(data, "a:0.7", "b:0.3").folder.config_path
    assert plan(data, recipe=recipe).resolved.config.data.weights == (0.7, 0.3)
    other = plan(data, "a", "b", "c", recipe=recipe).resolved.config.data
    assert (other.names, other.weights) == (("a", "b", "c"), ())
    assert plan(data, "b:2", "c:1", recipe=recipe).resolved.config.data.weights == (2.0, 1.0)


def test_weights_may_be_set_beside_the_names(data: Workspace) -> None:
    assert plan(data, "a", "b", settings=("data.weights=[1, 2.5]",)).resolved.config.data.weights == (1.0, 2.5)
    with pytest.raises(ConfigError, match=r"\[data\] weights = \(1.0,\): 1 for 2 sources \(a, b\)"):
        plan(data, "a", "b", settings=("data.weights=[1]",))
    for wrong, words in (("[0, 1]", "> 0"), ("[nan, 1]", "finite"), ("['x']", "a list of numbers"), ("0.5", "a list")):
        with pytest.raises(ConfigError, match=words):
            plan(data, "a", "b", settings=(f"data.weights={wrong}",))
    with pytest.raises(UsageError, match="given twice"):
        plan(data, settings=("data.names=['a', 'a']",))


def test_the_printed_config_is_a_recipe(data: Workspace) -> None:
    resolved = plan(data, "a:0.7", "b:0.3").resolved
    text = config_with_origins(resolved)
    assert "weights = [0.7, 0.3]" in text
    assert resolve("sft", [("printed", read_layer(text, "printed"))]).config == resolved.config


def test_what_has_no_row_or_no_use_is_said(data: Workspace) -> None:
    with pytest.raises(DataError, match="b: it has a weight, and no example is left"):
        create_run(plan(data, "a:1", "b:1", eval_share=0.95))
    notes = plan(data, "a", "b", settings=("data.weights_by=tokens",)).notes
    assert any("means nothing without weights" in note for note in notes)


@pytest.mark.parametrize("weights_by", ["rows", "tokens"])
def test_a_dry_run_says_what_the_run_will_tell(data: Workspace, weights_by: str) -> None:
    planned = plan(data, "a:0.2", "b:0.8", settings=(f"data.weights_by={weights_by}",))
    facts = dry_run(planned)
    run = create_run(planned)
    config = run.config()
    prepared = PreparedData(config, run.folder, run_tokenizer(config, run.folder))
    told = source_facts(config, prepared.train, example_order(config, prepared.train), HeldOutSources())["sources"]
    assert facts["data"] == ["a:0.2", "b:0.8"]
    for estimate, found in zip(facts["sources"], told, strict=True):
        assert (estimate["name"], estimate["rows"]) == (found["name"], found["rows"])
        assert estimate["examples_an_epoch"] == pytest.approx(found["examples_an_epoch"], abs=1)
        assert estimate["tokens_an_epoch"] == pytest.approx(found["tokens_an_epoch"], rel=0.03)
        assert estimate["passes_an_epoch"] == pytest.approx(found["passes_an_epoch"], rel=0.1)
    share = "share_of_examples" if weights_by == "rows" else "share_of_tokens"
    assert facts["sources"][1][share] == pytest.approx(0.8, abs=0.01)
    assert facts["examples_estimate"] == pytest.approx(sum(found["examples_an_epoch"] for found in told), abs=1)
    words = source_fields(facts["sources"])["  b"]
    assert f"{facts['sources'][1]['rows']} rows" in words
    assert "passes" in words
    assert "passes" not in source_fields(dry_run(plan(data, "a", "b"))["sources"])["  b"]
    assert "sources" not in dry_run(plan(data, "a"))


def test_runs_show_tells_the_last_evaluation_of_each_source() -> None:
    source = {
        "rows": 9, "held_out": 3, "examples_an_epoch": 20, "tokens_an_epoch": 1000, "share_of_examples": 0.25,
        "share_of_tokens": 0.5, "passes_an_epoch": 2.5, "dropped": {"empty completion": 2}, "truncated": 1,
        "treatments": {},
    }  # fmt: skip
    figures = {"eval_loss": 9.0, "eval_loss/a_b": 1.25, "eval_loss_standard_error/a_b": 0.125, "eval_loss/c": 7.0}
    events = [
        {"kind": "data", "sources": [{"name": "old", **source}]},
        {"kind": "evaluated", "step": 0, "eval_loss/a_b": 99.0},
        {"kind": "data", "sources": [{"name": "a/b", **source}, {"name": "c", **source, "rows": "torn"}]},
        {"kind": "evaluated", "step": 7, **figures},
    ]
    assert source_fields(sources_told(events)) == {
        "  a/b": "9 rows, 3 held-out examples measured; an epoch takes 20 examples (25 %), 1,000 tokens (50 %), 2.50 "
        "passes; empty completion: 2, cut at data.max_length: 1; eval_loss 1.2500 ± 0.12 at step 7"
    }
    assert sources_told([{"kind": "data", "train": 3}]) == []
    assert sources_told([{"kind": "data", "sources": "torn"}]) == []
