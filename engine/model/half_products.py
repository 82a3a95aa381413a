"""Matrix products of arrays in half precision, on CPUs that have instructions for them and on those that have none.

A CPU without them (AVX2 alone, say) multiplies bf16 by emulation: at the shapes of a small model 8 GFLOP/s a core
forward and 2 backward, where fp32 reaches 50 to 60 on the same core. There the operands are widened to fp32, which is
exact, multiplied, and the result is rounded once, so it is nearer to the true product than before. Weights stay in half
precision in memory; what is widened of them lives for one product, and a large matrix is widened in pieces.

Owns the choice and the widening. Shapes: T tokens, I inputs, O outputs.
"""

from __future__ import annotations

from functools import cache

import torch

from engine.model import cpu_products

PIECE_BYTES = 16 * 2**20
"""fp32 of a weight that is widened at one time: a piece stays in the cache between its making and its use."""

FEWEST_ROWS = 16
"""Below them (a sampler's one token a sequence) torch's own loops are faster than the widening of a weight."""


def widened(x: torch.Tensor) -> torch.Tensor:
    """`x` in fp32 where this machine would emulate its products, else `x` itself."""
    return x.float() if _emulated(x) else x


def linear(x_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """x W' + b (T, O), in the precision of `x`; as `cpu_products` multiplies where nothing is widened."""
    rows = x_TI.numel() // x_TI.shape[-1]
    if x_TI.dtype != weight_OI.dtype or not _emulated(x_TI) or rows < FEWEST_ROWS:
        return cpu_products.linear(x_TI, weight_OI, bias_O)
    x, bias = x_TI.float(), None if bias_O is None else bias_O.float()
    pieces = _pieces(weight_OI)
    biases = [None] * len(pieces) if bias is None else bias.split(pieces[0].shape[0])
    parts = [
        cpu_products.linear(x, piece.float(), part).to(x_TI.dtype) for piece, part in zip(pieces, biases, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def product(x_TO: torch.Tensor, weight_OI: torch.Tensor) -> torch.Tensor:
    """x W (T, I), in the precision of the weight."""
    if not _emulated(weight_OI):
        return x_TO @ weight_OI
    pieces = _pieces(weight_OI)
    total: torch.Tensor | None = None
    for part, piece in zip(x_TO.float().split(pieces[0].shape[0], dim=1), pieces, strict=True):
        total = part @ piece.float() if total is None else total.addmm_(part, piece.float())
    assert total is not None
    return total.to(weight_OI.dtype)


def _pieces(weight_OI: torch.Tensor) -> tuple[torch.Tensor, ...]:
    pieces: tuple[torch.Tensor, ...] = weight_OI.split(max(1, PIECE_BYTES // (4 * weight_OI.shape[1])))
    return pieces


def _emulated(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and are_emulated(x.dtype)


@cache
def are_emulated(dtype: torch.dtype) -> bool:
    """Whether this CPU has no products of `dtype`, and torch makes do without. False of what is no half precision."""
    if dtype == torch.bfloat16:
        return not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return not torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return False
