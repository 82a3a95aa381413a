"""Peak memory of a PPO step: four roles on one frozen base, beside four models that each hold a base of their own.

    python -m tests.benchmarks.rlhf_memory                         the sample model
    python -m tests.benchmarks.rlhf_memory --model FOLDER          another one, for example SmolLM2-135M

Both sides do one step in a process of their own, in turns, and the peak is the process's resident memory less what it
was once everything was imported. Ours is the engine's own worker on a run folder: metrics, samples and the checkpoint
at the end belong to it. Beside it stand, in one process, a policy and a value model with LoRA by peft, a frozen
reference and a frozen reward model, each loaded by transformers: the same prompts, LoRA, precision, number of updates
and tokens a micro-batch, no activation checkpointing, logits at completion tokens only, one model's activations at a
time. Each side samples its own rollouts. Nothing is asserted: what is measured is printed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.training import ROOT, run_child

SIDES = ("one base", "four models")
RANK, ALPHA, LEARNING_RATE = 16, 32, 1e-4
KL_COEF, GAMMA, LAM, CLIP = 0.05, 1.0, 0.95, 0.2


@dataclass(frozen=True)
class Step:
    """What both sides do."""

    model: str
    precision: str
    rollouts: int
    new_tokens: int
    """At most, of each."""
    budget: int
    """Tokens of a micro-batch."""
    minibatches: int = 2


def main(argv: list[str] | None = None) -> int:
    """Measure both sides in turns and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rlhf_memory", description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=ROOT / "sample_data" / "model")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--budget", type=int, default=1024)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child is not None:
        print(json.dumps(_child(json.loads(args.child))))
        return 0
    step = Step(str(args.model.resolve()), args.precision, args.rollouts, args.new_tokens, args.budget)
    with tempfile.TemporaryDirectory() as scratch:
        report = measure(step, args.times, Path(scratch))
    if args.json:
        print(json.dumps(report))
        return 0
    print(f"{args.model.name}, {step.precision}: weights of one base {report['base_mb']:,.0f} MB")
    for side in SIDES:
        found = report[side]
        each = ", ".join(f"{mb:,.0f}" for mb in found["each_mb"])
        print(f"  {side:12} {found['median_mb']:8,.0f} MB above the imports ({each})")
        print(f"               {found['tokens']:.1f} tokens a rollout")
    print(f"  four models by one base: {report['ratio']:.2f}")
    return 0


def measure(step: Step, times: int, scratch: Path) -> dict[str, Any]:
    """Medians over `times` turns of both sides."""
    run_child({"side": "reward model", "scratch": str(scratch), **asdict(step)}, 1, __spec__.name)
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for turn in range(times):
        for side in SIDES:
            asked = {
                "side": side,
                "scratch": str(scratch / str(turn)),
                "reward": str(scratch / "reward"),
                **asdict(step),
            }
            found[side].append(run_child(asked, 1, __spec__.name))
            print(f"{turn + 1} of {times}, {side}: {found[side][-1]}", file=sys.stderr, flush=True)
    report: dict[str, Any] = {**asdict(step), "base_mb": found[SIDES[1]][0]["base_mb"]}
    for side, turns in found.items():
        each = [turn["peak_mb"] for turn in turns]
        tokens = statistics.mean(turn["tokens"] for turn in turns)
        report[side] = {"median_mb": statistics.median(each), "each_mb": each, "tokens": tokens}
    return {**report, "ratio": report[SIDES[1]]["median_mb"] / report[SIDES[0]]["median_mb"]}


def _child(what: dict[str, Any]) -> dict[str, float]:
    """One side, in a process that has done nothing else."""
    import peft  # noqa: F401 - so that both sides have the same floor
    import torch
    import transformers
    import transformers.models.llama.modeling_llama

    import engine.worker  # noqa: F401

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    side, scratch = what.pop("side"), Path(what.pop("scratch"))
    reward = Path(what.pop("reward", ""))
    step = Step(**what)
    if side == "reward model":
        write_reward_model(step, scratch / "reward")
        return {}
    floor = peak_mb()
    done = one_base(step, scratch, reward) if side == SIDES[0] else four_models(step)
    return {"peak_mb": peak_mb() - floor, "floor_mb": floor, **done}


def peak_mb() -> float:
    """Most that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prompts_of(step: Step) -> list[dict[str, Any]]:
    """The first training prompts of the sample data; any model is asked the same."""
    lines = (ROOT / "sample_data" / "data" / "prompts_train.jsonl").read_text().splitlines()[: step.rollouts]
    rows = [json.loads(line) for line in lines]
    return [{"id": row["id"], "prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows]


def write_reward_model(step: Step, into: Path) -> None:
    """A LoRA reward model over the base as it begins, with a head from a seed."""
    import torch

    from engine.model.adapters import REWARD, build_roles
    from engine.model.heads import ScalarHead
    from engine.model.loading import load_causal_lm
    from engine.model.saving import save_weights

    base = load_causal_lm(Path(step.model), dtype=torch.float32, device="cpu")
    roles = build_roles(base, kind="lora", trained=REWARD, start_adapter=None, rank=RANK, alpha=ALPHA)
    into.mkdir(parents=True)
    save_weights(roles, into, base_folder=Path(step.model), reward_head=ScalarHead(roles.hidden_size, seed=1))


def one_base(step: Step, scratch: Path, reward: Path) -> dict[str, float]:
    """The engine's worker trains a run of one step."""
    from engine.reporting import Reporter
    from engine.run.config_layers import resolve
    from engine.run.config_toml import read_config, to_toml
    from engine.run.folder import RunFolder
    from engine.run.metrics_log import read_metrics
    from engine.run.status import new_status
    from engine.worker import train

    layer: dict[str, dict[str, Any]] = {
        "run": {"id": "ours"},
        "model": {
            "path": step.model, "sha256": "0" * 64, "reward_path": step.model, "reward_adapter": str(reward),
        },
        "data": {"train_rows": step.rollouts, "eval_rows": 0, "max_length": 512},
        "train": {
            "batch_size": step.rollouts, "steps": 1, "threads": 1, "device": "cpu", "precision": step.precision,
            "tokens_per_micro_batch": step.budget, "activation_checkpointing": "off",
        },
        "adapter": {"r": RANK, "alpha": float(ALPHA)},
        "optim": {"lr": LEARNING_RATE},
        "ppo": {
            "max_new_tokens": step.new_tokens, "epochs": 1, "minibatches": step.minibatches, "value_warmup": 0,
            "kl_coef": KL_COEF, "lam": LAM, "clip": CLIP,
        },
        "evaluation": {"at_start": False},
        "probe": {"prompts": 0},
    }  # fmt: skip

    def fill(folder: RunFolder) -> None:
        folder.data.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row) + "\n" for row in prompts_of(step)]
        (folder.data / "train.jsonl").write_text("".join(lines))
        (folder.data / "eval.jsonl").write_text("")

    scratch.mkdir(parents=True)
    folder = RunFolder.create(scratch / "ours", to_toml(resolve("ppo", [("benchmark", layer)]).config), fill)
    reporter = Reporter(folder, new_status(folder, None, phase="preparing"))
    train(read_config(folder.config_path), folder, reporter, lambda: False)
    return {"tokens": read_metrics(folder.metrics_path)[-1].metrics["objective/response_length"]}


def four_models(step: Step) -> dict[str, float]:
    """The same step by four models that share nothing."""
    from tests.benchmarks.rlhf_four_models import FourModels

    models = FourModels(step)
    return {"tokens": models.step(prompts_of(step)), "base_mb": models.base_mb()}


if __name__ == "__main__":
    raise SystemExit(main())
