"""Attention inside each packed document, for any decoder of transformers that uses its attention interface.

Registers the implementation `packed`. A forward pass in that mode hands over one row of T tokens and the layout of
its documents; every document attends to itself alone, causally, so nothing leaks from one to the next and nothing is
padded. Documents of equal length share one kernel call. On CUDA the varlen kernel of torch serves all at once (that
path has not run on a GPU yet).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from engine.errors import ModelError

PACKED = "packed"
PER_SAMPLE = "sdpa"
"""The implementation for sampling, where rows are separate sequences with a key/value cache."""


@dataclass(frozen=True)
class DocumentLayout:
    """Where the documents of one packed row lie; made once per forward pass and shared by its layers."""

    lengths: tuple[int, ...]
    rows_by_length: tuple[tuple[int, torch.Tensor], ...]
    """For each distinct length L: L, and the int64 row indices (n, L) of the n documents of that length."""
    back_T: torch.Tensor
    """int64: where each token of the row lies after the groups of `rows_by_length` are laid end to end."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> DocumentLayout:
        """Group documents by length."""
        starts: dict[int, list[int]] = {}
        start = 0
        for length in lengths:
            starts.setdefault(length, []).append(start)
            start += length
        groups = tuple(
            (length, torch.tensor(firsts).unsqueeze(1) + torch.arange(length))
            for length, firsts in sorted(starts.items())
        )
        order_T = torch.cat([rows.reshape(-1) for _, rows in groups])
        back_T = torch.empty_like(order_T)
        back_T[order_T] = torch.arange(len(order_T))
        return cls(tuple(lengths), tuple((n, rows.to(device)) for n, rows in groups), back_T.to(device))


def packed_attention(
    module: Any,
    query_BHTd: torch.Tensor,
    key_BKTd: torch.Tensor,
    value_BKTd: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    document_layout: DocumentLayout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention per document over one packed row (B = 1). Returns (1, T, H, d) and no weights."""
    if document_layout is None:
        raise ModelError("packed attention was called without a document layout: use engine.model.log_probs")
    if softcap is not None:
        raise ModelError("this architecture caps its attention scores, which packed attention does not do")
    longest = max(document_layout.lengths)
    if sliding_window is not None and longest > sliding_window:
        raise ModelError(
            f"a document of {longest} tokens is longer than the model's sliding window of {sliding_window}: "
            f"set data.max_length to {sliding_window} or less"
        )
    grouped = key_BKTd.shape[1] != query_BHTd.shape[1]
    if query_BHTd.is_cuda and dropout == 0.0:
        return _varlen(query_BHTd, key_BKTd, value_BKTd, document_layout.lengths, scaling, grouped), None
    pieces = []
    for length, rows_nL in document_layout.rows_by_length:
        q, k, v = (_take(x, rows_nL) for x in (query_BHTd, key_BKTd, value_BKTd))
        out_nHLd = F.scaled_dot_product_attention(
            q, k, v, is_causal=length > 1, scale=scaling, dropout_p=dropout, enable_gqa=grouped
        )
        pieces.append(out_nHLd.transpose(1, 2).flatten(0, 1))
    joined_THd = torch.cat(pieces)
    return joined_THd.index_select(0, document_layout.back_T).unsqueeze(0), None


def _take(x_BHTd: torch.Tensor, rows_nL: torch.Tensor) -> torch.Tensor:
    """Gather documents of one length: (1, H, T, d) and (n, L) give (n, H, L, d)."""
    _, heads, _, d = x_BHTd.shape
    n, length = rows_nL.shape
    return x_BHTd[0].index_select(1, rows_nL.reshape(-1)).view(heads, n, length, d).transpose(0, 1)


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int],
    scaling: float | None,
    grouped: bool,
) -> torch.Tensor:
    """One varlen kernel over all documents (CUDA)."""
    from torch.nn.attention.varlen import varlen_attn

    starts_D1 = torch.tensor([0, *lengths], device=query.device, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    longest = max(lengths)
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    # A window of (-1, 0) is causal attention without a limit to the left.
    out_THd = varlen_attn(
        q, k, v, starts_D1, starts_D1, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=grouped
    )
    return out_THd.unsqueeze(0)


AttentionInterface.register(PACKED, packed_attention)


@contextmanager
def attention_mode(model: Any, implementation: str) -> Iterator[None]:
    """Run `model` with the named attention implementation, and put back the one before."""
    before = model.config._attn_implementation
    if before == implementation:
        yield
        return
    model.config._attn_implementation = implementation
    try:
        yield
    finally:
        model.config._attn_implementation = before
