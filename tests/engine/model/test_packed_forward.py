"""Packed forward passes: equal to one document at a time, and no document sees another."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.data.packing import Document, pack
from engine.model import log_probs
from engine.model.log_probs import hidden_states, token_scores

DOCUMENTS = [
    Document.completion([10, 11, 12], [13, 14]),
    Document.completion([20, 21], [22, 23, 24]),
    Document.completion([30], [31]),
    Document([40, 41, 42], [True] * 3),
]


def log_probs_of(model: Any, documents: list[Document], **options: Any) -> torch.Tensor:
    batch = pack(documents)
    return token_scores(model, hidden_states(model, batch), batch, **options).log_probs_N


def test_packed_equals_one_document_at_a_time(tiny_model: Any) -> None:
    packed = log_probs_of(tiny_model, DOCUMENTS)
    alone = []
    for document in DOCUMENTS:
        logits = tiny_model(torch.tensor([list(document.ids)])).logits[0].log_softmax(-1)
        alone += [logits[t - 1, document.ids[t]] for t in range(1, len(document.ids)) if document.scored[t]]
    assert torch.allclose(packed, torch.stack(alone), atol=1e-5)


def test_perturbing_one_document_leaves_the_others_bit_equal(tiny_model: Any) -> None:
    before = log_probs_of(tiny_model, DOCUMENTS)
    changed = [Document([99, 98, 97, 96, 95], DOCUMENTS[0].scored), *DOCUMENTS[1:]]
    after = log_probs_of(tiny_model, changed)
    assert not torch.equal(before[:2], after[:2])
    assert torch.equal(before[2:], after[2:])


def test_order_of_documents_does_not_matter(tiny_model: Any) -> None:
    forward = log_probs_of(tiny_model, DOCUMENTS)
    backward = log_probs_of(tiny_model, DOCUMENTS[::-1])
    counts = [2, 3, 1, 2]
    parts = list(backward.split(counts[::-1]))[::-1]
    assert torch.allclose(forward, torch.cat(parts), atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_slices_of_the_head_change_neither_values_nor_gradients(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    def value_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        tiny_model.zero_grad()
        values = log_probs_of(tiny_model, DOCUMENTS, temperature=temperature)
        (values * torch.arange(len(values))).sum().backward()
        return values.detach(), tiny_model.get_input_embeddings().weight.grad.clone()

    whole, whole_gradient = value_and_gradient()
    monkeypatch.setattr(log_probs, "LOGITS_BYTES_AT_ONCE", 4 * 300 * 3)
    sliced, sliced_gradient = value_and_gradient()
    assert torch.allclose(whole, sliced, atol=1e-6)
    assert torch.allclose(whole_gradient, sliced_gradient, rtol=1e-4, atol=1e-4)


def test_temperature_and_entropy_against_the_definition(tiny_model: Any) -> None:
    batch = pack(DOCUMENTS[:1])
    hidden = hidden_states(tiny_model, batch)
    scores = token_scores(tiny_model, hidden, batch, temperature=0.5, entropy=True)
    logits = tiny_model(torch.tensor([[10, 11, 12, 13, 14]])).logits[0, 2:4] / 0.5
    expected = logits.log_softmax(-1)
    assert torch.allclose(scores.log_probs_N, expected[[0, 1], [13, 14]], atol=1e-5)
    assert scores.entropy_N is not None
    assert torch.allclose(scores.entropy_N, -(expected.exp() * expected).sum(-1), atol=1e-4)


def test_a_batch_without_targets_gives_a_connected_zero(tiny_model: Any) -> None:
    values = log_probs_of(tiny_model, [Document([1, 2], [False, False])])
    assert values.shape == (0,)
    values.sum().backward()
    assert tiny_model.get_input_embeddings().weight.grad.abs().sum() == 0
