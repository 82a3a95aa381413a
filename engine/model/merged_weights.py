"""A copy of the adapted weights with the adapter folded in, for as long as completions are sampled.

A decoded token goes through W + s B A as one product where the layer and its LoRA are three and an addition; over a few
tokens that is more than the fold costs. The sum is made in fp32 and rounded once to the precision of the base.

Invariant: nothing of the model changes. The copies hang beside the layers and are dropped in the end, so neither base
nor adapter drifts. Logits differ by rounding from those of the layers apart: what was sampled is scored by
the training forward, so no loss depends on it, and which layers are folded depends on the model alone, so that a
resumed run samples the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def merged_weights(model: Any) -> Iterator[int]:
    """Within, every plain LoRA layer whose adapter is active multiplies by one folded matrix; yields how many do.

    Layers with DoRA, over a base in 4 bits, or with several adapters stay as they are. Only for passes without gradient
    and without a change of role inside.
    """
    # Imported here: it loads peft, which a run of full fine-tuning does without.
    from engine.model.lora_product import LoraLinear

    layers = [module for module in model.modules() if isinstance(module, LoraLinear)]
    folded = []
    try:
        for layer in layers:
            name = layer.plain_adapter(dropout_counts=False)
            if name is not None:
                layer.merged_OI = _merged(layer, name)
                folded.append(layer)
        yield len(folded)
    finally:
        for layer in folded:
            layer.merged_OI = None


def _merged(layer: Any, name: str) -> torch.Tensor:
    """W + s B A in the precision of W."""
    weight_OI = layer.base_layer.weight.detach()
    a_RI, b_OR = (part[name].weight.detach().float() for part in (layer.lora_A, layer.lora_B))
    merged_OI = torch.addmm(weight_OI.float(), b_OR, a_RI, alpha=float(layer.scaling[name]))
    return merged_OI.to(weight_OI.dtype)
