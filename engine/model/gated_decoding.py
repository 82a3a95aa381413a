"""One new token of each row through a decoder layer with a gated MLP: what the sampler does most.

A step has few rows, and a product of few rows is bound by reading the weight. As W x', a column for each row, torch
reads it at up to twice the speed of x W' (16 rows, fp32, two cores of a CPU without AVX-512: gate and up of 30 layers
52 ms for 90, a head of 49,152 tokens 31 for 46), so a step is worked in columns. Queries, keys and values are one
product, gate and up another. Where rows are faster, `cpu_products` knows. The arithmetic is that of `gated_block`,
which layers may be worked so is decided by `gated_layers`. No gradient, fp32 alone.
Shapes: R rows with one token each, H hidden, F inner width, n query heads, m key heads, d head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from engine.model.cpu_products import in_columns, linear
from engine.model.decode_attention import DECODE, decode_attention
from engine.model.gated_block import GatedBlock, turned
from engine.model.lora_group import LinearGroup

MOST_ROWS = 64
"""Beyond them a product is bound by arithmetic, and either way takes as long."""


def decodes(layer: Any, hidden_R1H: torch.Tensor, options: dict[str, Any]) -> bool:
    """Whether this call is one token a row over a cache, without gradient, and every product a single one."""
    return (
        options.get("past_key_values") is not None
        and hidden_R1H.shape[1] == 1
        and is_thin(hidden_R1H, layer.gated_block.first_norm.weight)
        and layer.self_attn.config._attn_implementation == DECODE
        and all(group.whole_weight() is not None for group in layer.gated_block.groups())
    )


def is_thin(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether products of `x` (…, inputs) are worked in columns: few rows on a CPU, fp32, without gradient."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() <= MOST_ROWS * x.shape[-1]
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


@contextmanager
def thin_head(model: Any) -> Iterator[None]:
    """Within, the LM head works few rows in columns, too, where it is a plain product."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None:
        yield
        return

    def forward(x: torch.Tensor) -> torch.Tensor:
        if not is_thin(x, head.weight):
            return linear(x, head.weight)
        return in_columns(head.weight, x.reshape(-1, x.shape[-1]).t()).t().unflatten(0, x.shape[:-1])

    head.forward = forward
    try:
        yield
    finally:
        del head.forward


def decode(
    layer: Any,
    hidden_R1H: torch.Tensor,
    embeddings: tuple[torch.Tensor, torch.Tensor],
    cache: Any,
    attention_mask: torch.Tensor | None,
) -> torch.Tensor:
    """The layer's output (R, 1, H), a view of its columns; keys and values of the tokens are added to `cache`."""
    block, attention = layer.gated_block, layer.self_attn
    x_HR = hidden_R1H[:, 0].t()
    query, key, value = _inwards(block, x_HR, embeddings)
    keys_RmKd, values_RmKd = cache.update(key.unsqueeze(2), value.unsqueeze(2), attention.layer_idx)
    attended, _ = decode_attention(
        attention, query.unsqueeze(2), keys_RmKd, values_RmKd, attention_mask, scaling=attention.scaling
    )
    x_HR = _added(block.outwards, attended.flatten(1).t(), x_HR)
    gate_FR, up_FR = _product(block.wide, _norm(block.second_norm, x_HR)).chunk(2)
    return _added(block.down, F.silu(gate_FR).mul_(up_FR), x_HR).t().unsqueeze(1)


def _inwards(
    block: GatedBlock, x_HR: torch.Tensor, embeddings: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries (R, n, d), keys and values (R, m, d)."""
    y_RO = _product(block.inwards, _norm(block.first_norm, x_HR)).t().contiguous()
    y_Rnd = y_RO.unflatten(1, (-1, block.head_width))
    keys = (y_Rnd.shape[1] - block.query_heads) // 2
    cos_Rd, sin_Rd = (x[:, 0] for x in embeddings)
    turned_Rnd = turned(y_Rnd[:, :-keys], cos_Rd, sin_Rd)
    return turned_Rnd[:, : block.query_heads], turned_Rnd[:, block.query_heads :], y_Rnd[:, -keys:]


def _norm(norm: Any, x_HR: torch.Tensor) -> torch.Tensor:
    length_1R = torch.linalg.vector_norm(x_HR, dim=0, keepdim=True)  # in one pass over x, where x² is written and read
    scale_1R = length_1R.square_().div_(x_HR.shape[0]).add_(norm.variance_epsilon).rsqrt_()
    return (x_HR * scale_1R).mul_(norm.weight.unsqueeze(1))


def _product(group: LinearGroup, x_IR: torch.Tensor) -> torch.Tensor:
    weight_OI = group.whole_weight()
    assert weight_OI is not None
    return in_columns(weight_OI, x_IR, None if group.bias_O is None else group.bias_O.unsqueeze(1))


def _added(group: LinearGroup, x_IR: torch.Tensor, to_HR: torch.Tensor) -> torch.Tensor:
    """`to_HR` and the group's product, in one call."""
    weight_OI = group.whole_weight()
    assert weight_OI is not None
    sum_HR = in_columns(weight_OI, x_IR, to_HR)
    return sum_HR if group.bias_O is None else sum_HR.add_(group.bias_O.unsqueeze(1))
