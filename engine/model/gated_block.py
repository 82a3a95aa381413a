"""A decoder layer with a gated MLP, worked in fewer passes over memory: two functions about the packed attention.

h = x + O(attention(rotate(Q(norm x)), rotate(K(norm x)), V(norm x))), y = h + D(silu(G(norm h)) U(norm h)): the layer
of Llama and its kin. What comes before attention is one autograd function and what comes behind it another; both work
their backward pass themselves (`rms_norm`, `lora_group`), keep fewer arrays and round fewer times than the layer's
own forward.

Owns the arithmetic. Which layers may be worked so is decided by `gated_layers`. Frozen weights get no gradient; those
of adapters and of the input do. Shapes: T tokens, H hidden, F inner width of the MLP, n heads of width d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from engine.model.cpu_products import summed
from engine.model.half_products import widened
from engine.model.lora_group import Adapters, Kept, LinearGroup
from engine.model.rms_norm import rms_norm, rms_norm_backward


@dataclass(frozen=True)
class GatedBlock:
    """The parts of one layer."""

    first_norm: Any
    inwards: LinearGroup
    """Queries, keys and values."""
    outwards: LinearGroup
    """The layer that reads attention's output."""
    second_norm: Any
    wide: LinearGroup
    """Gate and up."""
    down: LinearGroup
    query_heads: int
    head_width: int

    def groups(self) -> tuple[LinearGroup, ...]:
        """All products of the layer, in the order in which they are worked."""
        return self.inwards, self.outwards, self.wide, self.down


@dataclass(frozen=True)
class BlockAdapters:
    """The adapters at work in one layer."""

    inwards: Adapters
    outwards: Adapters
    wide: Adapters
    down: Adapters

    @classmethod
    def of(cls, block: GatedBlock) -> BlockAdapters | None:
        """None where some layer of the block is more than `LinearGroup` can do."""
        found = [group.adapters() for group in block.groups()]
        inwards, outwards, wide, down = found
        if inwards is None or outwards is None or wide is None or down is None:
            return None
        return cls(inwards, outwards, wide, down)

    def behind(self) -> tuple[torch.Tensor, ...]:
        """The matrices behind attention."""
        return (*self.outwards.matrices, *self.wide.matrices, *self.down.matrices)


class BeforeAttention(torch.autograd.Function):
    """x (T, H) -> x, queries (T, n, d), keys and values (T, m, d), all in the precision of x.

    x comes back so that the gradient of the sum behind it arrives here and is added in the same pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_TH: torch.Tensor,
        cos_Td: torch.Tensor,
        sin_Td: torch.Tensor,
        block: GatedBlock,
        adapters: Adapters,
        *matrices: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        work = widened(x_TH[:0]).dtype
        norm = block.first_norm
        h_TH, scale_T1 = rms_norm(x_TH, norm.weight, norm.variance_epsilon, work)
        y_TO, kept = block.inwards.forward(h_TH, adapters)
        y_Tnd = y_TO.unflatten(1, (-1, block.head_width))
        keys = (y_Tnd.shape[1] - block.query_heads) // 2
        turned_Tnd = turned(y_Tnd[:, :-keys], cos_Td.to(work), sin_Td.to(work)).to(x_TH.dtype)
        value_Tmd = y_Tnd[:, -keys:].to(x_TH.dtype, copy=True, memory_format=torch.contiguous_format)
        ctx.save_for_backward(x_TH, cos_Td, sin_Td, scale_T1, *_arrays(kept))
        ctx.block, ctx.adapters = block, adapters
        return x_TH.view_as(x_TH), turned_Tnd[:, : block.query_heads], turned_Tnd[:, block.query_heads :], value_Tmd

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        dx_TH, dquery, dkey, dvalue = gradients
        x_TH, cos_Td, sin_Td, scale_T1, *kept_arrays = ctx.saved_tensors
        block, adapters, kept = ctx.block, ctx.adapters, _kept(kept_arrays)
        dturned_Tnd = widened(torch.cat([dquery, dkey], 1))
        back_Tnd = turned(dturned_Tnd, cos_Td.to(dturned_Tnd.dtype), -sin_Td.to(dturned_Tnd.dtype))
        dy_TO = torch.cat([back_Tnd, dvalue.to(back_Tnd.dtype)], 1).flatten(1)
        dh_TH, dlow_TR = block.inwards.backward(dy_TO, kept)
        found = _behind_norm(adapters, kept, dlow_TR, dy_TO, x_TH, scale_T1, block.first_norm)
        wanted = None
        if ctx.needs_input_grad[0]:
            wanted = rms_norm_backward(dh_TH, x_TH, scale_T1, block.first_norm.weight).add_(dx_TH)
        return wanted, None, None, None, None, *found


class BehindAttention(torch.autograd.Function):
    """x (T, H) and what attention gives (T, n d) -> the output of the layer (T, H)."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TH: torch.Tensor,
        attended_TO: torch.Tensor,
        block: GatedBlock,
        adapters: BlockAdapters,
        *matrices: torch.Tensor,
    ) -> torch.Tensor:
        sum_TH, kept_outwards = block.outwards.forward(widened(attended_TO), adapters.outwards)
        sum_TH.add_(x_TH)
        norm = block.second_norm
        h_TH, scale_T1 = rms_norm(sum_TH, norm.weight, norm.variance_epsilon, sum_TH.dtype)
        both_T2F, kept_wide = block.wide.forward(h_TH, adapters.wide)
        gate_TF, up_TF = both_T2F.chunk(2, 1)
        open_TF = F.silu(gate_TF)
        out_TH, kept_down = block.down.forward(open_TF * up_TF, adapters.down)
        out_TH.add_(sum_TH)
        narrow = x_TH.dtype
        ctx.save_for_backward(
            attended_TO, sum_TH.to(narrow), scale_T1, both_T2F.to(narrow), open_TF.to(narrow),
            *_arrays(kept_outwards), *_arrays(kept_wide), *_arrays(kept_down),
        )  # fmt: skip
        ctx.block, ctx.adapters = block, adapters
        return out_TH.to(narrow)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        attended_TO, sum_TH, scale_T1, both_T2F, open_TF, *arrays = ctx.saved_tensors
        block, adapters = ctx.block, ctx.adapters
        kept_outwards, kept_wide, kept_down = _split_kept(arrays, adapters)
        dy_TH = widened(gradients[0])
        gate_TF, up_TF = both_T2F.chunk(2, 1)
        dact_TF, dlow_TR = block.down.backward(dy_TH, kept_down)
        of_down = _of_adapters(adapters.down, kept_down, dlow_TR, dy_TH, lambda: widened(open_TF * up_TF))
        dboth_T2F = torch.empty_like(both_T2F, dtype=dact_TF.dtype)
        dgate_TF, dup_TF = dboth_T2F.chunk(2, 1)
        torch.mul(dact_TF, open_TF, out=dup_TF)
        torch.ops.aten.silu_backward(dact_TF.mul_(up_TF), gate_TF.to(dact_TF.dtype), grad_input=dgate_TF)
        dh_TH, dlow_TR = block.wide.backward(dboth_T2F, kept_wide)
        of_wide = _behind_norm(adapters.wide, kept_wide, dlow_TR, dboth_T2F, sum_TH, scale_T1, block.second_norm)
        dsum_TH = rms_norm_backward(dh_TH, sum_TH, scale_T1, block.second_norm.weight).add_(gradients[0])
        dsum = widened(dsum_TH)
        dattended_TO, dlow_TR = block.outwards.backward(dsum, kept_outwards)
        of_outwards = _of_adapters(adapters.outwards, kept_outwards, dlow_TR, dsum, lambda: widened(attended_TO))
        return dsum_TH, dattended_TO.to(attended_TO.dtype), None, None, *of_outwards, *of_wide, *of_down


def turned(x_Tnd: torch.Tensor, cos_Td: torch.Tensor, sin_Td: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864) of all heads, the halves of a head being the pairs.

    With the sine negated it is its own inverse and so its gradient, since both halves have the same angles.
    """
    half = x_Tnd.shape[-1] // 2
    sin_T1h = sin_Td[:, :half].unsqueeze(1)
    out_Tnd = x_Tnd * cos_Td.unsqueeze(1)
    out_Tnd[..., :half].addcmul_(x_Tnd[..., half:], sin_T1h, value=-1)
    out_Tnd[..., half:].addcmul_(x_Tnd[..., :half], sin_T1h)
    return out_Tnd


def _of_adapters(
    adapters: Adapters,
    kept: Kept | None,
    dlow_TR: torch.Tensor | None,
    dy_TO: torch.Tensor,
    read: Callable[[], torch.Tensor],
) -> list[torch.Tensor]:
    """Gradients of a group's matrices; `read` gives the input that the group read."""
    if kept is None or dlow_TR is None:
        return []
    return adapters.gradients(summed(dlow_TR, read()), kept.low_TR, dy_TO)


def _behind_norm(
    adapters: Adapters,
    kept: Kept | None,
    dlow_TR: torch.Tensor | None,
    dy_TO: torch.Tensor,
    x_TH: torch.Tensor,
    scale_T1: torch.Tensor,
    norm: Any,
) -> list[torch.Tensor]:
    """The same of a group that reads the norm of `x`: as dlow' (x s w) = ((dlow s)' x) w, it is not made again."""
    if kept is None or dlow_TR is None:
        return []
    x = widened(x_TH)
    da_IR = (x.t() @ (dlow_TR * scale_T1.to(dlow_TR.dtype))) * norm.weight.to(x.dtype).unsqueeze(1)
    return adapters.gradients(da_IR.t().contiguous(), kept.low_TR, dy_TO)


def _arrays(kept: Kept | None) -> tuple[torch.Tensor, ...]:
    return () if kept is None else (kept.low_TR, kept.a_RI, kept.b_RO)


def _kept(arrays: list[torch.Tensor]) -> Kept | None:
    return Kept(*arrays) if arrays else None


def _split_kept(arrays: list[torch.Tensor], adapters: BlockAdapters) -> list[Kept | None]:
    left = list(arrays)
    found: list[Kept | None] = []
    for group in (adapters.outwards, adapters.wide, adapters.down):
        found.append(Kept(left.pop(0), left.pop(0), left.pop(0)) if group.matrices else None)
    return found
