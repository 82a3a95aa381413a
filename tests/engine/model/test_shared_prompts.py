"""Documents that share their beginning: the same numbers as each with its own copy, and no sight of one another."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.data.packing import Document, pack
from engine.model.log_probs import hidden_states, token_scores
from tests.engine.model.architectures import CONFIGS, tiny_decoder

PROMPTS = ([10, 11, 12, 13, 14, 15, 16], [30, 31, 32], [40, 41, 42])
ANSWERS = (([20, 21, 22], [23, 24, 25, 26, 27, 28]), ([33, 34], [35]), ([43, 44], [45]))


def pairs(*, shared: bool) -> list[Document]:
    """Three pairs, two of them of the same shape, and a document alone between them."""
    documents = [
        Document.completion(prompt, answer, shared=len(prompt) if shared and side else 0)
        for prompt, answers in zip(PROMPTS, ANSWERS, strict=True)
        for side, answer in enumerate(answers)
    ]
    return [*documents[:2], Document([50, 51, 52, 53], [True] * 4), *documents[2:]]


def values_and_gradients(model: Any, documents: list[Document], *, share: bool = True) -> list[torch.Tensor]:
    """The hidden state behind each target, in the order of the targets, and every gradient of a weighted sum of it."""
    model.zero_grad()
    batch = pack(documents)
    hidden_NH = hidden_states(model, batch, share=share).index_select(0, batch.rows_N)
    weight_N = torch.linspace(-1, 1, len(batch.rows_N), dtype=hidden_NH.dtype).unsqueeze(1)
    (hidden_NH.square() * weight_N).sum().backward()
    return [hidden_NH.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def test_equal_to_documents_apart_in_fp64() -> None:
    """GPT-2, whose norms keep fp64; those of the others go through fp32."""
    model = tiny_decoder("gpt2").double()
    apart = values_and_gradients(model, pairs(shared=False))
    for shared in (
        values_and_gradients(model, pairs(shared=True)),
        values_and_gradients(model, pairs(shared=True), share=False),
    ):
        assert len(shared) == len(apart) > 20
        for a, b in zip(shared, apart, strict=True):
            assert (a - b).abs().max() <= 1e-10 * b.abs().max()


@pytest.mark.parametrize("name", CONFIGS)
def test_equal_to_documents_apart_in_every_architecture(name: str) -> None:
    model = tiny_decoder(name)
    scored = []
    for documents in (pairs(shared=True), pairs(shared=False)):
        batch = pack(documents)
        scored.append(token_scores(model, hidden_states(model, batch), batch).log_probs_N)
    assert torch.allclose(scored[0], scored[1], rtol=1e-5, atol=1e-5)


def test_the_prompt_goes_through_the_model_once() -> None:
    answers = sum(len(answer) for pair in ANSWERS for answer in pair)
    assert pack(pairs(shared=True)).tokens == sum(map(len, PROMPTS)) + answers + 4
    assert pack(pairs(shared=False)).tokens == 2 * sum(map(len, PROMPTS)) + answers + 4


@pytest.mark.parametrize("changed", [0, 1])
def test_perturbing_one_answer_leaves_the_other_and_all_else_bit_equal(tiny_model: Any, changed: int) -> None:
    def log_probs(documents: list[Document]) -> list[torch.Tensor]:
        batch = pack(documents)
        values_N = token_scores(tiny_model, hidden_states(tiny_model, batch), batch).log_probs_N
        return list(values_N.split(batch.targets_per_document))

    documents = pairs(shared=True)
    before = log_probs(documents)
    other = [99 for _ in ANSWERS[0][changed]]
    documents[changed] = Document.completion(PROMPTS[0], other, shared=documents[changed].shared)
    after = log_probs(documents)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [i != changed for i in range(len(before))]
