"""A copy of the adapted weights with the adapter folded in, for as long as completions are sampled.

A decoded token goes through W + s B A as one product where the layer and its LoRA are three and an addition; over a few
tokens that is more than the fold costs. The sum is made in fp32 and rounded once to the precision of the base.

Layers that are worked as one (`lora_group`) are folded into one array, of which each holds its rows.

Invariant: nothing of the model changes. The copies hang beside the layers and are dropped in the end, so neither base
nor adapter drifts. Logits differ by rounding from those of the layers apart: what was sampled is scored by
the training forward, so no loss depends on it, and which layers are folded depends on the model alone, so that a
resumed run samples the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from engine.model.lora_group import LinearGroup


@contextmanager
def merged_weights(model: Any) -> Iterator[int]:
    """Within, every plain LoRA layer whose adapter is active multiplies by one folded matrix; yields how many do.

    Layers with DoRA, over a base in 4 bits, or with several adapters stay as they are. Only for passes without gradient
    and without a change of role inside.
    """
    # Imported here: it loads peft, which a run of full fine-tuning does without.
    from engine.model.lora_product import LoraLinear

    adapters: dict[Any, str] = {}
    for module in model.modules():
        name = module.plain_adapter(dropout_counts=False) if isinstance(module, LoraLinear) else None
        if name is not None:
            adapters[module] = name
    groups = [group for group in _groups(model) if any(layer in adapters for layer in group.layers)]
    try:
        for group in groups:
            _merge_group(group, adapters)
        for layer, name in adapters.items():
            if layer.merged_OI is None:
                layer.merged_OI = _merged(layer, name)
        yield len(adapters)
    finally:
        for holder in (*adapters, *groups):
            holder.merged_OI = None


def _groups(model: Any) -> Iterator[LinearGroup]:
    """The layers that are worked as one, of all blocks."""
    for module in model.modules():
        block = getattr(module, "gated_block", None)
        if block is not None:
            yield from block.groups()


def _merge_group(group: LinearGroup, adapters: dict[Any, str]) -> None:
    """Fold a group whose layers have no other than plain adapters."""
    if group.adapters(dropout_counts=False) is None:
        return
    merged_OI = group.weight_OI.clone()
    for layer, place in zip(group.layers, group.places, strict=True):
        if layer not in adapters:
            continue
        if merged_OI.dtype == torch.float32:  # in its place: what is copied meanwhile takes as long as two tokens
            merged_OI[place].addmm_(*_factors(layer, adapters[layer]), alpha=_scaling(layer, adapters[layer]))
        else:
            merged_OI[place] = _merged(layer, adapters[layer])
        layer.merged_OI = merged_OI[place]
    group.merged_OI = merged_OI


def _merged(layer: Any, name: str) -> torch.Tensor:
    """W + s B A in the precision of W."""
    weight_OI = layer.base_layer.weight.detach()
    merged_OI = torch.addmm(weight_OI.float(), *_factors(layer, name), alpha=_scaling(layer, name))
    return merged_OI.to(weight_OI.dtype)


def _factors(layer: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """B (O, r) and A (r, I) in fp32."""
    return layer.lora_B[name].weight.detach().float(), layer.lora_A[name].weight.detach().float()


def _scaling(layer: Any, name: str) -> float:
    return float(layer.scaling[name])
