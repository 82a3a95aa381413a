"""What a step on a device costs, in figures that stand beside its seconds: arithmetic, peaks, launches, waits.

What model FLOPs are is `engine.model.arithmetic`'s; here they are of the benchmark's rows. DPO adds one forward pass of
the reference over its epochs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from engine.model.arithmetic import Arithmetic
from engine.model.half_products import are_emulated
from tests.benchmarks.training_data import Row

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
GRAPHS = ("cudaGraphLaunch",)
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")
"""The profiler's own waits are of the whole device (cudaDeviceSynchronize) and are not among them."""


def arithmetic_of(method: str, rows: Sequence[Row]) -> Arithmetic:
    """Of all `rows` together, forward and backward; a pair's prompt once."""
    tokens = scored = seen = 0
    for row in rows:
        prompt, answers = len(row.prompt), [len(row.chosen)] + [len(row.rejected)] * (method != "sft")
        tokens += prompt + sum(answers)
        scored += sum(answers) if method != "reward" else 0
        seen += prompt * (prompt + 1) // 2 + sum(n * prompt + n * (n + 1) // 2 for n in answers)
    return Arithmetic(tokens, scored, seen)


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
