"""Products in half precision with and without a CPU that has them: nearer to fp64 widened, torch's own bits else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.model import half_products
from engine.model.half_products import are_emulated, linear, product, widened


@pytest.fixture(params=[True, False], ids=["emulated", "native"])
def emulated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    wanted: bool = request.param
    monkeypatch.setattr(half_products, "are_emulated", lambda dtype: wanted and dtype == torch.bfloat16)
    return wanted


def _operands(rows: int = 40, bias: bool = True) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    draw = torch.Generator().manual_seed(2)
    x, weight = torch.randn(rows, 24, generator=draw), torch.randn(50, 24, generator=draw)
    return x.bfloat16(), weight.bfloat16(), torch.randn(50, generator=draw).bfloat16() if bias else None


@pytest.mark.parametrize("piece_rows", [7, 1000])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_rounded_once(
    emulated: bool, piece_rows: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_products, "PIECE_BYTES", 4 * 24 * piece_rows)
    x, weight, b = _operands(bias=bias)
    exact = F.linear(x.double(), weight.double(), None if b is None else b.double())
    found, back = linear(x, weight, b), product(exact.bfloat16(), weight)
    assert found.dtype == back.dtype == torch.bfloat16
    if emulated:
        # Half a unit in the last place of bf16, and what fp32 sums are off by.
        assert torch.allclose(found.double(), exact, rtol=2**-8, atol=1e-5)
        assert torch.allclose(back.double(), exact.bfloat16().double() @ weight.double(), rtol=2**-8, atol=1e-3)
    else:
        assert torch.equal(found, F.linear(x, weight, b))
        assert torch.equal(back, exact.bfloat16() @ weight)


def test_few_rows_and_other_precisions_are_torchs_own(emulated: bool) -> None:
    x, weight, b = _operands(rows=half_products.FEWEST_ROWS - 1)
    assert torch.equal(linear(x, weight, b), F.linear(x, weight, b))
    x, weight = x.double(), weight.double()
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert widened(x) is x


def test_gradients_reach_the_input(emulated: bool) -> None:
    x, weight, _ = _operands()
    x.requires_grad_()
    linear(x, weight).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad.double(), weight.double().sum(0).expand(40, 24), rtol=2**-6, atol=2e-2)


def test_what_is_no_half_precision_is_never_emulated() -> None:
    assert not are_emulated(torch.float32)
    assert not are_emulated(torch.float64)
