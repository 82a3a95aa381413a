"""Short documents in half precision on a CPU: torch's own values, and gradients no farther from fp64 than torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.model import half_products, short_attention
from engine.model.attention import document_attention

HEADS, KEY_HEADS, WIDTH = 6, 2, 16


@pytest.fixture(params=[False, True], ids=["native", "emulated"])
def emulated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the CPU is one without products of half precision; every CPU can do as if."""
    wanted: bool = request.param
    for module in (half_products, short_attention):
        monkeypatch.setattr(module, "are_emulated", lambda dtype: wanted and dtype.itemsize == 2)
    return wanted


def _case(length: int, total: int, dtype: torch.dtype, documents: int = 2) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(length * 1000 + total)
    shapes = ((HEADS, length), (KEY_HEADS, total), (KEY_HEADS, total), (HEADS, length))
    return tuple(torch.randn(documents, h, n, WIDTH, generator=draw).to(dtype) for h, n in shapes)


def _visible(length: int, total: int) -> torch.Tensor:
    return torch.ones(length, total, dtype=torch.bool).tril(total - length)


def _reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    mask = _visible(query.shape[2], key.shape[2])
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)


@pytest.mark.parametrize(("length", "total"), [(40, 40), (17, 40), (90, 130)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_are_torchs_and_gradients_nearer_to_fp64(
    length: int, total: int, dtype: torch.dtype, emulated: bool
) -> None:
    *inputs, upstream = _case(length, total, dtype)

    def gradients(attend, precision: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:  # type: ignore[no-untyped-def]
        leaves = [x.to(precision).requires_grad_() for x in inputs]
        out = attend(*leaves)
        return out.detach(), list(torch.autograd.grad(out, leaves, upstream.to(precision)))

    exact_out, exact = gradients(_reference, torch.float64)
    theirs, torchs = gradients(
        (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
        if length == total
        else _reference,
        dtype,
    )
    ours, found = gradients(lambda q, k, v: document_attention(q, k, v, scaling=None), dtype)
    if emulated:
        assert (ours.double() - exact_out).norm() <= 1.05 * (theirs.double() - exact_out).norm()
    else:
        assert torch.equal(ours, theirs)
    for own, torch_own, true in zip(found, torchs, exact, strict=True):
        assert own.dtype == dtype
        distance = (own.double() - true).norm() / true.norm()
        assert distance <= 1.05 * (torch_own.double() - true).norm() / true.norm()
        assert distance < 4e-3


def test_a_window_is_heeded() -> None:
    query, key, value, upstream = _case(60, 60, torch.bfloat16, documents=1)
    key.requires_grad_()
    out = document_attention(query, key, value, scaling=None, sliding_window=8)
    (out[:, :, 50] * upstream[:, :, 50]).sum().backward()
    assert key.grad is not None
    seen = key.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten().tolist()
    assert seen == list(range(43, 51))


def test_what_is_long_or_exact_goes_to_torch(monkeypatch: pytest.MonkeyPatch, emulated: bool) -> None:
    def never(*_: object) -> torch.Tensor:
        raise AssertionError("served")

    monkeypatch.setattr(short_attention, "short_attention", never)
    query, key, value, _ = _case(40, 40, torch.float32)
    document_attention(query.requires_grad_(), key, value, scaling=None)
    longest = short_attention.LONGEST + 1
    without_gradient, long = _case(40, 40, torch.bfloat16)[:3], _case(longest, longest, torch.bfloat16)[:3]
    long[0].requires_grad_()
    for query, key, value in (without_gradient, long):
        if emulated:
            assert short_attention.serves(query, key, value, 0.0)
        else:
            document_attention(query, key, value, scaling=None)
    query, key, value, _ = _case(40, 40, torch.bfloat16)
    with pytest.raises(AssertionError, match="served"):
        document_attention(query.requires_grad_(), key, value, scaling=None)
