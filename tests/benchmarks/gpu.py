"""The engine on one GPU: tokens a second, share of the card's arithmetic, memory, launches, and TRL beside it.

    python -m tests.benchmarks.gpu                                 SFT, DPO and reward with LoRA, Llama-3.2-1B's shape
    python -m tests.benchmarks.gpu --shape qwen3-1.7b --method sft --kind full
    python -m tests.benchmarks.gpu --device cpu --smoke            every line of it, on a model of two small layers

Self-contained: random weights of the architectures below, random token ids, nothing downloaded. Each line is measured
in processes of its own: the engine alone (seconds, peak memory beside `engine.model.memory_estimate`, and one more step
under the profiler), then TRL in turns with the engine on the same batches where it is installed, as
`tests.benchmarks.training` does. The engine alone runs as runs do, deterministic kernels included, unless
--not-deterministic; beside TRL both run as TRL does. MFU is the arithmetic of `engine.model.arithmetic` by median
seconds, over the best bf16 product of two large matrices in the same call and over the card's data sheet. The goal is
50 % for LoRA SFT of a model of the 1B class.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.training import ChildFailed, run_child

SHAPES: dict[str, dict[str, Any]] = {
    "llama-1b": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}, "rms_norm_eps": 1e-5,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}, "rms_norm_eps": 1e-6,
    },
    "qwen3-1.7b": {
        "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}, "rms_norm_eps": 1e-6,
    },
    "smoke": {
        "model_type": "qwen3", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "rms_norm_eps": 1e-6,
    },
}  # fmt: skip
"""As the published config.json of each says, with tied embeddings as all of them have."""
METHODS = ("sft", "reward", "dpo")
EPOCHS = 3
"""Over which DPO's one reference pass is spread."""
GOAL_MFU = 0.5


def main(argv: list[str] | None = None) -> int:
    """Measure what was asked for and print it."""
    wanted = _parser().parse_args(argv)
    if wanted.child is not None:
        print(json.dumps(_child(json.loads(wanted.child))))
        return 0
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # TRL would spread a batch over all that it sees
    if wanted.smoke:
        wanted.shape, wanted.steps, wanted.tokens = "smoke", 3, 1024
    with tempfile.TemporaryDirectory() as scratch:
        report = _measure(wanted, Path(scratch))
    print(json.dumps(report) if wanted.json else _table(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=list(SHAPES), default="llama-1b")
    parser.add_argument("--method", choices=[*METHODS, "all"], default="all")
    parser.add_argument("--kind", choices=["lora", "full"], default="lora", help="full: without TRL beside it")
    parser.add_argument("--steps", type=int, default=9, help="the first is left out (default 9)")
    parser.add_argument("--tokens", type=int, default=16384, help="a step, all in one micro-batch (default 16384)")
    parser.add_argument("--stretch", type=int, default=1, help="rows so many times as long as those of the CPU's table")
    parser.add_argument("--checkpointing", action="store_true", help="work activations again in the backward pass")
    parser.add_argument("--not-deterministic", action="store_true")
    parser.add_argument("--no-trl", action="store_true")
    parser.add_argument("--tuned", action="store_true", help="TRL padding-free (sft), reference precomputed (dpo)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--threads", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--smoke", action="store_true", help="a tiny model: that all of it runs, and no figure")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def _measure(wanted: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    plan = {
        "folder": str(scratch / "model"), "shape": wanted.shape, "kind": wanted.kind, "steps": wanted.steps,
        "tokens": wanted.tokens, "stretch": wanted.stretch, "checkpointing": wanted.checkpointing,
        "deterministic": not wanted.not_deterministic, "tuned": wanted.tuned, "device": wanted.device,
    }  # fmt: skip
    ask = {"module": "tests.benchmarks.gpu", "threads": wanted.threads}
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        **{key: value for key, value in plan.items() if key != "folder"},
        **run_child({"what": "card", **plan}, **ask),
        "lines": [],
    }
    beside_trl = wanted.kind == "lora" and not wanted.no_trl and importlib.util.find_spec("trl") is not None
    for method in METHODS if wanted.method == "all" else [wanted.method]:
        line = {"method": method}
        for what in ["engine"] + ["trl"] * beside_trl:
            try:
                line |= run_child({"what": what, "method": method, **plan}, **ask)
            except ChildFailed as failure:  # out of memory on one side is a finding about that side
                line[f"{what}_failed"] = str(failure).strip().splitlines()[-1]
        report["lines"].append(_with_shares(line, report))
    return report


def _with_shares(line: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """The line with its MFU over both peaks."""
    if "step_s" in line:
        tflops = line["flops"] / line["step_s"] / 1e12
        line["mfu"] = tflops / report["matmul_tflops"]
        line["mfu_of_sheet"] = tflops / report["sheet_tflops"] if report["sheet_tflops"] else None
    return line


def _child(what: dict[str, Any]) -> Any:
    """One measurement, in this process."""
    import torch

    device = torch.device(what["device"])
    if what["what"] == "card":
        return _card(what, device)
    import transformers

    from tests.benchmarks.training_data import draw_rows, mean_tokens
    from tests.benchmarks.training_sides import Plan

    transformers.logging.set_verbosity_error()
    method = what["method"]
    batch_size = max(1, int(what["tokens"] / (what["stretch"] * mean_tokens(pair=method != "sft"))))
    rows = draw_rows(
        max(1, round(what["steps"] / EPOCHS)) * batch_size, SHAPES[what["shape"]]["vocab_size"],
        stretch=what["stretch"],
    )  # fmt: skip
    # Room for the longest draw: a step is one micro-batch, as it is one batch of TRL.
    budget = round(what["tokens"] * 1.3)
    plan = Plan(method, "bf16", EPOCHS, batch_size, what["tuned"], what["kind"], budget, device, what["checkpointing"])
    if what["what"] == "trl":
        from tests.benchmarks.training import compare

        found = compare(plan, Path(what["folder"]), rows)
        return {f"beside_{key}": found[key] for key in ("engine_s", "trl_s", "ratio", "largest_loss_difference")}
    return _engine(plan, Path(what["folder"]), rows, deterministic=what["deterministic"])


def _card(what: dict[str, Any], device: Any) -> dict[str, Any]:
    """What is measured on; and the model is written."""
    import torch

    from engine.model.arithmetic import sheet_tflops
    from tests.benchmarks.gpu_figures import matmul_tflops
    from tests.benchmarks.training_data import write_model

    on_gpu = device.type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device; --device cpu --smoke runs all of this on a tiny model")
    write_model(Path(what["folder"]), layers=None, source=None, device=device, **SHAPES[what["shape"]])
    card = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    return {
        "card": card,
        "torch": torch.__version__,
        "matmul_tflops": matmul_tflops(device, 8192 if on_gpu else 512),
        "sheet_tflops": sheet_tflops(card),
    }


def _engine(plan: Any, folder: Path, rows: Any, *, deterministic: bool) -> dict[str, Any]:
    """The engine alone: all its steps, what they took, and one more under the profiler."""
    from dataclasses import replace

    from engine.data.token_facts import token_facts
    from engine.model.memory_estimate import reckon
    from engine.model.model_sizes import read_model_sizes
    from engine.training_loop import peak_memory_bytes
    from engine.worker import set_up_device
    from tests.benchmarks.gpu_figures import arithmetic_of, counted
    from tests.benchmarks.training_sides import clocks, engine_config, engine_examples, engine_side, since

    config = engine_config(plan)
    set_up_device(replace(config, train=replace(config.train, device=plan.device.type, deterministic=deterministic)))
    sizes, facts = read_model_sizes(folder), token_facts(engine_examples(plan, rows))
    assert sizes is not None
    assert facts is not None
    estimate = reckon(
        config, sizes, facts, checkpointing=plan.checkpointing, cuda=plan.device.type == "cuda"
    ).comparable
    side = engine_side(plan, folder, rows)
    batches = [list(range(i, i + plan.batch_size)) for i in range(0, len(rows), plan.batch_size)] * plan.epochs
    side.order.steps = [*batches, batches[0]]
    seconds = []
    for _ in batches:
        began = clocks()
        side.step()
        seconds.append(since(began)[0] + side.reference_s[0] / len(batches))
    peak = peak_memory_bytes()
    whole = arithmetic_of(plan.method, rows)
    flops = whole.training(sizes, full=plan.kind == "full")
    flops += whole.forward(sizes) / plan.epochs if plan.method == "dpo" else 0.0
    steps, step_s = len(rows) // plan.batch_size, statistics.median(seconds[1:])
    return {
        "step_s": step_s,
        "tokens_a_step": whole.tokens / steps,
        "tokens_per_second": whole.tokens / steps / step_s,
        "scored_rows_a_step": whole.scored / steps,
        "flops": flops / steps,
        "peak_bytes": peak,
        "estimate_bytes": estimate,
        **counted(side.step, plan.device),
        "loss": side.losses[-1],
    }


def _table(report: dict[str, Any]) -> str:
    sheet = f"{report['sheet_tflops']:.0f}" if report["sheet_tflops"] else "not known here"
    kernels = "deterministic kernels" if report["deterministic"] else "any kernels"
    lines = [
        f"{report['date']}, {report['card']}, torch {report['torch']}, {report['shape']}, {report['kind']}, bf16, "
        f"room for {report['tokens']:,} tokens a step, {kernels}",
        f"bf16 product of large matrices {report['matmul_tflops']:.4g} TFLOP/s, data sheet {sheet}",
    ]
    for line in report["lines"]:
        lines += ["", f"{line['method']}:", *(f"  {words}" for words in _words(line))]
    return "\n".join(lines)


def _words(line: dict[str, Any]) -> list[str]:
    words = [f"{side} failed: {line[f'{side}_failed']}" for side in ("engine", "trl") if f"{side}_failed" in line]
    if "step_s" in line:
        sheet = f", {line['mfu_of_sheet']:.1%} of the data sheet" if line["mfu_of_sheet"] is not None else ""
        goal = f" (goal {GOAL_MFU:.0%})" if line["method"] == "sft" else ""
        words += [
            f"{line['tokens_per_second']:,.0f} tokens a second, {line['step_s']:.4g} s a step",
            f"MFU {line['mfu']:.1%} of the measured product{sheet}{goal}: {line['flops'] / 1e12:.4g} TFLOP for "
            f"{line['tokens_a_step']:,.0f} tokens, the LM head at {line['scored_rows_a_step']:,.0f} of them",
            f"peak {line['peak_bytes'] / 1e9:.2f} GB, {line['peak_bytes'] / line['estimate_bytes']:.2f}x the estimate",
            f"a step launches {line['launches']:,} kernels for {line['operations']:,} operations, and the host waits "
            f"{line['waits']} times",
        ]
    if "beside_ratio" in line:
        ratio = line["beside_ratio"]
        words.append(
            f"TRL {line['beside_trl_s']:.4g} s a step beside {line['beside_engine_s']:.4g} s: {ratio['median']:.2f} "
            f"({ratio['low']:.2f} to {ratio['high']:.2f}), losses within {line['beside_largest_loss_difference']:.0e}"
        )
    return words


if __name__ == "__main__":
    sys.exit(main())
