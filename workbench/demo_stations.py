"""The stations of the demo that make things: datasets, pairs, verdicts, preference sets, runs, answers, an arena.

Owns which sample file plays which part and which recipe trains which run. Reward model and DPO need only the tuned
model, so they train at the same time, each on its share of the cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.comparison import report
from workbench.dataset_store import Dataset, add_dataset, open_dataset
from workbench.errors import WorkbenchError
from workbench.generation import Sampling
from workbench.launch_device import usable_cores
from workbench.model_names import ResolvedModel, checkpoint_model, resolve_model
from workbench.pair_generation import Answered, ask_models, pairs_from_models
from workbench.pair_sets import open_pairs, pairs_from_dataset
from workbench.preferences import freeze
from workbench.prompt_source import find_prompts
from workbench.rule_annotator import judge_by_rule
from workbench.run_launch import LaunchRequest, create_run, plan_run, start_run
from workbench.run_list import ALIVE, Run, RunSummary, summarise
from workbench.workspace import Workspace

DATASETS = {
    # name in the workspace: short name of the sample file
    "demonstrations": "sft",
    "demonstrations-heldout": "heldout_sft",
    "answers": "pairs",
    "preferences-heldout": "heldout_pairs",
    "prompts": "prompts_train",
    "prompts-heldout": "prompts_heldout",
}
NOTE = "synthetic: the sample domain's bicycle workshop"
PAIRS, PREFERENCES, ARENA = "answers", "preferences", "sft-dpo"
MODELS = ("base", "sft", "dpo")
"""Who answers besides what was trained against the reward model."""
MAX_NEW_TOKENS = 64
SAMPLING_SEED = 11
POLL_S, SAY_EVERY_S = 0.2, 10.0


@dataclass
class Stage:
    """Where the demo plays: the workspace and the runs so far."""

    workspace: Workspace
    say: Callable[[str], None]
    runs: dict[str, Run] = field(default_factory=dict)
    """By method: sft, reward, dpo, and those of `rlhf`."""
    rlhf: tuple[str, ...] = ("ppo",)
    """Methods that train against the reward model, of ppo, grpo and rloo."""

    @property
    def models(self) -> tuple[str, ...]:
        """All that answer the held-out prompts, in the order of the report."""
        return (*MODELS, *self.rlhf)

    def dataset(self, name: str) -> Dataset:
        """A dataset of the demo."""
        return open_dataset(self.workspace, name)

    def model(self, name: str) -> ResolvedModel:
        """base, or the checkpoint of a run."""
        if name == "base":
            return resolve_model(self.workspace, "sample")
        return checkpoint_model(self.workspace, self.runs[name].id)

    def stop_runs(self) -> None:
        """Ask every run that still goes on to stop: an interrupted demo leaves nothing running."""
        from engine.run.control import request

        for run in self.runs.values():
            if run.state().state in ALIVE:
                request(run.folder, "stop")


def read_data(stage: Stage) -> dict[str, Any]:
    """Add the sample files as datasets; rows by name."""
    from sample_data import files

    paths = files()
    rows = {}
    for name, short in DATASETS.items():
        dataset = add_dataset(stage.workspace, paths[short], name, note=NOTE, origin=f"sample_data/{paths[short].name}")
        rows[name] = dataset.info.rows
        stage.say(f"  {name}: {dataset.info.rows:,} rows, {dataset.shape}")
    return rows


def judge_pairs(stage: Stage) -> dict[str, Any]:
    """Make pairs, let the rule judge them, freeze the verdicts."""
    pairs = pairs_from_dataset(stage.workspace, PAIRS, stage.dataset("answers"))
    verdicts = judge_by_rule(pairs)
    frozen = freeze(stage.workspace, PAIRS, PREFERENCES)
    counts = frozen.info.counts
    stage.say(
        f"  {verdicts.judged:,} pairs judged; {counts['train']:,} preferences to train on, {counts['eval']:,} held out"
    )
    return {
        "pairs": pairs.info.rows,
        "verdicts": verdicts.verdicts,
        "verdicts_from": "the sample rule (synthetic)",
        "train": counts["train"],
        "held_out": counts["eval"],
    }


def tune(stage: Stage) -> None:
    """SFT of the sample model on the demonstrations."""
    _train(stage, [sample_request("sft", "sample", "demonstrations")])


def train_on_preferences(stage: Stage) -> None:
    """Reward model and DPO from the tuned model, at the same time."""
    tuned = f"run:{stage.runs['sft'].id}"
    threads = max(1, usable_cores() // 2)
    requests = [sample_request(method, tuned, PREFERENCES, threads=threads) for method in ("reward", "dpo")]
    _train(stage, requests)


def train_on_rollouts(stage: Stage, method: str) -> None:
    """PPO, GRPO or RLOO from the tuned model against the reward model."""
    tuned, judge = (f"run:{stage.runs[name].id}" for name in ("sft", "reward"))
    _train(stage, [sample_request(method, tuned, "prompts", reward_model=judge)])


def answer_prompts(stage: Stage) -> Answered:
    """Every model answers every held-out prompt once, at temperature 1, in one process."""
    models = [stage.model(name) for name in stage.models]
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS, seed=SAMPLING_SEED, device=_device(stage))
    return ask_models(find_prompts(stage.workspace, "prompts-heldout"), models, sampling, quiet=True)


def compare(stage: Stage, answered: Answered) -> dict[str, Any]:
    """An arena of the answers of SFT and DPO, judged by the rule: the win rate of DPO over SFT."""
    chosen = [MODELS.index("dpo"), MODELS.index("sft")]
    two = Answered(
        answered.prompts,
        [answered.models[i] for i in chosen],
        [answered.answers[i] for i in chosen],
        answered.sampling,
        answered.source,
    )
    pairs_from_models(stage.workspace, ARENA, two, kind="arena", note=NOTE)
    arena = open_pairs(stage.workspace, ARENA, "arena")
    judge_by_rule(arena)
    return report(arena)


def sample_request(method: str, model: str, data: str, *, reward_model: str = "", threads: int = 0) -> LaunchRequest:
    """A run of the demo, by the sample recipe of its method."""
    from sample_data import ROOT

    return LaunchRequest(
        method=method,
        model=model,
        data=(data,),
        reward_models=(reward_model,) if reward_model else (),
        recipe=ROOT / "recipes" / f"{method}.toml",
        settings=(f"train.threads={threads}",) if threads else (),
        name="demo",
    )


def _train(stage: Stage, requests: Sequence[LaunchRequest]) -> None:
    """Start the runs at the same time and wait for all of them."""
    started = []
    for request in requests:
        run = create_run(plan_run(stage.workspace, request, quiet=True))
        stage.runs[request.method] = run
        start_run(run)
        started.append(run)
    said = time.monotonic()
    while True:
        summaries = [summarise(run) for run in started]
        alive = [summary for summary in summaries if summary.state in ALIVE]
        failed = [summary for summary in summaries if summary.state not in (*ALIVE, "done")]
        if failed:
            raise WorkbenchError(_failure(stage, failed[0]))
        if not alive:
            return
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            stage.say("  " + ", ".join(_progress(summary) for summary in alive))
        time.sleep(POLL_S)


def _progress(summary: RunSummary) -> str:
    at = f"step {summary.step} of {summary.total_steps}" if summary.total_steps else summary.state
    loss = summary.last.get("loss")
    return f"{summary.method} {at}" + (f", loss {loss:.3f}" if loss is not None else "")


def _failure(stage: Stage, summary: RunSummary) -> str:
    why = f": {summary.reason}" if summary.reason else ""
    where = f"workbench --workspace {stage.workspace.root} runs logs {summary.id}"
    return f"the {summary.method} run of the demo is {summary.state}{why}. See: {where}"


def _device(stage: Stage) -> str:
    """Where the demo's runs train, so that its answers are given there, too."""
    return stage.runs["sft"].config().train.device
