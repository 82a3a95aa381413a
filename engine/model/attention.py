"""Attention inside each packed document, for any decoder of transformers that uses its attention interface.

Registers the implementation `packed`. A forward pass in that mode hands over one row of T tokens and the layout of
its documents; every document attends to itself alone, causally, so nothing leaks from one to the next and nothing is
padded. A document that shares the beginning of another attends to those rows before its own. Documents of equal length
lie beside each other and share one kernel call. On CUDA the varlen kernel of torch serves all at once (that path has
not run on a GPU yet). It cannot cap scores and takes half precision alone, so models that cap them, and runs in fp32,
go document by document there, too.

What attention inside one document is, with its scale, sliding window and cap, is `document_attention` alone.
Shapes: n documents, H query heads, K key/value heads, L query positions, S key positions, d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from inspect import signature
from itertools import accumulate, groupby
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from engine.data.host_copies import on_device, queued
from engine.data.packing import Span
from engine.errors import ModelError
from engine.model import short_attention

PACKED = "packed"
_WITHOUT_EFFECT = {
    "position_ids", "cache_position", "use_cache", "is_causal", "deterministic",
    "output_attentions", "output_hidden_states", "output_router_logits",
}  # fmt: skip
"""Arguments that models hand on to any attention and that change nothing in ours."""


@dataclass(frozen=True)
class Block:
    """Documents of one shape, beside each other in the row."""

    documents: tuple[int, ...]
    """Indices of the documents, in the order of their rows."""
    length: int
    """Rows of each."""
    shared: int
    """Rows of its trunk that stand before those of each; 0 where it shares none."""


@dataclass(frozen=True)
class DocumentLayout:
    """Where the documents of one packed row lie; made once per forward pass and shared by its layers."""

    blocks: tuple[Block, ...]
    """All documents, in the order of the row."""
    trunk_of: tuple[int, ...]
    """For each document, the one whose first rows stand before its own."""
    place_of: tuple[tuple[int, int], ...]
    """For each document, its block and its place in it."""
    query_starts_D1: torch.Tensor
    """int32: where each document's own rows begin, in the order of the row, and T: for the varlen kernel."""
    key_starts_D1: torch.Tensor
    """int32: the same where each document's keys, shared ones first, are laid end to end."""
    key_rows_S: torch.Tensor | None
    """int64: the rows of those keys; None where nothing is shared and they are the row itself."""

    @classmethod
    def of(cls, spans: Sequence[Span], device: torch.device) -> DocumentLayout:
        """The blocks of a packed batch's documents."""
        order = sorted(range(len(spans)), key=lambda i: spans[i].start)
        blocks: list[Block] = []
        for (length, shared), members in groupby(order, key=lambda i: (spans[i].length, spans[i].shared)):
            blocks.append(Block(tuple(members), length, shared))
        places = {d: (b, n) for b, block in enumerate(blocks) for n, d in enumerate(block.documents)}
        ordered = [spans[i] for i in order]
        key_rows = None
        if any(span.shared for span in ordered):
            key_rows = queued(torch.cat([_key_rows(span, spans[span.trunk]) for span in ordered]), device)
        return cls(
            tuple(blocks),
            tuple(span.trunk for span in spans),
            tuple(places[i] for i in range(len(spans))),
            _starts([span.length for span in ordered], device),
            _starts([span.shared + span.length for span in ordered], device),
            key_rows,
        )


def _key_rows(span: Span, trunk: Span) -> torch.Tensor:
    """The rows that a document's last row sees, in the order of their positions."""
    before = torch.arange(trunk.start, trunk.start + span.shared)
    return torch.cat([before, torch.arange(span.start, span.start + span.length)])


def _starts(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return on_device([0, *accumulate(lengths)], device, torch.int32)


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
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention per document over one packed row (B = 1). Returns (1, T, H, d) and no weights.

    Raises ModelError for a mask or an argument that it would have to heed and cannot.
    """
    layout = document_layout
    if layout is None:
        raise ModelError("packed attention was called without a document layout: use engine.model.log_probs")
    asked = [name for name, value in others.items() if value is not None and name not in _WITHOUT_EFFECT]
    if attention_mask is not None or others.get("is_causal") is False or asked:
        named = ", ".join(asked) or ("a mask" if attention_mask is not None else "is_causal = False")
        raise ModelError(f"attention of {type(module).__name__} asks for what packed attention does not do: {named}")
    if query_BHTd.is_cuda and dropout == 0.0 and softcap is None:
        precision = _varlen_precision(query_BHTd, value_BKTd)
        if precision is not None:
            query, key, value = (x.to(precision) for x in (query_BHTd, key_BKTd, value_BKTd))
            return _varlen(query, key, value, layout, scaling, sliding_window), None
    queries, keys, values = (_blocks(x, layout) for x in (query_BHTd, key_BKTd, value_BKTd))
    pieces = []
    for block, query, key, value in zip(layout.blocks, queries, keys, values, strict=True):
        if block.shared:
            key, value = (_after_trunks(x, parts, block, layout) for x, parts in ((key, keys), (value, values)))
        out_nHLd = document_attention(
            query, key, value, scaling=scaling, dropout=dropout, sliding_window=sliding_window, softcap=softcap
        )
        pieces.append(out_nHLd.transpose(1, 2).flatten(0, 1))
    return torch.cat(pieces).unsqueeze(0), None


def _blocks(x_BHTd: torch.Tensor, layout: DocumentLayout) -> list[torch.Tensor]:
    """(1, H, T, d) as one (n, H, L, d) for each block of n documents of length L, without a copy."""
    sizes = [len(block.documents) * block.length for block in layout.blocks]
    # One split and not slices: the backward pass of a split is one concatenation, that of each slice a row of zeros.
    return [
        part.unflatten(1, (len(block.documents), block.length)).transpose(0, 1)
        for part, block in zip(x_BHTd[0].split(sizes, dim=1), layout.blocks, strict=True)
    ]


def _after_trunks(
    own_nKLd: torch.Tensor, parts: Sequence[torch.Tensor], block: Block, layout: DocumentLayout
) -> torch.Tensor:
    """The keys or values of a block's documents with the shared ones before them: (n, K, shared + L, d)."""
    trunks = []
    for document in block.documents:
        which, place = layout.place_of[layout.trunk_of[document]]
        trunks.append(parts[which][place, :, : block.shared])
    return torch.cat([torch.stack(trunks), own_nKLd], dim=2)


def document_attention(
    query_nHLd: torch.Tensor,
    key_nKSd: torch.Tensor,
    value_nKSd: torch.Tensor,
    *,
    scaling: float | None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Causal attention inside n documents of one length: (n, H, L, d).

    The queries stand at the last L of the S key positions (L = S for a whole document, less where a prefix was worked
    before). `scaling` is 1/sqrt(d) if None. Position i sees the positions j with i - sliding_window < j <= i. With
    `softcap` c the scaled scores s become c tanh(s / c) (Gemma 2, arXiv:2408.00118); that has no fused kernel, so the
    scores are held in memory: H L S numbers a document. With a window the work is by blocks of that many queries, so it
    grows with S times the window and not with the square of S.
    """
    length, total = query_nHLd.shape[2], key_nKSd.shape[2]
    scale = query_nHLd.shape[-1] ** -0.5 if scaling is None else scaling
    if sliding_window is None or total <= sliding_window:
        return _causal_block(query_nHLd, key_nKSd, value_nKSd, scale, dropout, None, softcap)
    blocks = []
    for start in range(0, length, sliding_window):
        end = min(start + sliding_window, length)
        # Keys from the oldest that the block's first query sees to the block's last query.
        oldest = max(0, total - length + start - sliding_window + 1)
        seen = slice(oldest, total - length + end)
        blocks.append(
            _causal_block(
                query_nHLd[:, :, start:end], key_nKSd[:, :, seen], value_nKSd[:, :, seen],
                scale, dropout, sliding_window, softcap,
            )
        )  # fmt: skip
    return torch.cat(blocks, dim=2)


def _causal_block(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    dropout: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Attention of queries that stand at the last of the keys' positions."""
    length, total = query.shape[2], key.shape[2]
    grouped = key.shape[1] != query.shape[1]
    square = length == total and (window is None or total <= window)
    short = softcap is None and short_attention.serves(query, key, value, dropout)
    if softcap is None and square:
        if short:
            return short_attention.short_attention(query, key, value, None, scale)
        return F.scaled_dot_product_attention(
            query, key, value, is_causal=length > 1, scale=scale, dropout_p=dropout, enable_gqa=grouped
        )
    columns_S = torch.arange(total, device=query.device)
    back_LS = columns_S[total - length :].unsqueeze(1) - columns_S
    visible_LS = (back_LS >= 0) if window is None else (back_LS >= 0) & (back_LS < window)
    if short:
        return short_attention.short_attention(query, key, value, visible_LS, scale)
    if softcap is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=visible_LS, scale=scale, dropout_p=dropout, enable_gqa=grouped
        )
    if grouped:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scores_nHLS = torch.tanh(query @ key.transpose(-1, -2) * (scale / softcap)) * softcap
    scores_nHLS = scores_nHLS.masked_fill(~visible_LS, -torch.inf)
    weights_nHLS = scores_nHLS.softmax(-1, dtype=torch.promote_types(scores_nHLS.dtype, torch.float32))
    weights_nHLS = F.dropout(weights_nHLS.to(value.dtype), dropout)
    return weights_nHLS @ value


def _varlen_precision(query_BHTd: torch.Tensor, value_BKTd: torch.Tensor) -> torch.dtype | None:
    """The precision in which the varlen kernel works here; None where it does not.

    It takes half precision, heads of the same width, a multiple of 8 up to 256, on cards from Ampere on. Under autocast
    that is autocast's: it does not reach into the kernel, and rotary embeddings leave queries and keys in fp32.
    """
    width, device = query_BHTd.shape[-1], query_BHTd.device
    fits = width % 8 == 0 and width <= 256 and value_BKTd.shape[-1] == width
    precision = value_BKTd.dtype
    if torch.is_autocast_enabled(device.type):
        precision = torch.get_autocast_dtype(device.type)
    served = fits and precision in (torch.bfloat16, torch.float16) and _varlen_kernel() is not None
    return precision if served and _is_ampere(device) else None


@cache
def _varlen_kernel() -> Callable[..., torch.Tensor] | None:
    """torch's kernel; None where the installed torch has none, or one without windows and grouped queries."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = signature(varlen_attn).parameters
    return varlen_attn if {"scale", "window_size", "enable_gqa"} <= known.keys() else None


@cache
def _is_ampere(device: torch.device) -> bool:
    """Whether the card is of that generation (8.0) or a later one."""
    return bool(torch.cuda.get_device_capability(device) >= (8, 0))


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: DocumentLayout,
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """One varlen kernel over all documents (CUDA). Queries that are fewer than their keys stand at the last of them."""
    varlen_attn = _varlen_kernel()
    assert varlen_attn is not None
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    if layout.key_rows_S is not None:
        k, v = k.index_select(0, layout.key_rows_S), v.index_select(0, layout.key_rows_S)
    # Positions seen to the left of oneself (-1: all) and to the right: (-1, 0) is plain causal attention.
    window = (-1 if sliding_window is None else sliding_window - 1, 0)
    out_THd = varlen_attn(
        q, k, v, layout.query_starts_D1, layout.key_starts_D1,
        max(block.length for block in layout.blocks), max(block.shared + block.length for block in layout.blocks),
        scale=scaling, window_size=window, enable_gqa=key.shape[1] != query.shape[1],
    )  # fmt: skip
    return out_THd.unsqueeze(0)


AttentionInterface.register(PACKED, packed_attention)


def capped_scores(config: Any) -> bool:
    """Whether the attention of a model with this config caps its scores."""
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None


def per_sample(model: Any) -> str:
    """The implementation where rows are separate sequences, as in sampling with its key/value cache.

    The "sdpa" of transformers 5.23 drops a cap it is given, so a model that caps its scores goes by "eager".
    """
    return "eager" if capped_scores(model.config) or not model._supports_sdpa else "sdpa"


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
