"""Decoding on one GPU: tokens a second beside what the card's memory allows, and kernels launched for a token.

    python -m tests.benchmarks.gpu_decode                          Llama-3.2-1B's shape, 64 rows, bf16, LoRA folded in
    python -m tests.benchmarks.gpu_decode --device cpu --smoke     all of it on a model of two small layers

Self-contained: random weights, random prompts, nothing downloaded. A decoded token reads every weight of a matrix
product once and the keys and values of all rows; that many bytes over the bandwidth is the least that it can take, and
the goal is to be within 60 % of it at 64 rows. The bandwidth is measured by copying a large tensor; the data sheet's
stands beside it. A token's time is what the second half of a completion takes, so prompts and start do not count.
It has run on a CPU alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.model.model_sizes import ModelSizes
from tests.benchmarks.gpu import SHAPES

SHEET_GB_A_SECOND = {
    "B200": 8000, "H200": 4800, "H100 PCIe": 2000, "H100": 3350, "A100": 2039, "L40S": 864, "L4": 300,
    "RTX 4090": 1008, "RTX 3090": 936,
}  # fmt: skip
"""By NVIDIA's data sheets; the first name that the card's name holds counts."""
GOAL = 0.6
RANK, ALPHA = 16, 32
REPEATS = 3


@dataclass(frozen=True)
class Plan:
    """What is decoded."""

    rows: int
    prompt: int
    """Tokens of each prompt, all different."""
    new_tokens: int


def main(argv: list[str] | None = None) -> int:
    """Measure what was asked for and print it."""
    wanted = _parser().parse_args(argv)
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    if wanted.smoke:
        wanted.shape, wanted.rows, wanted.prompt, wanted.new_tokens = "smoke", 4, 12, 16
    device = torch.device(wanted.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device; --device cpu --smoke runs all of this on a tiny model")
    with tempfile.TemporaryDirectory() as scratch:
        report = measure(wanted.shape, Plan(wanted.rows, wanted.prompt, wanted.new_tokens), device, Path(scratch))
    print(json.dumps(report) if wanted.json else table(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu_decode", description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=list(SHAPES), default="llama-1b")
    parser.add_argument("--rows", type=int, default=64, help="completions side by side (default 64)")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt (default 128)")
    parser.add_argument("--new-tokens", type=int, default=512, help="of each completion (default 512)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--smoke", action="store_true", help="a tiny model: that all of it runs, and no figure")
    parser.add_argument("--json", action="store_true")
    return parser


def measure(shape: str, plan: Plan, device: torch.device, scratch: Path) -> dict[str, Any]:
    """Everything of one shape."""
    from engine.model.adapters import POLICY, build_roles
    from engine.model.loading import load_causal_lm
    from engine.model.model_sizes import read_model_sizes
    from engine.model.sampler import sample
    from tests.benchmarks.gpu_figures import counted
    from tests.benchmarks.training_data import FIRST_ID, PAD, write_model

    folder = write_model(scratch / "model", layers=None, source=None, device=device, **SHAPES[shape])
    sizes = read_model_sizes(folder)
    assert sizes is not None
    model = load_causal_lm(folder, dtype=torch.bfloat16, device=device)
    roles = build_roles(model, kind="lora", trained=POLICY, start_adapter=None, rank=RANK, alpha=ALPHA)
    draw = torch.Generator().manual_seed(0)
    prompts = torch.randint(FIRST_ID, sizes.vocabulary, (plan.rows, plan.prompt), generator=draw).tolist()

    def decode(new_tokens: int) -> None:
        with roles.speaking(POLICY) as speaker:
            sample(
                speaker, prompts, max_new_tokens=new_tokens, temperature=1.0, stop_ids=(), pad_id=PAD,
                seeds=list(range(plan.rows)),
            )  # fmt: skip

    half = plan.new_tokens // 2
    decode(plan.new_tokens)  # kernels are chosen, graphs of these shapes have been captured once
    token_s = statistics.median(
        (seconds(lambda: decode(plan.new_tokens), device) - seconds(lambda: decode(half), device))
        / (plan.new_tokens - half)
        for _ in range(REPEATS)
    )
    whole, first = (counted(partial(decode, n), device) for n in (plan.new_tokens, half))
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    found = {
        "date": time.strftime("%Y-%m-%d"), "card": card, "torch": torch.__version__, "shape": shape,
        "rows": plan.rows, "prompt": plan.prompt, "new_tokens": plan.new_tokens,
        "token_s": token_s, "tokens_per_second": plan.rows / token_s,
        "bytes_a_token": bytes_a_token(sizes, plan),
        "measured_gb_a_second": copied_gb_a_second(device),
        "sheet_gb_a_second": next((float(v) for name, v in SHEET_GB_A_SECOND.items() if name in card), None),
        **{name: (whole[name] - first[name]) / (plan.new_tokens - half) for name in whole},
    }  # fmt: skip
    return {**found, **shares(found)}


def bytes_a_token(sizes: ModelSizes, plan: Plan, word: int = 2) -> float:
    """Bytes that a step over all rows has to read in the second half of the completions: weights of the blocks and the
    head once, keys and values of every row up to the mean column."""
    columns = plan.prompt + 0.75 * plan.new_tokens
    cache = plan.rows * columns * 2 * sizes.layers * sizes.key_value
    return float(word * (sizes.block_parameters + sizes.head_parameters + cache))


def shares(found: dict[str, Any]) -> dict[str, float | None]:
    """The least time by both bandwidths over the measured one."""
    least = {name: found[f"{name}_gb_a_second"] for name in ("measured", "sheet")}
    return {
        f"share_of_{name}": found["bytes_a_token"] / (gb * 1e9) / found["token_s"] if gb else None
        for name, gb in least.items()
    }


def copied_gb_a_second(device: torch.device) -> float:
    """The best of a few copies, read and written bytes together."""
    source = torch.ones(2**28 if device.type == "cuda" else 2**22, device=device)
    target = torch.empty_like(source)
    best = min(seconds(lambda: target.copy_(source), device) for _ in range(8))
    return float(2 * source.numel() * source.element_size() / best / 1e9)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Of `work`, until the device has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def table(report: dict[str, Any]) -> str:
    """The report as a person reads it."""
    sheet = report["sheet_gb_a_second"]
    of_sheet = f", {report['share_of_sheet']:.1%} of the data sheet's {sheet:,.0f}" if sheet else ""
    return "\n".join(
        [
            f"{report['date']}, {report['card']}, torch {report['torch']}, {report['shape']}, bf16, "
            f"{report['rows']} rows, prompts of {report['prompt']} and completions of {report['new_tokens']} tokens",
            f"{report['tokens_per_second']:,.0f} tokens a second, {report['token_s'] * 1e3:.3g} ms for one a row",
            f"{report['share_of_measured']:.1%} of what a copy's {report['measured_gb_a_second']:,.0f} GB/s allow"
            f"{of_sheet} (goal {GOAL:.0%}): {report['bytes_a_token'] / 1e9:.3g} GB to read",
            f"for one token of every row {report['launches']:.1f} kernels launched one by one, {report['graphs']:.2f} "
            f"graphs, {report['waits']:.2f} waits of the host, {report['operations']:.0f} operations",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
