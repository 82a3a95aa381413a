"""The engine beside TRL in GRPO, RLOO (1.16) and PPO (1.12): seconds a round, generation alone, memory, with ratios.

    python -m tests.benchmarks.rlhf --json                            GRPO and RLOO, 8 rounds each, whole depth
    python -m tests.benchmarks.rlhf --only generation                 what is sampled, and nothing else
    python -m tests.benchmarks.rlhf --prompt-tokens 75 --new-tokens 24        half as many tokens: half the time
    python -m tests.benchmarks.rlhf --method ppo --trl trl112         TRL 1.12 from a folder of its own (rlhf_ppo.py)
    python -m tests.benchmarks.rlhf --method rloo --layers 4 --rounds 4      a quick look at one line

Owns the measuring. A round is completions of some prompts, their scores by a reward model, old and reference log-probs,
and two updates; both sides do that work on the same tokens in turns (`rlhf_sides`; in PPO on rollouts of their own).
Completions all have the full length, which is TRL's best case: where they end at unlike lengths, its finished rows go
on to the last one's end. The first round of both is left out. A ratio is TRL's seconds by the engine's in the same
round, its interval a 95 % bootstrap of the median over rounds. Each line is measured in a process of its own, and so is
the peak memory of each side above what the imports take, several times in turns, of which the median counts. Nothing is
asserted but that the losses agree in fp32. On a busy machine trust the ratios of CPU time. Without --model the weights
are random, of SmolLM2-135M's shape: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.training import _interval, run_child

METHODS = ("grpo", "rloo")
PARTS = ("rounds", "generation", "memory")
TARGETS = {"round": 2.0, "generation": 2.5}
"""The lower end of the interval of the ratio must reach these with SmolLM2 on two cores."""
LOSS_TOLERANCE = 1e-4
"""Of the losses of a round in fp32, absolute: they are about nothing in the first update."""


def main(argv: list[str] | None = None) -> int:
    """Measure what was asked for and print it."""
    wanted = _parser().parse_args(argv)
    if wanted.child is not None:
        print(json.dumps(_child(json.loads(wanted.child))))
        return 0
    from transformers.utils import logging

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        report = _measure(wanted, Path(scratch))
    print(json.dumps(report) if wanted.json else table(report))
    return 0 if all(line["losses_agree"] for line in report["lines"]) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rlhf", description=__doc__.split("\n")[0])
    parser.add_argument("--method", choices=[*METHODS, "ppo", "all"], default="all", help="all: grpo and rloo")
    parser.add_argument("--only", choices=PARTS, help="default: rounds, generation among them, and memory")
    parser.add_argument("--trl", type=Path, metavar="FOLDER", help="ppo: where trl 1.12.0 was installed, see above")
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], default="fp32", help="bf16 where the CPU multiplies it"
    )
    parser.add_argument("--rounds", type=int, default=9, help="of both sides, the first left out (default 9)")
    parser.add_argument("--prompts", type=int, default=2, help="a round (default 2)")
    parser.add_argument("--prompt-tokens", type=int, default=0, help="cut each prompt to so many (default 130 to 170)")
    parser.add_argument("--generations", type=int, default=8, help="completions of each prompt (default 8)")
    parser.add_argument("--new-tokens", type=int, default=48, help="of each completion (default 48)")
    parser.add_argument("--layers", type=int, help="cut the model to so many layers: quick, and not the real figure")
    parser.add_argument("--model", type=Path, help="a folder with the real weights; default: random ones")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory of each side")
    parser.add_argument("--times", type=int, default=3, help="that the memory of each side is measured (default 3)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def _measure(wanted: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from tests.benchmarks.training_data import write_model

    if wanted.method == "ppo" and (wanted.trl is None or wanted.only == "generation"):
        raise SystemExit("--method ppo needs --trl FOLDER, and is not sampled alone: its sampler is the others'")
    folder = write_model(scratch / "model", layers=wanted.layers, source=wanted.model)
    shape = {
        "precision": wanted.precision, "prompts": wanted.prompts, "generations": wanted.generations,
        "new_tokens": wanted.new_tokens, "prompt_tokens": wanted.prompt_tokens,
    }  # fmt: skip
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "threads": wanted.threads,
        "load_before": os.getloadavg()[0],
        "model": "random weights" if wanted.model is None else wanted.model.name,
        "layers": wanted.layers,
        **shape,
        "lines": [],
    }
    if wanted.trl is not None:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(wanted.trl), os.environ.get("PYTHONPATH", "")]))
    for method in METHODS if wanted.method == "all" else [wanted.method]:
        report["lines"].append(_line(wanted, {"method": method, "folder": str(folder), **shape}))
        if wanted.only == "generation":
            break  # both methods sample in the same way
    report["load_after"] = os.getloadavg()[0]
    return report


def _line(wanted: argparse.Namespace, plan: dict[str, Any]) -> dict[str, Any]:
    """What was asked for of one method, each part in processes of its own."""
    plan = {**plan, "rounds": wanted.rounds}
    ask = {"threads": wanted.threads, "module": "tests.benchmarks.rlhf"}
    if wanted.only == "generation":
        return dict(run_child({"what": "generation", **plan}, **ask))
    line: dict[str, Any] = {"method": plan["method"], "stages": {}, "losses_agree": True}
    if wanted.only != "memory":
        line = run_child({"what": "compare", **plan}, **ask)
    if wanted.only == "memory" or not wanted.no_memory:
        each: dict[str, list[float]] = {"trl": [], "engine": []}
        for _ in range(wanted.times):
            for side, found in each.items():
                found.append(run_child({"what": f"memory of {side}", **plan}, **ask))
        line["memory_mb_each"] = each
        line["memory_mb"] = {side: statistics.median(found) for side, found in each.items()}
    return line


def _child(what: dict[str, Any]) -> Any:
    import peft  # noqa: F401 - so that both sides have the same floor
    import transformers
    import trl  # noqa: F401

    from tests.benchmarks.rlhf_sides import Plan
    from tests.benchmarks.training_data import draw_rows

    transformers.logging.set_verbosity_error()
    plan = Plan(
        what["method"], what["precision"], what["prompts"], what["generations"], what["new_tokens"], what["rounds"]
    )
    folder = Path(what["folder"])
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    count = plan.rows if plan.method == "ppo" else plan.prompts
    rows = [row.prompt[: what["prompt_tokens"] or None] for row in draw_rows(count, vocabulary)]
    if what["what"] == "compare":
        return (compare_ppo if plan.method == "ppo" else compare)(plan, folder, rows)
    if what["what"] == "generation":
        return sampling_alone(plan, folder, rows)
    return _memory_mb(plan, folder, rows, what["what"].rpartition(" ")[2])


def sampling_alone(plan: Any, folder: Path, rows: list[list[int]]) -> dict[str, Any]:
    """Completions of the same prompts by both sides in turns, and nothing else."""
    from tests.benchmarks.rlhf_sides import sample_alternately

    with tempfile.TemporaryDirectory() as scratch:
        theirs, ours = sample_alternately(plan, folder, rows, Path(scratch))
    stage = _stage(theirs.seconds["generation"], ours.seconds["generation"])
    return {"method": "sampling", "rounds": plan.rounds - 1, "stages": {"generation": stage}, "losses_agree": True}


def compare_ppo(plan: Any, folder: Path, rows: list[list[int]]) -> dict[str, Any]:
    """Both sides of PPO in turns, each on rollouts of its own."""
    from tests.benchmarks import rlhf_ppo
    from tests.benchmarks.rlhf_sides import reward_folder

    with tempfile.TemporaryDirectory() as scratch:
        engine = rlhf_ppo.engine_side(plan, folder, reward_folder(plan, folder, Path(scratch) / "reward"), rows)
        trl = rlhf_ppo.trl_side(plan, folder, rows, Path(scratch) / "trl")
        rlhf_ppo.train_alternately(trl, engine, plan)
    return {
        "method": plan.method,
        "rounds": plan.rounds - 1,
        "stages": _stages(trl.clock.seconds, engine.clock.seconds),
        "losses_agree": all(map(math.isfinite, engine.losses)),
    }


def compare(plan: Any, folder: Path, rows: list[list[int]]) -> dict[str, Any]:
    """Both sides in turns over a whole TRL training."""
    from tests.benchmarks.rlhf_sides import (
        answered_by_trl,
        begin_alike,
        engine_side,
        reward_folder,
        train_alternately,
        trl_side,
    )

    losses: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        engine = engine_side(plan, folder, reward_folder(plan, folder, Path(scratch) / "reward"), rows)
        trl = trl_side(plan, folder, rows, Path(scratch) / "trl")
        begin_alike(engine, trl)

        def after_round(prompts: list[int], completions: list[list[int]], theirs: list[float]) -> None:
            losses.append(statistics.fmean(theirs))
            engine.round(prompts[:: plan.generations], completions)

        with answered_by_trl(engine):
            train_alternately(trl, after_round)
    difference = max(abs(a - b) for a, b in zip(engine.losses, losses, strict=True))
    return {
        "method": plan.method,
        "rounds": plan.rounds - 1,
        "stages": _stages(trl.clock.seconds, engine.clock.seconds),
        "losses": {"engine": engine.losses, "trl": losses},
        "largest_loss_difference": difference,
        "losses_agree": plan.precision != "fp32" or difference <= LOSS_TOLERANCE,
    }


def _stages(
    theirs: dict[str, list[tuple[float, float]]], ours: dict[str, list[tuple[float, float]]]
) -> dict[str, dict[str, Any]]:
    return {stage: _stage(stages(theirs)[stage], stages(ours)[stage]) for stage in ("round", "generation", "the rest")}


def stages(seconds: dict[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """With what a round takes beside its generation."""
    rest = [
        (whole[0] - part[0], whole[1] - part[1])
        for whole, part in zip(seconds["round"], seconds["generation"], strict=True)
    ]
    return {**seconds, "the rest": rest}


def _stage(theirs: list[tuple[float, float]], ours: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians, and ratios with their intervals, of wall and CPU time; the first round is left out."""
    out: dict[str, Any] = {}
    for name, clock in (("", 0), ("cpu_", 1)):
        trl, engine = [s[clock] for s in theirs[1:]], [s[clock] for s in ours[1:]]
        out[f"{name}trl_s"], out[f"{name}engine_s"] = statistics.median(trl), statistics.median(engine)
        out[f"{name}ratio"] = _interval([b / a for a, b in zip(engine, trl, strict=True)])
    return out


def _memory_mb(plan: Any, folder: Path, rows: list[list[int]], side: str) -> float:
    """Peak resident memory of one side alone above that of the imports, over two rounds."""
    from dataclasses import replace

    from tests.benchmarks import rlhf_ppo, rlhf_sides
    from tests.benchmarks.training_data import FIRST_ID

    floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = replace(plan, rounds=2)
    sides: Any = rlhf_ppo if plan.method == "ppo" else rlhf_sides
    with tempfile.TemporaryDirectory() as scratch:
        if side == "trl":
            sides.trl_side(plan, folder, rows, Path(scratch)).trainer.train()
        else:
            # The engine's own draws; which they are changes no memory.
            reward = rlhf_sides.reward_folder(plan, folder, Path(scratch))
            engine = sides.engine_side(plan, folder, reward, rows)
            for _ in range(plan.rounds):
                engine.round(list(range(len(rows))), [[FIRST_ID] * plan.new_tokens] * plan.rows)
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - floor) / 1024


def table(report: dict[str, Any]) -> str:
    """The report as a person reads it."""
    depth = f", {report['layers']} layers" if report["layers"] else ""
    lines = [
        f"{report['date']}, {report['threads']} threads, load {report['load_before']:.1f} to "
        f"{report['load_after']:.1f}, {report['model']}{depth}, {report['precision']}, {report['prompts']} prompts "
        f"of {report['prompt_tokens'] or '130 to 170'} tokens x {report['generations']} completions x "
        f"{report['new_tokens']} tokens",
        "                        TRL s  engine s   ratio (95 %)          CPU ratio (95 %)",
    ]
    for line in report["lines"]:
        for stage, found in line["stages"].items():
            goal = f"   goal {TARGETS[stage]}" if stage in TARGETS else ""
            lines.append(
                f"{line['method'] + ' ' + stage:<20}{found['trl_s']:>9.2f}{found['engine_s']:>10.2f}   "
                f"{_ratio(found['ratio'])}   {_ratio(found['cpu_ratio'])}{goal}"
            )
        memory = line.get("memory_mb")
        if memory:
            lines.append(
                f"{line['method']} peak memory above the imports: {memory['engine']:,.0f} MB, TRL {memory['trl']:,.0f}"
            )
        if "largest_loss_difference" in line:
            lines.append(f"{line['method']} losses within {line['largest_loss_difference']:.0e}")
    return "\n".join(lines)


def _ratio(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


if __name__ == "__main__":
    sys.exit(main())
