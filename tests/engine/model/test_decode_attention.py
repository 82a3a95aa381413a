"""Attention of one new token a row: equal to torch's kernel with masks, grouped heads and windows of the cache."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from engine.model.decode_attention import decode_attention

ROWS, KEY_HEADS, COLUMNS, WIDTH = 3, 2, 11, 8


def parts(query_heads: int, length: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(query_heads)
    query = torch.randn(ROWS, query_heads, length, WIDTH, generator=generator)
    block = torch.randn(2, ROWS + 2, KEY_HEADS, COLUMNS + 4, WIDTH, generator=generator)
    key, value = (x[:ROWS, :, 1 : 1 + COLUMNS] for x in block)  # as the cache hands them out
    return query, key, value


def expected(query: Any, key: Any, value: Any, mask: Any, scale: float | None) -> torch.Tensor:
    groups = query.shape[1] // KEY_HEADS
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale).transpose(1, 2)


@pytest.mark.parametrize("query_heads", [2, 6])
@pytest.mark.parametrize("scale", [None, 0.2])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_torch(query_heads: int, scale: float | None, masked: bool) -> None:
    query, key, value = parts(query_heads)
    mask = None
    if masked:
        mask = torch.ones(ROWS, 1, 1, COLUMNS, dtype=torch.bool)
        mask[1, ..., :4] = mask[2, ..., :7] = False
    out, weights = decode_attention(SimpleNamespace(), query, key, value, mask, scaling=scale)
    assert weights is None
    assert out.shape == (ROWS, 1, query_heads, WIDTH)
    torch.testing.assert_close(out, expected(query, key, value, mask, scale), atol=1e-6, rtol=1e-5)


def test_prompts_go_by_the_fused_kernel() -> None:
    query, key, value = parts(6, length=COLUMNS)
    module = SimpleNamespace(num_key_value_groups=3, is_causal=True)
    out, _ = decode_attention(module, query, key, value, None)
    causal = torch.ones(COLUMNS, COLUMNS, dtype=torch.bool).tril()
    torch.testing.assert_close(out, expected(query, key, value, causal, None), atol=1e-6, rtol=1e-5)


def test_bf16_weighs_in_fp32() -> None:
    query, key, value = (x.to(torch.bfloat16) for x in parts(6))
    out, _ = decode_attention(SimpleNamespace(), query, key, value, None)
    assert out.dtype == torch.bfloat16
    exact = expected(query.double(), key.double(), value.double(), None, None)
    torch.testing.assert_close(out.double(), exact, atol=0.02, rtol=0.02)
