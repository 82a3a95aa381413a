"""Attention of the one new token of each row over its key/value cache.

Registers the implementation `decode`. A step of the sampler has one query a row, so attention is two thin products that
read keys and values once: the query heads that share a key head are rows of one product, and nothing is
repeated or copied. Longer queries, the prompts, go by torch's fused kernel as in `sdpa`, masks included.

Shapes: R rows, H query heads, h key heads, g = H / h query heads of each, S cached positions, d head width.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from engine.model.attention import per_sample

DECODE = "decode"


def decode_attention(
    module: Any,
    query_RHTd: torch.Tensor,
    key_RhSd: torch.Tensor,
    value_RhSd: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """(R, T, H, d) and no weights. `attention_mask` is bool (R or 1, 1, T, S), True where a position is seen."""
    rows, heads, length, width = query_RHTd.shape
    plain_mask = attention_mask is None or (attention_mask.dtype == torch.bool and attention_mask.shape[1] == 1)
    if length != 1 or not plain_mask or others.get("position_bias") is not None:
        out: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query_RHTd, key_RhSd, value_RhSd, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return out
    scale = width**-0.5 if scaling is None else scaling
    grouped_Rhgd = query_RHTd.reshape(rows, key_RhSd.shape[1], -1, width)
    scores_RhgS = (grouped_Rhgd * scale) @ key_RhSd.transpose(-1, -2)
    if attention_mask is not None:
        scores_RhgS = scores_RhgS.masked_fill_(~attention_mask, -torch.inf)
    weights_RhgS = scores_RhgS.softmax(-1, dtype=torch.float32).to(value_RhSd.dtype)
    return (weights_RhgS @ value_RhSd).reshape(rows, 1, heads, -1), None


AttentionInterface.register(DECODE, decode_attention)
AttentionMaskInterface.register(DECODE, sdpa_mask)


def sampling_attention(model: Any) -> str:
    """The implementation by which `model` samples: `decode` where its rows go by `sdpa`, else by `per_sample`."""
    return DECODE if per_sample(model) == "sdpa" else per_sample(model)
