"""The reward-KL frontier of the sample model: `python -m tests.benchmarks.frontier --workspace W`.

Figure 2 of the DPO paper (arXiv 2305.18290) in small: DPO, PPO and GRPO over the same tuned model, each by its sample
recipe at three weights of the KL and three seeds; the gold rule's score of the answers to the held-out prompts against
the sampled KL from the tuned model. Every point is a run of the workspace and names it. What is there is not made
again, so the whole may be stopped and started. The rows go to `--table`, a CSV of which `--draw` makes plot and table.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.frontier_plot import draw
from tests.benchmarks.gold import scored, totals
from workbench.comparison import cluster_of
from workbench.demo_stations import (
    MAX_NEW_TOKENS,
    PREFERENCES,
    SAMPLING_SEED,
    Stage,
    judge_pairs,
    read_data,
    sample_request,
)
from workbench.generation import Sampling
from workbench.model_names import checkpoint_model
from workbench.pair_generation import Answered, ask_models
from workbench.prompt_source import find_prompts
from workbench.run_launch import LaunchRequest, create_run, plan_run, start_run
from workbench.run_list import ALIVE, Run, all_runs, find_run, summarise
from workbench.run_watch import KL, KL_ERROR, series_of
from workbench.statistics import Estimate, mean_estimate, paired_difference
from workbench.workspace import Workspace, init, open_workspace

SETTINGS: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("dpo", "dpo.beta", (0.3, 0.1, 0.03)),
    ("ppo", "ppo.kl_coef", (0.2, 0.05, 0.0125)),
    ("grpo", "grpo.kl_coef", (0.2, 0.05, 0.0125)),
)
"""(method, the weight of its KL, what it is set to)."""
SEEDS = (1, 2, 3)
COLUMNS = (
    "method", "setting", "value", "seed", "run", "step", "prompts", "gold", "gold_standard_error", "over_sft",
    "over_sft_standard_error", "kl_nats", "kl_standard_error", "tokens", "distinct_words",
)  # fmt: skip
POLL_S = 1.0


def main() -> int:
    """Make the runs that are missing, score their models, write the table and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="made if it is not there")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, one thread each")
    parser.add_argument("--table", type=Path, default=Path("frontier.csv"), help="where the rows go")
    parser.add_argument("--draw", action="store_true", help="only draw the table that is there")
    args = parser.parse_args()
    if args.draw:
        print(draw(read_table(args.table)))
        return 0
    if args.workspace is None:
        parser.error("--workspace is needed, unless --draw")
    workspace = prepared(args.workspace)
    tuned = train(workspace, [named(sample_request("sft", "sample", "demonstrations"), "frontier-sft")], 1)[0]
    model = f"run:{tuned.id}"
    judge = named(sample_request("reward", model, PREFERENCES), "frontier-reward")
    reward = train(workspace, [judge], 1)[0]
    runs = train(workspace, requests(model, f"run:{reward.id}"), args.jobs)
    write_table(args.table, rows_of(workspace, tuned, runs))
    print(draw(read_table(args.table)))
    return 0


def prepared(path: Path) -> Workspace:
    """The workspace with the sample data and its verdicts, made if it is not there."""
    if (path / "workspace.toml").exists():
        return open_workspace(path)
    workspace = init(path)
    stage = Stage(workspace, lambda text: print(text, file=sys.stderr))
    read_data(stage)
    judge_pairs(stage)
    return workspace


def requests(model: str, reward_model: str) -> list[LaunchRequest]:
    """The runs of all points."""
    found = []
    for method, key, values in SETTINGS:
        for value in values:
            for seed in SEEDS:
                data, judge = (PREFERENCES, "") if method == "dpo" else ("prompts", reward_model)
                request = sample_request(method, model, data, reward_model=judge)
                chosen: tuple[str, ...] = (f"{key}={value}", f"train.seed={seed}", "train.threads=1")
                if judge:
                    # A point far out is measured, too: its alarms are told and pause nothing.
                    chosen += ("alarm_kl_runaway.on_alarm=note", "alarm_reward_hacking.on_alarm=note")
                request = replace(request, settings=chosen)
                found.append(named(request, point_name(method, value, seed)))
    return found


def point_name(method: str, value: float, seed: int) -> str:
    """The name of a point's run: frontier-dpo-0p1-s2."""
    return f"frontier-{method}-{value:g}-s{seed}".replace(".", "p")


def named(request: LaunchRequest, name: str) -> LaunchRequest:
    """The request under a name by which it is found again."""
    return replace(request, name=name)


def train(workspace: Workspace, wanted: Sequence[LaunchRequest], jobs: int) -> list[Run]:
    """The done runs of the requests, by name; `jobs` of those that are missing at a time."""
    done = {run.name: run for run in all_runs(workspace) if summarise(run).state == "done"}
    waiting = [request for request in wanted if request.name not in done]
    going: list[Run] = []
    try:
        while waiting or going:
            while waiting and len(going) < jobs:
                run = create_run(plan_run(workspace, waiting.pop(0), quiet=True))
                start_run(run)
                going.append(run)
            time.sleep(POLL_S)
            going = [run for run in going if not settled(run, done)]
    except BaseException:
        stop(going)
        raise
    return [done[request.name] for request in wanted]


def settled(run: Run, done: dict[str, Run]) -> bool:
    """Whether a run has ended; a finished one is put among the done. A failed one ends the whole."""
    found = summarise(run)
    if found.state in ALIVE:
        return False
    if found.state != "done":
        raise SystemExit(f"{run.id} is {found.state}: {found.reason}")
    done[run.name] = run
    print(f"{run.id} done", file=sys.stderr, flush=True)
    return True


def stop(runs: Sequence[Run]) -> None:
    """Ask runs to stop: an interrupted benchmark leaves nothing going."""
    from engine.run.control import request

    for run in runs:
        request(run.folder, "stop")


def rows_of(workspace: Workspace, tuned: Run, runs: Sequence[Run]) -> list[dict[str, str]]:
    """One row a run, the tuned model's first."""
    everyone = [tuned, *runs]
    models = [checkpoint_model(workspace, run.id) for run in everyone]
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS, seed=SAMPLING_SEED, device="cpu")
    answered = ask_models(find_prompts(workspace, "prompts-heldout"), models, sampling, quiet=True)
    clusters = [cluster_of(prompt["tags"], prompt["id"]) for prompt in answered.prompts]
    golds = [totals(scored(answered, place)) for place in range(len(everyone))]
    return [
        {
            **setting_of(run),
            "run": run.id,
            **numbers("gold", mean_estimate(golds[place], clusters)),
            **(numbers("over_sft", paired_difference(golds[0], golds[place], clusters)) if place else {}),
            **kl_of(workspace, run if place else None),
            **lengths(answered, place),
        }
        for place, run in enumerate(everyone)
    ]


def setting_of(run: Run) -> dict[str, str]:
    """What distinguishes a point, read from its run's own settings."""
    config = run.config()
    key = {method: key for method, key, _ in SETTINGS}.get(run.method, "")
    value = ""
    if key:
        section, field = key.split(".")
        value = f"{getattr(getattr(config, section), field):g}"
    return {"method": run.method, "setting": key, "value": value, "seed": str(config.train.seed)}


def numbers(name: str, estimate: Estimate) -> dict[str, str]:
    """An estimate as two columns."""
    return {name: f"{estimate.mean:.4f}", f"{name}_standard_error": f"{estimate.standard_error:.4f}"}


def kl_of(workspace: Workspace, run: Run | None) -> dict[str, str]:
    """The last sampled KL of a run from the tuned model; 0 for that model itself (None)."""
    if run is None:
        return {"step": "0", "kl_nats": "0.0000", "kl_standard_error": "0.0000"}
    series = series_of(find_run(workspace, run.id))
    step, kl = series[KL][-1]
    return {"step": str(step), "kl_nats": f"{kl:.4f}", "kl_standard_error": f"{series[KL_ERROR][-1][1]:.4f}"}


def lengths(answered: Answered, place: int) -> dict[str, str]:
    """Mean tokens of a model's answers, and how many different words they use: both move when a reward is hacked."""
    answers = answered.answers[place]
    words = {word for answer in answers for word in re.findall(r"\S+", answer.completion)}
    mean = sum(answer.tokens for answer in answers) / len(answers)
    return {"prompts": str(len(answers)), "tokens": f"{mean:.2f}", "distinct_words": str(len(words))}


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write the rows as CSV."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of the CSV."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    raise SystemExit(main())
