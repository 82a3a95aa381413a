"""Packed log-probs and gradients of real architectures, against transformers on one document at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.data.packing import Document, pack
from engine.model.adapters import POLICY, build_roles
from engine.model.attention import attention_mode
from engine.model.row_sharing import row_sharing
from engine.model.sampler import sample
from tests.engine.model.architectures import CONFIGS, LEAKY, tiny_decoder


def documents() -> list[Document]:
    """Five documents, two of one length, three longer than the windows of 4."""
    generator = torch.Generator().manual_seed(5)

    def ids(count: int) -> list[int]:
        drawn: list[int] = torch.randint(4, 300, (count,), generator=generator).tolist()
        return drawn

    made = [Document.completion(ids(p), ids(c)) for p, c in ((9, 4), (1, 1), (2, 11), (3, 2))]
    return [*made, Document(ids(13), [True] * 13)]


def alone(model: Any, parts: list[Document]) -> torch.Tensor:
    """Log-probs of every target by transformers' own forward pass, without a row shared by two documents."""
    found = []
    for document in parts:
        log_probs = model(torch.tensor([list(document.ids)])).logits[0].log_softmax(-1)
        found += [log_probs[t - 1, document.ids[t]] for t in range(1, len(document.ids)) if document.scored[t]]
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("name", [*sorted(CONFIGS), "mixtral", *sorted(LEAKY)])
def test_packed_equals_one_document_at_a_time(name: str, kind: str) -> None:
    model = tiny_decoder(name)
    sharing = row_sharing(model)
    assert sharing.shared == (name not in LEAKY), sharing.why
    # peft leaves Mamba's output projection alone: its fast kernel reads the weight past the adapter.
    targets = "in_proj" if name == "mamba2" else "all-linear"
    roles = build_roles(model, kind=kind, trained=POLICY, start_adapter=None, rank=4, targets=targets)
    roles.rows = sharing
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in roles.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.03)
    parts = documents()

    def values_and_gradients(packed: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        roles.model.zero_grad()
        if packed:
            values = roles.scores(pack(parts), POLICY)[0].log_probs_N
        else:
            with roles.use(POLICY) as model, attention_mode(model, "eager"):
                values = alone(model, parts)
        # Weights that differ, so that a swap of two documents shows.
        (values * torch.linspace(0.5, 1.5, len(values))).mean().backward()
        return values.detach(), {key: p.grad.clone() for key, p in roles.trainable.items() if p.grad is not None}

    theirs, their_gradients = values_and_gradients(packed=False)
    ours, our_gradients = values_and_gradients(packed=True)
    assert theirs.std() > 0.1, "a model that says the same everywhere proves nothing"
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=2e-5)
    assert set(our_gradients) == set(their_gradients)
    assert len(our_gradients) == len(roles.trainable)
    for key, gradient in their_gradients.items():
        assert torch.allclose(
            our_gradients[key], gradient, rtol=1e-3, atol=1e-6 + 1e-5 * float(gradient.abs().max())
        ), key


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "granite", "gpt2", "mixtral", *sorted(LEAKY)])
def test_sampled_log_probs_are_those_of_a_packed_pass(name: str) -> None:
    """The sampler, with its cache where that holds the past, beyond the window and at another temperature."""
    model = tiny_decoder(name)
    sharing = row_sharing(model)
    prompts = [[10, 11, 12, 13, 14], [20, 21]]
    found = sample(
        model, prompts, max_new_tokens=9, temperature=1.3, stop_ids=[2], seeds=[1, 2], pad_id=3, batch_size=2
    )
    batch = pack([Document.completion(p, c.ids) for p, c in zip(prompts, found, strict=True)])
    roles = build_roles(model, kind="full", trained=POLICY, start_adapter=None)
    roles.rows = sharing
    scored = roles.scores(batch, POLICY, temperature=1.3)[0].log_probs_N
    sampled = torch.tensor([value for completion in found for value in completion.log_probs])
    assert torch.allclose(scored, sampled, rtol=1e-4, atol=1e-4)
