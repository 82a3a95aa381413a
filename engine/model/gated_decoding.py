"""One new token of each row through a decoder layer with a gated MLP, in few calls: what the sampler does most.

The tokens of a step are few, so what a step costs beside its four products is the number of calls: here queries, keys
and values are one product, gate and up another, and both additions to the residual go with the product before them.
The arithmetic is that of `gated_block`, which layers may be worked so is decided by `gated_layers`. No
gradient. Shapes: R rows with one token each, H hidden, F inner width, n query heads, m key heads, d head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from engine.model.decode_attention import DECODE, decode_attention
from engine.model.gated_block import GatedBlock, turned
from engine.model.half_products import are_emulated
from engine.model.lora_group import LinearGroup


def decodes(layer: Any, hidden_R1H: torch.Tensor, options: dict[str, Any]) -> bool:
    """Whether this call is one token a row over a cache, without gradient, and every product a single one."""
    return (
        options.get("past_key_values") is not None
        and hidden_R1H.shape[1] == 1
        and hidden_R1H.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not are_emulated(hidden_R1H.dtype)
        and layer.self_attn.config._attn_implementation == DECODE
        and hidden_R1H.dtype == layer.gated_block.first_norm.weight.dtype
        and all(group.whole_weight() is not None for group in layer.gated_block.groups())
    )


def decode(
    layer: Any,
    hidden_R1H: torch.Tensor,
    embeddings: tuple[torch.Tensor, torch.Tensor],
    cache: Any,
    attention_mask: torch.Tensor | None,
) -> torch.Tensor:
    """The layer's output (R, 1, H); keys and values of the tokens are added to `cache`."""
    block, attention = layer.gated_block, layer.self_attn
    x_RH = hidden_R1H[:, 0]
    query, key, value = _inwards(block, x_RH, embeddings)
    keys_RmKd, values_RmKd = cache.update(key.unsqueeze(2), value.unsqueeze(2), attention.layer_idx)
    attended, _ = decode_attention(
        attention, query.unsqueeze(2), keys_RmKd, values_RmKd, attention_mask, scaling=attention.scaling
    )
    x_RH = _added(block.outwards, attended.flatten(1), x_RH)
    gate_RF, up_RF = _product(block.wide, _norm(block.second_norm, x_RH)).chunk(2, 1)
    return _added(block.down, F.silu(gate_RF).mul_(up_RF), x_RH).unsqueeze(1)


def _inwards(
    block: GatedBlock, x_RH: torch.Tensor, embeddings: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries (R, n, d), keys and values (R, m, d)."""
    y_Rnd = _product(block.inwards, _norm(block.first_norm, x_RH)).unflatten(1, (-1, block.head_width))
    keys = (y_Rnd.shape[1] - block.query_heads) // 2
    cos_Rd, sin_Rd = (x[:, 0] for x in embeddings)
    turned_Rnd = turned(y_Rnd[:, :-keys], cos_Rd, sin_Rd)
    return turned_Rnd[:, : block.query_heads], turned_Rnd[:, block.query_heads :], y_Rnd[:, -keys:]


def _norm(norm: Any, x_RH: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x_RH, (x_RH.shape[-1],), norm.weight, norm.variance_epsilon)


def _product(group: LinearGroup, x_RI: torch.Tensor) -> torch.Tensor:
    weight_OI = group.whole_weight()
    assert weight_OI is not None
    return F.linear(x_RI, weight_OI, group.bias_O)


def _added(group: LinearGroup, x_RI: torch.Tensor, to_RH: torch.Tensor) -> torch.Tensor:
    """`to_RH` and the group's product, in one call where it has no bias."""
    weight_OI = group.whole_weight()
    assert weight_OI is not None
    if group.bias_O is not None:
        return F.linear(x_RI, weight_OI, group.bias_O).add_(to_RH)
    return torch.addmm(to_RH, x_RI, weight_OI.t())
