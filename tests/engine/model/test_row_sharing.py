"""The leak test: it finds leaks that are put there, asks a class once, and leaves a model as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine import train
from engine.errors import ModelError
from engine.model import attention, log_probs, row_sharing
from engine.model.cache_trial import cache_holds_the_past
from engine.run.events import read_events
from engine.run.metrics_log import read_metrics
from engine.run.status import read_status
from tests.engine.model.architectures import tiny_decoder, write_decoder
from tests.engine.run_maker import make_run


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mamba2", "a document feels another in its row"),
        ("lfm2", "a document feels another in its row"),
        ("qwen3-next", "a document feels another in its row"),
        ("bloom", "a document feels another in its row"),
        ("gpt-oss", "asks for what packed attention does not do: s_aux"),
    ],
)
def test_it_says_what_it_saw(name: str, words: str) -> None:
    assert words in row_sharing.ask(tiny_decoder(name)).why


def test_attention_across_documents_is_found_in_bf16_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def across(module: Any, q: Any, k: Any, v: Any, mask: Any, **options: Any) -> Any:
        out = attention.document_attention(q, k, v, scaling=options["scaling"])
        return out.transpose(1, 2), None

    monkeypatch.setitem(attention.AttentionInterface._global_mapping, attention.PACKED, across)
    for dtype in (torch.float32, torch.bfloat16):
        assert "a document feels another" in row_sharing.ask(tiny_decoder("llama").to(dtype)).why


def test_a_leak_without_a_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = row_sharing.hidden_states

    def rounded(model: Any, batch: Any) -> torch.Tensor:
        hidden = plain(model, batch)
        return hidden + (hidden.detach().sum() > 0).float() * 0.1 + hidden.detach().mean()

    monkeypatch.setattr(row_sharing, "hidden_states", rounded)
    assert "when another in its row has other tokens" in row_sharing.ask(tiny_decoder("llama")).why


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
def test_a_window_that_is_left_out_is_found_though_documents_are_short(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = tiny_decoder(name)
    for holder in [model.config, *model.modules()]:
        if getattr(holder, "sliding_window", None):
            holder.sliding_window = 4096
    assert row_sharing.ask(model).shared
    plain = attention.document_attention
    monkeypatch.setattr(
        attention, "document_attention", lambda *qkv, **options: plain(*qkv, **options | {"sliding_window": None})
    )
    assert "beyond its attention window" in row_sharing.ask(model).why
    assert model.config.sliding_window == 4096, "put back"


@pytest.mark.parametrize(("name", "words"), [("granite", "not those of its hidden states"), ("llama", None)])
def test_a_head_that_is_not_understood_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, words: str | None
) -> None:
    monkeypatch.setattr(log_probs, "_constant_behind_the_head", lambda config: 1.0)
    if words is None:
        assert row_sharing.ask(tiny_decoder(name)).shared
        return
    with pytest.raises(ModelError, match=words):
        row_sharing.ask(tiny_decoder(name))


def test_a_class_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(
        row_sharing, "ask", lambda model: asked.append(model) or row_sharing.RowSharing(False, "it leaks")
    )
    for seed in (0, 1):
        assert row_sharing.row_sharing(tiny_decoder("llama", seed=seed), tmp_path).why == "it leaks"
    assert len(asked) == 1
    row_sharing.row_sharing(tiny_decoder("llama").to(torch.bfloat16), tmp_path)
    row_sharing.row_sharing(tiny_decoder("llama-tied"), tmp_path)
    assert len(asked) == 3
    next((tmp_path / "row-sharing").iterdir()).write_text("{")
    row_sharing.row_sharing(tiny_decoder("llama"), tmp_path)
    row_sharing.row_sharing(tiny_decoder("llama-tied"), tmp_path)
    row_sharing.row_sharing(tiny_decoder("llama").to(torch.bfloat16), tmp_path)
    assert len(asked) == 4, "a torn entry is asked again, the others are not"


def test_a_model_is_left_as_it_was() -> None:
    model = tiny_decoder("gemma2").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    row_sharing.ask(model)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not model.get_input_embeddings()._forward_hooks


def test_a_run_of_a_leaky_model_says_so_and_learns(make_tiny_tokenizer: Any, tmp_path: Path) -> None:
    model = write_decoder(tmp_path / "lfm2", "lfm2", make_tiny_tokenizer)
    folder = make_run(tmp_path / "r", "sft", model, probe__prompts=2, probe__max_new_tokens=3)
    assert train.main([str(folder.path)]) == 0
    said = [event for event in read_events(folder) if event["kind"] == "own_rows"]
    assert [event["why"].startswith("a document feels another") for event in said] == [True]
    status = read_status(folder)
    assert status is not None
    assert status.note.startswith("each document has a row of its own")
    lines = read_metrics(folder.metrics_path)
    assert any("kl/policy_reference_nats_per_sequence" in line.metrics for line in lines), "sampled without a cache"
    held_out = [line.metrics["eval_loss"] for line in lines if "eval_loss" in line.metrics]
    assert held_out[-1] < held_out[0] - 0.1


@pytest.mark.parametrize(
    ("name", "holds"), [("llama", True), ("gemma3", True), ("gpt2", True), ("lfm2", False), ("mamba2", False)]
)
def test_whether_the_cache_holds_the_past_is_tried(name: str, holds: bool, tmp_path: Path) -> None:
    model = tiny_decoder(name)
    with torch.no_grad(), attention.attention_mode(model, attention.per_sample(model)):
        assert cache_holds_the_past(model, tmp_path) is holds
