"""Attention of short documents in half precision on a CPU: torch's kernel forward, its fp32 kernel backward.

torch's flash kernel for CPUs (2.13) spends most of a short document's backward pass in bf16 on packing small blocks. On
two cores the same kernel in fp32 takes 1.9 ms for 4.4 at 150 tokens, 6.6 for 8.5 at 290 and 61 for 51 at 1,000 (9 heads
of 64 over 3, one thread), and its gradients are two to three times closer to those in fp64. What is kept for the
backward pass stays in half precision, so no memory is paid. Owns that choice alone; results of the forward pass are
those of `scaled_dot_product_attention`, bit by bit, but where the CPU would emulate products of half precision
(`half_products`): there both passes of documents of any length are in fp32. Shapes as in `attention`.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.model.half_products import are_emulated, widened

LONGEST = 512
"""Keys; beyond them the kernel in half precision is the faster one."""
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def serves(query_nHLd: torch.Tensor, key_nKSd: torch.Tensor, value_nKSd: torch.Tensor, dropout: float) -> bool:
    """Whether `short_attention` takes this call and is the better choice for it."""
    return (
        query_nHLd.device.type == "cpu"
        and query_nHLd.dtype in (torch.bfloat16, torch.float16)
        and dropout == 0.0
        and query_nHLd.shape[2] > 1
        and query_nHLd.shape[-1] == value_nKSd.shape[-1]
        and (
            are_emulated(query_nHLd.dtype)
            or (
                key_nKSd.shape[2] <= LONGEST
                and torch.is_grad_enabled()
                and any(x.requires_grad for x in (query_nHLd, key_nKSd, value_nKSd))
            )
        )
    )


def short_attention(
    query_nHLd: torch.Tensor,
    key_nKSd: torch.Tensor,
    value_nKSd: torch.Tensor,
    visible_LS: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Attention (n, H, L, d) where `visible_LS` is true; causal over L = S positions where it is None."""
    mask_LS = None
    if visible_LS is not None:
        nothing = torch.zeros(visible_LS.shape, dtype=query_nHLd.dtype)
        mask_LS = nothing.masked_fill_(~visible_LS, -torch.inf)
    out: torch.Tensor = _ShortAttention.apply(query_nHLd, key_nKSd, value_nKSd, mask_LS, scale)
    return out


class _ShortAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask_LS: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        q, k, v = widened(query), widened(key), widened(value)
        mask = None if mask_LS is None else mask_LS.to(q.dtype)
        out, log_sums = _forward(q, k, v, 0.0, mask is None, attn_mask=mask, scale=scale)
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, log_sums, mask_LS)
        ctx.scale = scale
        result: torch.Tensor = out
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, log_sums, mask_LS = ctx.saved_tensors
        found = _backward(
            gradients[0].float(), query.float(), key.float(), value.float(), out.float(), log_sums,
            0.0, mask_LS is None, attn_mask=None if mask_LS is None else mask_LS.float(), scale=ctx.scale,
        )  # fmt: skip
        return *(gradient.to(query.dtype) for gradient in found), None, None
