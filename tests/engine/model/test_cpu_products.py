"""Who multiplies: which products go by oneDNN, that they are products, and that nothing is chosen by a measurement."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.model import cpu_products
from engine.model.cpu_products import BLOCK, FEWEST_COLUMNS, FEWEST_ROWS, STRIPE, in_columns, linear, summed

SHAPES = [(FEWEST_ROWS, 96, 32), (300, 960, 576), (170, 2000, 64), (3, 96, 32), (300, 32, 96), (300, 64, 64)]
"""Rows, outputs, inputs."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of inputs that torch itself multiplies, on a processor on which oneDNN is faster."""
    shapes: list[tuple[int, ...]] = []
    work = F.linear

    def noted(x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return work(x, *others)

    monkeypatch.setattr(cpu_products, "prefers_onednn", lambda: True)
    monkeypatch.setattr(cpu_products, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(cpu_products.F, "linear", noted)
    return shapes


@pytest.mark.parametrize(("rows", "outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("with_bias", [False, True])
def test_it_is_the_product(asked: list[tuple[int, ...]], rows: int, outputs: int, inputs: int, with_bias: bool) -> None:
    torch.manual_seed(rows)
    x, weight, bias = torch.randn(rows, inputs), torch.randn(outputs, inputs) / inputs**0.5, torch.randn(outputs)
    with torch.no_grad():
        y = linear(x, weight, bias if with_bias else None)
    exact = x.double() @ weight.double().t() + (bias.double() if with_bias else 0.0)
    assert (y.double() - exact).abs().max() < 1e-5
    by_torch = rows < FEWEST_ROWS or outputs <= inputs
    assert asked == ([(rows, inputs)] if by_torch else [])


def test_of_any_shape_and_layout(asked: list[tuple[int, ...]]) -> None:
    torch.manual_seed(1)
    weight, x = torch.randn(96, 32), torch.randn(2, 40, 64)[..., ::2]
    with torch.no_grad():
        y = linear(x, weight)
    assert asked == []
    assert torch.allclose(y, x @ weight.t(), atol=1e-5)


def test_torch_keeps_what_it_must_differentiate_and_what_is_not_fp32(asked: list[tuple[int, ...]]) -> None:
    x, weight = torch.randn(20, 8, requires_grad=True), torch.randn(64, 8)
    linear(x, weight).sum().backward()
    assert x.grad is not None
    with torch.no_grad():
        linear(x.double(), weight.double())
        linear(x.bfloat16(), weight.bfloat16())
    assert asked == [(20, 8)] * 3


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\n", True),
        ("processor\t: 0\nvendor_id\t: GenuineIntel\n", False),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", False),
        (None, False),
    ],
)
def test_the_processor_alone_decides(cpuinfo: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> str:
        if cpuinfo is None:
            raise OSError
        return cpuinfo

    monkeypatch.setattr(cpu_products.Path, "read_text", read)
    assert cpu_products.prefers_onednn.__wrapped__() is (expected and torch.backends.mkldnn.is_available())


def test_a_small_matrix_is_left_to_torch(asked: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "LEAST_WEIGHTS", 97 * 32)
    with torch.no_grad():
        linear(torch.randn(20, 32), torch.randn(96, 32))
        linear(torch.randn(20, 32), torch.randn(97, 32))
    assert asked == [(20, 32)], "the first"


@pytest.mark.parametrize("rows", [1, 3, FEWEST_COLUMNS - 1, FEWEST_COLUMNS, 40])
@pytest.mark.parametrize("outputs", [700, 2048, 2304, 2500])
def test_few_rows_in_columns(rows: int, outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(rows)
    x, weight, to = torch.randn(rows, 48), torch.randn(outputs, 48), torch.randn(rows, outputs).t()
    by_torch = weight @ x.t()
    calls: list[int] = []
    work = torch.bmm
    monkeypatch.setattr(cpu_products, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(torch, "bmm", lambda a, b: (calls.append(len(a)), work(a, b))[1])
    with torch.no_grad():
        for onednn in (False, True):
            monkeypatch.setattr(cpu_products, "prefers_onednn", lambda choice=onednn: choice)
            assert torch.allclose(in_columns(weight, x.t()), by_torch, atol=1e-4)
            assert torch.allclose(in_columns(weight, x.t(), to), by_torch + to, atol=1e-4)
            assert torch.allclose(in_columns(weight, x.t(), torch.ones(outputs, 1)), by_torch + 1, atol=1e-4)
    in_blocks = outputs in (2048, 2304) and rows >= FEWEST_COLUMNS
    assert calls == ([outputs // BLOCK] * 3 if in_blocks else [])


@pytest.mark.parametrize(
    ("tokens", "columns", "outputs"), [(300, 8, 3 * STRIPE), (41, 24, STRIPE), (1, 8, 128), (0, 8, 128)]
)
def test_a_sum_over_tokens_in_stripes(monkeypatch: pytest.MonkeyPatch, tokens: int, columns: int, outputs: int) -> None:
    torch.manual_seed(tokens)
    x, wide = torch.randn(tokens, 2 * columns), torch.randn(tokens, 2 * outputs)
    stripes: list[tuple[int, ...]] = []
    work = torch.bmm

    def noted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        stripes.append(tuple(b.shape))
        return work(a, b)

    monkeypatch.setattr(cpu_products.torch, "bmm", noted)
    exact = x[:, columns:].double().t() @ wide[:, outputs:].double()
    for tuned in (True, False):
        monkeypatch.setattr(cpu_products, "prefers_onednn", lambda tuned=tuned: tuned)
        with torch.no_grad():
            found = summed(x[:, columns:], wide[:, outputs:])
            odd = summed(x[:, columns:], wide[:, outputs + 1 :])
        assert torch.allclose(found.double(), exact, atol=1e-4)
        assert torch.allclose(odd.double(), exact[:, 1:], atol=1e-4)
    assert stripes == [(outputs // STRIPE, tokens, STRIPE)]
