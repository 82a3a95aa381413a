"""Which decoder layers are worked by `gated_block`, and their forward pass.

A layer's arithmetic is asked of it and not looked up by its name: a small copy of its class, with the model's own
config but for the sizes, must give the same values and gradients both ways, also with an attention window that is
shorter than its documents. What differs (norms of queries and keys, other multipliers, other activations) keeps its
own forward pass, and so does every layer where the call is neither a packed row on a CPU nor one sampled token a row
there: autocast, dropout, merged or stacked adapters. A sampled token goes by `gated_decoding`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from engine.data.packing import Span
from engine.model.attention import PACKED, DocumentLayout, packed_attention
from engine.model.gated_block import BeforeAttention, BehindAttention, BlockAdapters, GatedBlock
from engine.model.gated_decoding import decode, decodes
from engine.model.lora_group import LinearGroup, base_of, can_group

_PARTS = {
    "": {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"},
    "self_attn": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "mlp": {"gate_proj", "up_proj", "down_proj", "act_fn"},
}
_SMALL = {
    "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
}  # fmt: skip
_WINDOW, _TOLERANCE = 3, 1e-4


class GatedLayer:
    """Mixed into the class of a decoder layer: its forward pass by `gated_block` where that serves."""

    gated_block: GatedBlock
    self_attn: Any
    is_last: bool = False
    """Whether only the model's last norm reads what the layer gives."""

    def forward(
        self, hidden_states: torch.Tensor, *args: Any, wanted_rows: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        """As the layer's own; of the last layer the `wanted_rows` alone, and only they are worked behind attention."""
        if not self.is_last:
            wanted_rows = None
        layout, embeddings = kwargs.get("document_layout"), kwargs.get("position_embeddings")
        if not args and embeddings is not None and decodes(self, hidden_states, kwargs):
            return decode(self, hidden_states, embeddings, kwargs["past_key_values"], kwargs.get("attention_mask"))
        adapters = None
        if not args and layout is not None and embeddings is not None and self._is_plain(hidden_states, kwargs):
            adapters = BlockAdapters.of(self.gated_block)
        if adapters is None or embeddings is None:
            out = super().forward(hidden_states, *args, **kwargs)  # type: ignore[misc]
            return out if wanted_rows is None else out.index_select(1, wanted_rows)
        cos_Td, sin_Td = (x.expand(1, -1, -1)[0] for x in embeddings)
        x_TH, query, key, value = BeforeAttention.apply(
            hidden_states[0], cos_Td, sin_Td, self.gated_block, adapters.inwards, *adapters.inwards.matrices
        )
        query, key, value = (x.transpose(0, 1).unsqueeze(0) for x in (query, key, value))
        attended, _ = packed_attention(
            self.self_attn,
            query,
            key,
            value,
            None,
            document_layout=layout,
            scaling=self.self_attn.scaling,
            sliding_window=getattr(self.self_attn, "sliding_window", None),
        )
        attended_TO = attended[0].flatten(1)
        if wanted_rows is not None:
            x_TH, attended_TO = x_TH.index_select(0, wanted_rows), attended_TO.index_select(0, wanted_rows)
        out_TH = BehindAttention.apply(x_TH, attended_TO, self.gated_block, adapters, *adapters.behind())
        return out_TH.unsqueeze(0)

    def _is_plain(self, hidden_states: torch.Tensor, kwargs: dict[str, Any]) -> bool:
        block = self.gated_block
        return (
            kwargs.get("past_key_values") is None
            and kwargs.get("attention_mask") is None
            and hidden_states.device.type == "cpu"
            and hidden_states.dtype == block.inwards.weight_OI.dtype == block.first_norm.weight.dtype
            and hidden_states.dtype != torch.float64
            and not torch.is_autocast_enabled("cpu")
            and not (self.self_attn.training and self.self_attn.attention_dropout)
        )


def use_gated_blocks(model: Any) -> int:
    """Let every decoder layer of `model` that can be worked so use `gated_block`; returns how many there are."""
    answers: dict[tuple[type, bool], bool] = {}
    found = 0
    for layer in [module for module in model.modules() if _has_parts(module)]:
        kind = (type(layer), getattr(layer.self_attn, "sliding_window", None) is None)
        if kind not in answers:
            answers[kind] = _acts_alike(layer)
        if answers[kind]:
            _regroup(layer)
            found += 1
    if found:
        layers = list(model.get_decoder().layers)
        layers[-1].is_last = all(isinstance(layer, GatedLayer) for layer in layers)
    return found


def _has_parts(layer: Any) -> bool:
    """Whether a module is made of the parts that a gated block has, frozen and with plain adapters at most."""
    parts = {name: set(module._modules) for name, module in layer.named_modules() if name in _PARTS}
    if parts != _PARTS or isinstance(layer, GatedLayer):
        return False
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    if not all(hasattr(norm, "variance_epsilon") and not norm.weight.requires_grad for norm in norms):
        return False
    return all(can_group(layers) for layers in _groups(layer))


def _groups(layer: Any) -> list[list[Any]]:
    attention, mlp = layer.self_attn, layer.mlp
    return [
        [attention.q_proj, attention.k_proj, attention.v_proj],
        [attention.o_proj],
        [mlp.gate_proj, mlp.up_proj],
        [mlp.down_proj],
    ]


def _regroup(layer: Any) -> None:
    inwards, outwards, wide, down = (LinearGroup(layers) for layers in _groups(layer))
    width = int(layer.self_attn.head_dim)
    layer.gated_block = GatedBlock(
        layer.input_layernorm,
        inwards,
        outwards,
        layer.post_attention_layernorm,
        wide,
        down,
        base_of(layer.self_attn.q_proj).out_features // width,
        width,
    )
    layer.__class__ = type(layer.__class__.__name__, (GatedLayer, layer.__class__), {})


def _acts_alike(layer: Any) -> bool:
    """Whether a small copy of the layer's class gives the same both ways."""
    try:
        with torch.random.fork_rng(devices=[]):
            own = _small_copy(layer)
            other = copy.deepcopy(own)
            _regroup(other)
            return all(
                torch.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE)
                for a, b in zip(_outcome(own), _outcome(other), strict=True)
            )
    except Exception:  # whatever a stranger's layer raises when it is made or called otherwise than by its model
        return False


def _small_copy(layer: Any) -> Any:
    config = copy.deepcopy(layer.self_attn.config)
    window = getattr(config, "sliding_window", None)
    for name, value in {**_SMALL, "sliding_window": window and _WINDOW, "_attn_implementation": PACKED}.items():
        if hasattr(config, name):
            setattr(config, name, value)
    torch.manual_seed(0)
    small = type(layer)(config, layer.self_attn.layer_idx).float().eval().requires_grad_(False)
    for parameter in small.parameters():
        parameter.uniform_(0.3, 0.7) if parameter.dim() < 2 else parameter.uniform_(-0.5, 0.5)
    return small


def _outcome(layer: Any) -> list[torch.Tensor]:
    """What the layer gives for two documents in a row, and the gradient of its input."""
    draw = torch.Generator().manual_seed(1)
    spans = (Span(0, 7, 0, 0), Span(7, 5, 1, 0))
    x = torch.randn(1, 12, _SMALL["hidden_size"], generator=draw).requires_grad_()
    angles = torch.randn(1, 12, _SMALL["head_dim"] // 2, generator=draw).repeat(1, 1, 2)
    with torch.enable_grad():
        out = layer(
            x,
            attention_mask=None,
            position_ids=None,
            position_embeddings=(angles.cos(), angles.sin()),
            document_layout=DocumentLayout.of(spans, x.device),
        )
        upstream = torch.randn(out.shape, generator=draw)
        (slope,) = torch.autograd.grad(out, x, upstream)
    return [out.detach(), slope]
