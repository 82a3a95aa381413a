"""Attention inside documents, against the definition written out over a dense mask in fp64."""

from __future__ import annotations

import math

import pytest
import torch

from engine.model.attention import document_attention


def by_definition(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None, cap: float | None
) -> torch.Tensor:
    """softmax(score) v, one query at a time: nothing is shared with the code under test."""
    n, heads, length, _ = query.shape
    total, groups = key.shape[2], heads // key.shape[1]
    out = torch.zeros(*query.shape[:3], value.shape[-1], dtype=query.dtype)
    for document in range(n):
        for head in range(heads):
            for row in range(length):
                at = total - length + row
                first = 0 if window is None else max(0, at - window + 1)
                keys = key[document, head // groups, first : at + 1]
                scores = keys @ query[document, head, row] * scaling
                if cap is not None:
                    scores = cap * (scores / cap).tanh()
                weights = (scores - scores.max()).exp()
                out[document, head, row] = weights @ value[document, head // groups, first : at + 1] / weights.sum()
    return out


@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 3, 4, 11, 50])
@pytest.mark.parametrize("queries", [11, 5, 1])
def test_equals_the_definition(queries: int, window: int | None, cap: float | None) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 4, queries, 8), (2, 2, 11, 8), (2, 2, 11, 8))
    q, k, v = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    out = document_attention(q, k, v, scaling=0.7, sliding_window=window, softcap=cap)
    assert torch.allclose(out, by_definition(q, k, v, 0.7, window, cap), rtol=0, atol=1e-12)


def test_the_default_scale_is_one_over_the_root_of_the_head_width() -> None:
    q, k, v = (torch.randn(1, 1, 3, 4, dtype=torch.float64) for _ in range(3))
    for cap in (None, 2.0):
        plain = document_attention(q, k, v, scaling=None, softcap=cap)
        assert torch.allclose(plain, document_attention(q, k, v, scaling=1 / math.sqrt(4), softcap=cap), atol=1e-14)
