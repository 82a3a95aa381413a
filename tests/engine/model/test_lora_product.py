"""The fused product of a linear layer and its LoRA against peft's own layer, and what is left to peft."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from engine.model.lora_product import LoraLinear, use_lora_products


def layer(*, dtype: torch.dtype = torch.float64, **config: Any) -> Any:
    """peft's layer over Linear(6, 5) with a rank-3 adapter that is not zero."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 5)).to(dtype)
    peft_model = get_peft_model(
        model, LoraConfig(r=3, lora_alpha=7, target_modules=["0"], **config), autocast_adapter_dtype=False
    )
    found = peft_model.base_model.model[0]
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, dtype=dtype))
    return found


def outcome(found: Any, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    found.zero_grad()
    out = found(x)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return [out.detach(), x.grad, *(p.grad.clone() for p in found.parameters() if p.grad is not None)]


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["plain", "rslora", "dora"])
def test_equals_peft_in_fp64(config: dict[str, Any]) -> None:
    found = layer(**config)
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    expected = outcome(found, x)
    assert use_lora_products(found) == 1
    assert type(found) is LoraLinear
    assert (found.plain_adapter() is None) == ("use_dora" in config)
    for a, b in zip(outcome(found, x), expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_off_is_the_base_alone_and_dropout_is_left_to_peft() -> None:
    found = layer(lora_dropout=0.5)
    use_lora_products(found)
    x = torch.randn(4, 6, dtype=torch.float64)
    assert found.train().plain_adapter() is None
    assert found.eval().plain_adapter() == "default"
    found._disable_adapters = True
    assert torch.equal(found(x), found.base_layer(x))


def test_gradients_of_a_bf16_base_stay_in_the_precision_of_the_adapter() -> None:
    found = layer(dtype=torch.float32)
    use_lora_products(found)
    x = torch.randn(64, 6)
    exact = outcome(found, x)
    found.base_layer.bfloat16()
    rounded = outcome(found, x.bfloat16())
    assert rounded[0].dtype == torch.bfloat16
    assert [g.dtype for g in rounded[-2:]] == [torch.float32] * 2
    for a, b in zip(rounded, exact, strict=True):
        assert (a.float() - b).abs().max() <= 0.03 * b.abs().max()


def test_no_gradient_where_none_is_wanted() -> None:
    """The first layer's input is a frozen embedding, and a reward model's adapter may be frozen."""
    found = layer()
    use_lora_products(found)
    found(torch.randn(4, 6, dtype=torch.float64)).sum().backward()
    assert found.lora_A["default"].weight.grad is not None
    found.requires_grad_(False)
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    found(x).sum().backward()
    a, b = found.lora_A["default"].weight, found.lora_B["default"].weight
    merged = found.base_layer.weight + found.scaling["default"] * b @ a
    assert torch.allclose(x.grad, merged.sum(0).expand_as(x), rtol=1e-12)
