"""What a step on a device costs, in figures that stand beside its seconds: arithmetic, peaks, launches, waits.

Owns the definition of model FLOPs here: the arithmetic that the method asks for, whatever is done for it. 4 for each
weight of a matrix product and token with LoRA (2 forward, 2 for the gradient of its input), 6 where the weight trains;
the LM head counts at the rows at which it is computed; attention counts each query and key that see each other, 4 times
their width forward and twice that backward. What is worked again (activation checkpointing, attention's scores) does
not count, nor do adapters, norms and embeddings. DPO adds one forward pass of the reference over its epochs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.model.half_products import are_emulated
from engine.model.model_sizes import ModelSizes
from tests.benchmarks.training_data import Row

SHEET_TFLOPS = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L4": 121,
    "RTX 4090": 165, "RTX 3090": 71,
}  # fmt: skip
"""Dense bf16 with fp32 sums by NVIDIA's data sheets, TFLOP/s; the first name that the card's name holds counts."""
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
GRAPHS = ("cudaGraphLaunch",)
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")
"""The profiler's own waits are of the whole device (cudaDeviceSynchronize) and are not among them."""


@dataclass(frozen=True)
class Arithmetic:
    """Of one step."""

    tokens: int
    """That go forward and backward; a pair's prompt once."""
    scored: int
    """Rows of the LM head."""
    seen: int
    """Pairs of a query and a key that it sees, in one layer and head."""

    @classmethod
    def of(cls, method: str, rows: Sequence[Row]) -> Arithmetic:
        """Of all `rows` together."""
        tokens = scored = seen = 0
        for row in rows:
            prompt, answers = len(row.prompt), [len(row.chosen)] + [len(row.rejected)] * (method != "sft")
            tokens += prompt + sum(answers)
            scored += sum(answers) if method != "reward" else 0
            seen += prompt * (prompt + 1) // 2 + sum(n * prompt + n * (n + 1) // 2 for n in answers)
        return cls(tokens, scored, seen)

    def forward(self, sizes: ModelSizes) -> float:
        """FLOPs of one forward pass."""
        return 2.0 * self._products(sizes) + self._attention(sizes)

    def training(self, sizes: ModelSizes, *, full: bool) -> float:
        """FLOPs of a forward and a backward pass."""
        return (6.0 if full else 4.0) * self._products(sizes) + 3.0 * self._attention(sizes)

    def _products(self, sizes: ModelSizes) -> float:
        """Weights of matrix products, each times the rows it is multiplied with: N T, the head at its own rows."""
        return float(sizes.block_parameters * self.tokens + sizes.head_parameters * self.scored)

    def _attention(self, sizes: ModelSizes) -> float:
        """Queries by keys and weights by values, two FLOPs a multiplication."""
        return 4.0 * sizes.query * sizes.layers * self.seen


def sheet_tflops(card: str) -> float | None:
    """What the data sheet of `card` says; None where it is not known here."""
    return next((float(figure) for name, figure in SHEET_TFLOPS.items() if name in card), None)


def matmul_tflops(device: torch.device, size: int, *, dtype: torch.dtype = torch.bfloat16, times: int = 20) -> float:
    """The best of a few products of two square matrices of this size; in fp32 where a CPU would emulate `dtype`."""
    if device.type == "cpu" and are_emulated(dtype):
        dtype = torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(times):
        _finish(device)
        began = time.perf_counter()
        a @ b
        _finish(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - began) / 1e12)
    return best


def counted(step: Callable[[], Any], device: torch.device) -> dict[str, int]:
    """One step by the profiler: kernels launched, graphs of kernels, waits of the host, operations of torch."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiled:
        step()
    calls = {event.key: event.count for event in profiled.key_averages()}
    return {
        "launches": sum(calls.get(name, 0) for name in LAUNCHES),
        "graphs": sum(calls.get(name, 0) for name in GRAPHS),
        "waits": sum(calls.get(name, 0) for name in WAITS),
        "operations": sum(count for name, count in calls.items() if name.startswith("aten::")),
    }


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
