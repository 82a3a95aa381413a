"""RMSNorm and its gradient against autograd in fp64, beside what transformers' own norm is off by."""

from __future__ import annotations

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from engine.model.rms_norm import rms_norm, rms_norm_backward

EPS = 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_are_no_farther_from_fp64_than_transformers(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(7)
    x, upstream = (torch.randn(50, 96, generator=draw).to(dtype) for _ in range(2))
    # A mean far from 0, of input and gradient: the kernel that is used is that of a norm which takes the mean out.
    x, upstream = x * 3 + 1, upstream + 0.5
    weight = torch.rand(96, generator=draw).add(0.5).to(dtype)
    exact_x = x.double().requires_grad_()
    exact = exact_x * torch.rsqrt(exact_x.square().mean(-1, keepdim=True) + EPS) * weight.double()
    (exact_slope,) = torch.autograd.grad(exact, exact_x, upstream.double())
    norm = LlamaRMSNorm(96, EPS).to(dtype)
    norm.weight.data.copy_(weight)
    their_x = x.clone().requires_grad_()
    theirs = norm(their_x)
    (their_slope,) = torch.autograd.grad(theirs, their_x, upstream)

    out, scale = rms_norm(x, weight, EPS, dtype)
    slope = rms_norm_backward(upstream, x, scale, weight)
    assert (out.dtype, slope.dtype, scale.shape) == (dtype, dtype, (50, 1))
    for ours, other, true in ((out, theirs, exact), (slope, their_slope, exact_slope)):
        distance, their_distance = ((found.double() - true).norm() / true.norm() for found in (ours, other))
        assert distance <= 1.5 * their_distance
        assert distance < (5e-7 if dtype == torch.float32 else 5e-3)
