"""The engine beside TRL 1.16 on the same batches: seconds a step, their ratio with its interval, losses, memory.

    python -m tests.benchmarks.training --all --json                       the whole table, under 25 minutes
    python -m tests.benchmarks.training --method dpo --layers 4 --steps 4  a quick look at one line of it

Owns the measuring. TRL's trainer runs whole, and after each of its steps the engine trains on the very batch that TRL
took (`training_sides`): same rows, order, LoRA matrices, precision, clipping, AdamW, no activation checkpointing. The
first step of both is left out. A ratio is TRL's seconds by the engine's in the same step; its interval is a 95 %
bootstrap of the median over steps. DPO counts the reference: TRL's as it goes or precomputed, the engine's one pass
over all rows spread over the steps of 3 epochs. Each line is measured in a process of its own, memory in two more, one
a side. Nothing is asserted but that the losses agree in fp32: a busy machine makes every time worse, and wall more so
than CPU time. Without --model the weights are random, of SmolLM2-135M's shape: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {"sft": 1.7, "reward": 1.5, "dpo": 2.3}
"""The lower end of the interval of the ratio must reach these on two cores, against TRL as it comes."""
BATCH = {"sft": 4, "reward": 2, "dpo": 2}
"""Rows a step."""
LOSS_TOLERANCE = 1e-4
"""Relative, in fp32, at every step."""
RESAMPLES = 4000
LONGEST_PEAK_S = 10.0


def main(argv: list[str] | None = None) -> int:
    """Measure what was asked for and print it."""
    arguments = _parser().parse_args(argv)
    if arguments.child is not None:
        print(json.dumps(_child(json.loads(arguments.child))))
        return 0
    from transformers.utils import logging

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        report = _measure(arguments, Path(scratch))
    if arguments.json:
        print(json.dumps(report))
    else:
        _print(report)
    return 0 if all(line["losses_agree"] for line in report["lines"]) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.training", description=__doc__.split("\n")[0])
    parser.add_argument("--method", choices=[*TARGETS, "all"], default="all")
    parser.add_argument("--precision", choices=["bf16", "fp32", "both"], default="both")
    parser.add_argument("--steps", type=int, default=9, help="steps of both sides, the first left out (default 9)")
    parser.add_argument("--layers", type=int, help="cut the model to so many layers: quick, and not the real figure")
    parser.add_argument("--model", type=Path, help="a folder with the real weights; default: random ones")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tuned", action="store_true", help="TRL padding-free (sft), reference precomputed (dpo)")
    parser.add_argument("--memory", action="store_true", help="peak memory of each side, too")
    parser.add_argument("--start", action="store_true", help="process start to first step, too")
    parser.add_argument("--all", action="store_true", help="every line: both precisions, tuned TRL, memory, start")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def _measure(wanted: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from tests.benchmarks.training_data import write_model

    folder = write_model(scratch / "model", layers=wanted.layers, source=wanted.model)
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "threads": wanted.threads,
        "load_before": os.getloadavg()[0],
        "model": "random weights" if wanted.model is None else wanted.model.name,
        "layers": wanted.layers,
        "lines": [],
    }
    both, tuned = wanted.all or wanted.precision == "both", wanted.all or wanted.tuned
    precisions = ["bf16", "fp32"] if both else [wanted.precision]
    methods = list(TARGETS) if wanted.all or wanted.method == "all" else [wanted.method]
    report["peak_gflops"] = run_child({"what": "peak", "precisions": precisions}, wanted.threads)
    for precision in precisions:
        for method in methods:
            plan = {"method": method, "precision": precision, "folder": str(folder), "steps": wanted.steps}
            variants = [False, True] if tuned and method != "reward" and precision == precisions[0] else [False]
            for variant in variants:
                line = run_child({"what": "compare", "tuned": variant, **plan}, wanted.threads)
                line["share_of_peak"] = {
                    side: line["useful_gflop"] / line[side] / report["peak_gflops"][precision]
                    for side in ("trl_s", "engine_s")
                }
                if (wanted.all or wanted.memory) and not variant and precision == precisions[0]:
                    line["memory_mb"] = {
                        side: run_child({"what": f"memory of {side}", "tuned": False, **plan}, wanted.threads)
                        for side in ("trl", "engine")
                    }
                report["lines"].append(line)
                _progress(line)
    if wanted.all or wanted.start:
        from tests.benchmarks.training_start import start_up

        report["start_up"] = start_up(scratch)
    report["load_after"] = os.getloadavg()[0]
    return report


class ChildFailed(RuntimeError):
    """A measurement in a process of its own that did not end well; the message is the end of what it said."""


def run_child(what: dict[str, Any], threads: int, module: str = "tests.benchmarks.training") -> Any:
    """What `module --child` says of `what`. Raises ChildFailed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    command = [sys.executable, "-W", "ignore", "-m", module, "--child", json.dumps(what)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChildFailed(f"{what}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _child(what: dict[str, Any]) -> Any:
    import torch

    if what["what"] == "peak":
        # Only those wanted: where the CPU has no bf16 instructions, one bf16 product takes minutes.
        dtypes = {"bf16": torch.bfloat16, "fp32": torch.float32}
        return {precision: _peak_gflops(dtypes[precision]) for precision in what["precisions"]}
    import peft  # noqa: F401 - so that both sides have the same floor
    import transformers
    import trl  # noqa: F401

    from tests.benchmarks.training_data import draw_rows
    from tests.benchmarks.training_sides import Plan

    transformers.logging.set_verbosity_error()
    method = what["method"]
    # Three epochs, so that the reference pass is spread over them as in a run.
    per_epoch = max(1, round(what["steps"] / 3))
    plan = Plan(method, what["precision"], 3, BATCH[method], what["tuned"])
    vocabulary = json.loads((Path(what["folder"]) / "config.json").read_text())["vocab_size"]
    rows = draw_rows(per_epoch * plan.batch_size, vocabulary)
    if what["what"] == "compare":
        return compare(plan, Path(what["folder"]), rows)
    return _memory_mb(plan, Path(what["folder"]), rows, what["what"].rpartition(" ")[2])


def compare(plan: Any, folder: Path, rows: Sequence[Any]) -> dict[str, Any]:
    """Both sides in turns over a whole TRL training."""
    from tests.benchmarks.training_sides import begin_alike, clocks, engine_side, since, train_alternately, trl_side

    engine = engine_side(plan, folder, rows)
    with tempfile.TemporaryDirectory() as scratch:
        trl = trl_side(plan, folder, rows, Path(scratch))
    begin_alike(engine, trl)
    times: dict[str, list[tuple[float, float]]] = {"trl": [], "engine": []}
    began = [clocks()]

    def after_step(indices: list[int]) -> None:
        times["trl"].append(since(began[0]))
        engine.order.steps.append(indices)
        began[0] = clocks()
        engine.step()
        times["engine"].append(since(began[0]))
        began[0] = clocks()

    train_alternately(plan, rows, trl, after_step)
    steps = len(engine.losses)
    out: dict[str, Any] = {"method": plan.method, "precision": plan.precision, "tuned": plan.tuned, "steps": steps - 1}
    for name, index in (("", 0), ("cpu_", 1)):
        ours = [t[index] + engine.reference_s[index] / steps for t in times["engine"]][1:]
        theirs = [t[index] + trl.reference_s[index] / steps for t in times["trl"]][1:]
        out[f"{name}engine_s"], out[f"{name}trl_s"] = statistics.median(ours), statistics.median(theirs)
        out[f"{name}ratio"] = _interval([b / a for a, b in zip(ours, theirs, strict=True)])
    losses = [float(loss) for loss in trl.losses]
    differences = [abs(a - b) / abs(b) for a, b in zip(engine.losses, losses, strict=True)]
    out["largest_loss_difference"] = max(differences)
    out["losses_agree"] = plan.precision != "fp32" or max(differences) <= LOSS_TOLERANCE
    out["losses"] = {"engine": engine.losses, "trl": losses}
    out["useful_gflop"] = _useful_gflop(plan, engine.roles.model, rows)
    return out


def _interval(ratios: Sequence[float]) -> dict[str, float]:
    """The median and the 95 % bootstrap interval of the median."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    low, high = medians[round(0.025 * RESAMPLES)], medians[round(0.975 * RESAMPLES) - 1]
    return {"median": statistics.median(ratios), "low": low, "high": high}


def _useful_gflop(plan: Any, model: Any, rows: Sequence[Any]) -> float:
    """The least arithmetic of a mean step: 4 per weight and token (frozen weights need no gradient), the prompt of a
    pair once, the head at scored tokens; attention and adapters left out. DPO adds 2 once for its reference."""
    config = model.config
    head = config.vocab_size * config.hidden_size
    body = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "lora_" not in n) - head
    answers = [len(r.chosen) + (len(r.rejected) if plan.method != "sft" else 0) for r in rows]
    tokens = sum(len(r.prompt) + a for r, a in zip(rows, answers, strict=True)) / len(rows)
    scored = sum(answers) / len(rows) if plan.method != "reward" else 0.0
    passes = 4 + (2 / plan.epochs if plan.method == "dpo" else 0)
    return float(passes * (body * tokens + head * scored) * plan.batch_size / 1e9)


def _memory_mb(plan: Any, folder: Path, rows: Sequence[Any], side: str) -> float:
    """Peak resident memory of one side alone above that of the imports, over the first steps."""
    from tests.benchmarks.training_sides import engine_side, train_alternately, trl_side

    floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    few = rows[: 2 * plan.batch_size]
    if side == "engine":
        ours = engine_side(plan, folder, few)
        for start in (0, plan.batch_size):
            ours.order.steps.append(list(range(start, start + plan.batch_size)))
            ours.step()
    else:
        with tempfile.TemporaryDirectory() as scratch:
            train_alternately(plan, few, trl_side(plan, folder, few, Path(scratch)), lambda indices: None)
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - floor) / 1024


def _peak_gflops(dtype: Any) -> float:
    """The best of a few large matrix products."""
    import torch

    a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    best, spent = 0.0, 0.0
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        took = time.perf_counter() - began
        best, spent = max(best, 2 * 2048**3 / took / 1e9), spent + took
        if spent > LONGEST_PEAK_S:  # a precision that this CPU emulates
            break
    return best


def _progress(line: dict[str, Any]) -> None:
    print(_line(line), file=sys.stderr, flush=True)


def _line(line: dict[str, Any]) -> str:
    ratio, cpu = line["ratio"], line["cpu_ratio"]
    share = line["share_of_peak"]
    name = f"{line['method']} {line['precision']}" + (" TRL tuned" if line["tuned"] else "")
    memory = line.get("memory_mb")
    beside = f"  {memory['engine']:,.0f} / {memory['trl']:,.0f} MB" if memory else ""
    return (
        f"{name:<20}{line['trl_s']:>7.2f}{line['engine_s']:>8.2f} s   "
        f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})   CPU {cpu['median']:.2f} "
        f"({cpu['low']:.2f} to {cpu['high']:.2f})   {share['engine_s']:>4.0%} / {share['trl_s']:>3.0%}   "
        f"{line['largest_loss_difference']:.0e}{beside}"
    )


def _print(report: dict[str, Any]) -> None:
    peak = ", ".join(f"{precision} {gflops:.0f}" for precision, gflops in report["peak_gflops"].items())
    print(
        f"{report['date']}, {report['threads']} threads, load {report['load_before']:.1f} to "
        f"{report['load_after']:.1f}, {report['model']}, matmul peak {peak} GFLOP/s"
    )
    print("                   TRL s  engine s   ratio (95 %)   CPU ratio (95 %)   share of peak   loss difference")
    for line in report["lines"]:
        print(_line(line))
    if "start_up" in report:
        start = report["start_up"]
        print(f"process start to first step {start['first_step_s']:.2f} s, imports alone {start['imports_s']:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
