"""Frozen linear layers that read the same input, with their LoRA, worked as one: queries, keys and values; gate and up.

One product takes the place of several, so the input is read once, and its gradient is one product and no sum of
several. The layers' weights lie end to end in one array of which each layer holds its rows, so nothing is held twice;
the layers themselves go on working, and a weight that is changed in place is changed for both. Owns that array and
which adapters are at work; what autograd sees is the caller's. Shapes: T tokens, I inputs, O outputs of all layers
together, R the sum of the ranks of their adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from engine.model.cpu_products import linear, summed
from engine.model.half_products import widened
from engine.model.lora_product import LoraLinear


@dataclass(frozen=True)
class Adapters:
    """The LoRA matrices at work in a group: one pair for each layer that has an adapter, maybe none."""

    matrices: tuple[torch.Tensor, ...]
    """A (r, I) and B (o, r) of each pair in turn."""
    outputs: tuple[slice, ...]
    """Which of the group's outputs each pair feeds."""
    scalings: tuple[float, ...]

    def joined(self, outputs: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor] | None:
        """All A, (R, I), and all scaled B transposed, (R, O), with zeros where a layer is not another's; None without
        a pair."""
        if not self.matrices:
            return None
        a_RI, b_RO = torch.cat(self.matrices[0::2]), self.matrices[1].new_zeros(sum(self._ranks()), outputs)
        for b_or, place, rank, scaling in zip(
            self.matrices[1::2], self.outputs, self._rank_places(), self.scalings, strict=True
        ):
            torch.mul(b_or.t(), scaling, out=b_RO[rank, place])
        return a_RI.to(dtype), b_RO.to(dtype)

    def gradients(self, da_RI: torch.Tensor, low_TR: torch.Tensor, dy_TO: torch.Tensor) -> list[torch.Tensor]:
        """Of each matrix, in the order of `matrices` and in its precision: those of A are rows of `da`, those of B are
        summed from what all A gave and the gradient of the outputs."""
        found = []
        for a, place, rank, scaling in zip(
            self.matrices[0::2], self.outputs, self._rank_places(), self.scalings, strict=True
        ):
            found.append(da_RI[rank].to(a.dtype))
            db_ro = summed(low_TR[:, rank], dy_TO[:, place])
            found.append(db_ro.to(a.dtype).mul_(scaling).t().contiguous())
        return found

    def _ranks(self) -> list[int]:
        return [a.shape[0] for a in self.matrices[0::2]]

    def _rank_places(self) -> list[slice]:
        return _places(self._ranks())


@dataclass(frozen=True)
class Kept:
    """What the backward pass of a group needs beside its input."""

    low_TR: torch.Tensor
    a_RI: torch.Tensor
    b_RO: torch.Tensor


class LinearGroup:
    """The layers of a group: frozen `nn.Linear`, or LoRA layers over such."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        """Moves the layers' weights into one array. `can_group` says whether they may be grouped."""
        self.layers = list(layers)
        bases = [base_of(layer) for layer in self.layers]
        self.weight_OI = torch.cat([base.weight.detach() for base in bases])
        self.places = _places([base.out_features for base in bases])
        for base, place in zip(bases, self.places, strict=True):
            base.weight.data = self.weight_OI[place]
        self.bias_O = _joined_bias(bases)
        self.merged_OI: torch.Tensor | None = None
        """The layers with their adapters folded in, end to end, while `merged_weights` lends them."""

    def whole_weight(self) -> torch.Tensor | None:
        """What all layers together multiply by now, (O, I): merged, or without any adapter; else None."""
        if self.merged_OI is not None:
            return self.merged_OI
        adapters = self.adapters()
        return self.weight_OI if adapters is not None and not adapters.matrices else None

    def adapters(self, *, dropout_counts: bool = True) -> Adapters | None:
        """Those at work now. None where a layer is more than its product and one plain adapter's, or lies elsewhere
        than it did (a model that was moved or cast)."""
        matrices: list[torch.Tensor] = []
        outputs, scalings = [], []
        for layer, place in zip(self.layers, self.places, strict=True):
            if base_of(layer).weight.data_ptr() != self.weight_OI[place].data_ptr():
                return None
            if not isinstance(layer, LoraLinear) or (layer.disable_adapters and not layer.merged):
                continue
            name = layer.plain_adapter(dropout_counts=dropout_counts)
            if name is None:
                return None
            matrices += [layer.lora_A[name].weight, layer.lora_B[name].weight]
            outputs.append(place)
            scalings.append(float(layer.scaling[name]))
        return Adapters(tuple(matrices), tuple(outputs), tuple(scalings))

    def forward(self, x_TI: torch.Tensor, adapters: Adapters) -> tuple[torch.Tensor, Kept | None]:
        """The outputs of all layers (T, O) for `x`, which is in the precision to work in."""
        bias = None if self.bias_O is None else self.bias_O.to(x_TI.dtype)
        y_TO = linear(x_TI, widened(self.weight_OI), bias)
        joined = adapters.joined(y_TO.shape[1], x_TI.dtype)
        if joined is None:
            return y_TO, None
        low_TR = x_TI @ joined[0].t()
        y_TO.addmm_(low_TR, joined[1])
        return y_TO, Kept(low_TR, *joined)

    def backward(self, dy_TO: torch.Tensor, kept: Kept | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The gradient of the input (T, I), and that of `kept.low_TR`, for `adapter_gradients`."""
        dx_TI = dy_TO @ widened(self.weight_OI)
        if kept is None:
            return dx_TI, None
        dlow_TR = dy_TO @ kept.b_RO.t()
        return dx_TI.addmm_(dlow_TR, kept.a_RI), dlow_TR


def can_group(layers: Sequence[Any]) -> bool:
    """Whether `layers` may become a `LinearGroup`: plain frozen products of one precision, with plain LoRA or none."""
    bases = [base_of(layer) for layer in layers]
    return all(
        (type(layer) is nn.Linear or isinstance(layer, LoraLinear))
        and type(base) is nn.Linear
        and not any(p.requires_grad for p in base.parameters())
        and base.weight.dtype == bases[0].weight.dtype
        and base.weight.device.type == "cpu"
        for layer, base in zip(layers, bases, strict=True)
    )


def base_of(layer: Any) -> Any:
    """The layer under an adapter, or the layer itself."""
    return getattr(layer, "base_layer", layer)


def _joined_bias(bases: Sequence[nn.Linear]) -> torch.Tensor | None:
    if all(base.bias is None for base in bases):
        return None
    return torch.cat([base.weight.new_zeros(base.out_features) if base.bias is None else base.bias for base in bases])


def _places(sizes: Sequence[int]) -> list[slice]:
    return [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]
