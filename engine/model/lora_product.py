"""The product of a frozen linear layer and its LoRA, forward and backward in as few passes over memory as it takes.

y = x W' + b + s (x A') B' with A of (r, in), B of (out, r), W frozen (Hu et al. 2021, arXiv:2106.09685); ' transposes.
peft's own layer casts x to the adapter's precision and adds three arrays of the size of y; here the low-rank product is
added into y by the matrix product itself, in the precision of x, with one rounding where peft has two. Adapters stay in
their own precision, and so do their gradients.

Owns the arithmetic of plain LoRA on `nn.Linear`. A layer with DoRA, live dropout, several active adapters, merged
weights or a quantised base goes through peft's own forward. Shapes: T tokens, r rank.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLoraLinear
from torch import nn

from engine.model import cpu_products
from engine.model.half_products import linear, widened


class LoraProduct(torch.autograd.Function):
    """x (T, in), W (out, in), b (out,) or None, A (r, in), B (out, r), s -> y (T, out) in the precision of x."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TI: torch.Tensor,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        a_RI: torch.Tensor,
        b_OR: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        x, weight = widened(x_TI), widened(weight_OI)
        a, b = a_RI.to(x.dtype), (b_OR * scaling).to(x.dtype)
        low_TR = x @ a.t()
        y_TO = cpu_products.linear(x, weight, None if bias_O is None else bias_O.to(x.dtype))
        y_TO.addmm_(low_TR, b.t())
        ctx.save_for_backward(x_TI, weight_OI, a, b, low_TR)
        ctx.scaling = scaling
        ctx.precision = a_RI.dtype
        return y_TO.to(x_TI.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        dy_TO = widened(gradients[0])
        x_TI, weight_OI, a_RI, b_OR, low_TR = ctx.saved_tensors
        wants_x, _, _, wants_a, wants_b, _ = ctx.needs_input_grad
        dx = da = db = None
        if wants_x or wants_a:
            dlow_TR = dy_TO @ b_OR
        if wants_x:
            dx = dy_TO @ widened(weight_OI)
            dx = dx.addmm_(dlow_TR, a_RI).to(x_TI.dtype)
        if wants_a:
            da = (dlow_TR.t() @ widened(x_TI)).to(ctx.precision)
        if wants_b:
            db = cpu_products.summed(low_TR, dy_TO).to(ctx.precision).mul_(ctx.scaling).t().contiguous()
        return dx, None, None, da, db, None


class LoraLinear(PeftLoraLinear):
    """peft's layer with its product by `LoraProduct` where it is a plain one."""

    merged_OI: torch.Tensor | None = None
    """The layer and its active adapter as one matrix, while `merged_weights` lends it."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As peft's."""
        if self.merged_OI is not None:
            return linear(x, self.merged_OI, self.base_layer.bias)
        if self.disable_adapters and not self.merged and not args and not kwargs:
            return linear(x, self.base_layer.weight, self.base_layer.bias)
        name = self.plain_adapter()
        if name is None or args or kwargs or torch.is_autocast_enabled(x.device.type):
            out: torch.Tensor = super().forward(x, *args, **kwargs)
            return out
        base = self.base_layer
        y_TO = LoraProduct.apply(
            x.flatten(0, -2), base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight,
            float(self.scaling[name]),
        )  # fmt: skip
        product: torch.Tensor = y_TO.unflatten(0, x.shape[:-1])
        return product

    def plain_adapter(self, *, dropout_counts: bool = True) -> str | None:
        """The one active adapter, if all there is to do is its plain product; live dropout is more, where it counts."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name: str = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or self.lora_B[name].bias is not None:
            return None
        if not dropout_counts:
            return name
        dropout = self.lora_dropout[name]
        return None if isinstance(dropout, nn.Dropout) and dropout.p > 0 and dropout.training else name


def use_lora_products(model: nn.Module) -> int:
    """Let every plain LoRA layer of `model` use `LoraProduct`; returns how many there are."""
    found = 0
    for module in model.modules():
        if type(module) is PeftLoraLinear and type(module.base_layer) is nn.Linear:
            module.__class__ = LoraLinear
            found += 1
    return found
