"""What a run would need of memory, disk and time, and how right such estimates were on this machine.

Owns the comparison with runs that ended: their measured peak by the estimate they began with, and their speed. The
memory is the engine's own reckoning (`engine.model.memory_estimate`); time is that of the newest run like this one, or
a guess (`workbench.time_guess`). Everything is called an estimate. No weight is read.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from engine.model.memory_estimate import (
    CheckpointingChoice,
    MemoryEstimate,
    adapter_parameters,
    choose_checkpointing,
    largest_micro_batch,
    reckon,
)
from engine.model.model_sizes import ModelSizes, read_model_sizes
from engine.run.config import RunConfig
from engine.run.method_names import ON_ROLLOUTS
from engine.run.status import this_host
from workbench.run_list import Run, all_runs
from workbench.time_guess import StepTime, guess_step

if TYPE_CHECKING:
    from engine.data.token_facts import TokenFacts
    from workbench.run_launch import Plan

FP32 = 4
MOMENTS = 2
RUNS_COMPARED = 20
"""The newest ones."""


@dataclass(frozen=True)
class Cost:
    """Estimates."""

    checkpointing: CheckpointingChoice
    """Whether the run will work its activations again; `memory` is that of the run as it will be."""
    memory: MemoryEstimate
    checkpoint: int
    """Bytes of one, with the optimizer's state."""
    checkpoints_kept: int
    free: int
    """Bytes of memory that are free now; 0 where this machine does not say."""
    micro_batch_set: int
    """train.tokens_per_micro_batch as it is set."""
    micro_batch: int
    """The greatest train.tokens_per_micro_batch that fits into what is free; 0 where none does or nothing is known."""
    step: StepTime
    ratio: float
    """Measured peak by estimate, the median over runs of this machine; 0 where there are none."""
    runs_compared: int

    @property
    def disk(self) -> int:
        """All checkpoints that are kept at once, and the one that is being written."""
        return self.checkpoint * (self.checkpoints_kept + 1)

    def facts(self) -> dict[str, Any]:
        """For a program."""
        memory = self.memory
        return {
            "memory_bytes_estimate": memory.total,
            "activation_checkpointing": self.checkpointing.on,
            "activation_checkpointing_why": self.checkpointing.why,
            "weights_bytes_estimate": memory.weights,
            "optimizer_bytes_estimate": memory.adapter + memory.gradients + memory.optimizer,
            "activation_bytes_estimate": memory.activations - memory.overlap,
            "logit_bytes_estimate": memory.logits,
            "reference_bytes_estimate": memory.reference,
            "rollout_bytes_estimate": memory.rollouts,
            "floor_bytes_estimate": memory.floor,
            "free_memory_bytes": self.free,
            "tokens_per_micro_batch": self.micro_batch_set,
            "tokens_per_micro_batch_that_fit": self.micro_batch,
            "memory_measured_by_estimate": self.ratio or None,
            "runs_compared": self.runs_compared,
            "seconds_a_step_estimate": self.step.seconds,
            "seconds_a_step_range": [self.step.low, self.step.high],
            "seconds_measured": self.step.measured,
            "timed_by": self.step.why,
            "checkpoint_bytes_estimate": self.checkpoint,
            "checkpoints_kept_estimate": self.checkpoints_kept,
            "disk_bytes_estimate": self.disk,
        }


def cost_of(plan: Plan, lengths: TokenFacts | None, checkpoints: int) -> Cost | None:
    """The estimate; None where the model's files or the data do not say enough. `checkpoints`: how many are written."""
    config = plan.resolved.config
    sizes = read_model_sizes(plan.model.path)
    if sizes is None or lengths is None:
        return None
    cuda = config.train.device == "cuda"
    free = free_memory(cuda=cuda)
    shared = free if cuda else free // config.train.processes
    choice = choose_checkpointing(config, sizes, lengths, shared, cuda=cuda)
    trained = sizes.parameters if config.adapter.kind == "full" else adapter_parameters(config, sizes)
    ended = [run for run in all_runs(plan.workspace) if (status := run.status()) and status.phase == "done"]
    ratios = [ratio for run in ended[-RUNS_COMPARED:] if (ratio := measured_by_estimate(run))]
    return Cost(
        checkpointing=choice,
        memory=reckon(config, sizes, lengths, checkpointing=choice.on, cuda=cuda),
        checkpoint=trained * FP32 * (1 + MOMENTS),
        checkpoints_kept=min(max(1, checkpoints), config.checkpoint.keep + (1 if config.checkpoint.metric else 0)),
        free=free,
        micro_batch_set=config.train.tokens_per_micro_batch,
        micro_batch=largest_micro_batch(config, sizes, lengths, free, checkpointing=choice.on, cuda=cuda),
        step=step_time(config, sizes, lengths, ended, checkpointing=choice.on),
        ratio=statistics.median(ratios) if ratios else 0.0,
        runs_compared=len(ratios),
    )


def measured_by_estimate(run: Run) -> float | None:
    """A run's peak memory by the estimate it began with; None where it has not both, or is of another machine."""
    status = run.status()
    peak = status.last.get("peak_memory_bytes") if status and status.host == this_host() else None
    estimate = estimate_of(run)
    return peak / estimate if peak and estimate else None


def estimate_of(run: Run) -> int:
    """The memory that a run was expected to need, in bytes; 0 where it wrote none down."""
    found = [event.get("bytes") for event in run.events() if event.get("kind") == "memory_estimate"]
    return int(found[-1]) if found and isinstance(found[-1], int) else 0


def free_memory(*, cuda: bool) -> int:
    """Bytes that are free: on the emptiest GPU, or what the kernel calls available; 0 where that is not known."""
    if cuda:
        from engine.run.gpus import installed_gpus

        return max((gpu.memory_total_mb - gpu.memory_used_mb for gpu in installed_gpus()), default=0) * 2**20
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
    except OSError:
        return 0


def step_time(
    config: RunConfig, sizes: ModelSizes, lengths: TokenFacts, ended: list[Run], *, checkpointing: bool
) -> StepTime:
    """Time of one optimizer step: that of the newest run like this one, by what it had to do for each; else a guess."""
    guess = guess_step(config, sizes, lengths, checkpointing=checkpointing)
    for run in reversed(ended):
        status = run.status()
        last = status.last if status and status.host == this_host() else {}
        rate, took = last.get("tokens_per_second"), last.get("step_time_s")
        if not rate or not _alike(config, run):
            continue
        if config.run.method not in ON_ROLLOUTS:
            seconds = lengths.mean * config.train.batch_size / rate
            return StepTime(seconds, seconds, seconds, True, f"as run {run.id}, {rate:,.0f} tokens a second")
        if took:
            # A step is mostly sampling, scoring and passes over answers: the ratio of two guesses knows how much more.
            its = guess_step(run.config(), sizes, lengths, checkpointing=checkpointing)
            seconds = took * guess.seconds / its.seconds
            return StepTime(seconds, seconds, seconds, True, f"as run {run.id}, {took:,.2g} s a step")
    return guess


def _alike(config: RunConfig, run: Run) -> bool:
    """Whether a run did the same work a token: method, model, adapter, device and precision."""
    try:
        other = run.config()
    except (EngineError, OSError):
        return False  # a torn run.toml names nothing
    mine, its = config.train, other.train
    return (
        (other.run.method, other.model.path, other.adapter.kind)
        == (config.run.method, config.model.path, config.adapter.kind)
        and (its.device, its.precision, its.processes) == (mine.device, mine.precision, mine.processes)
    )  # fmt: skip


def memory_words(facts: Mapping[str, Any]) -> str:
    """The memory of a dry run for a person, with how right such estimates were."""
    from workbench.run_preview import each_process, megabytes

    others = "".join(
        f", {name} {megabytes(facts[f'{part}_bytes_estimate'])}"
        for name, part in (("reference", "reference"), ("rollouts", "rollout"))
        if facts[f"{part}_bytes_estimate"]
    )
    words = (
        f"about {megabytes(facts['memory_bytes_estimate'])}{each_process(facts)} (weights "
        f"{megabytes(facts['weights_bytes_estimate'])}, optimizer {megabytes(facts['optimizer_bytes_estimate'])}, "
        f"activations {megabytes(facts['activation_bytes_estimate'])}, logits "
        f"{megabytes(facts['logit_bytes_estimate'])}{others}, program {megabytes(facts['floor_bytes_estimate'])}; "
        "an estimate)"
    )
    if facts["runs_compared"]:
        runs = f"{facts['runs_compared']} run{'s' if facts['runs_compared'] > 1 else ''}"
        words += f"; this machine: measured {facts['memory_measured_by_estimate']:.2f}x the estimate over {runs}"
    if facts["free_memory_bytes"]:
        words += f"; {megabytes(facts['free_memory_bytes'])} free"
        words += _fit_words(facts)
    return words


def activation_words(facts: Mapping[str, Any]) -> str:
    """Whether the run works its activations twice, and why."""
    kept = "worked again in the backward pass" if facts["activation_checkpointing"] else "kept for the backward pass"
    return f"{kept} ({facts['activation_checkpointing_why']})"


def _fit_words(facts: Mapping[str, Any]) -> str:
    """What to do where it does not fit; else the largest micro-batch that does."""
    fits = facts["tokens_per_micro_batch_that_fit"]
    if facts["memory_bytes_estimate"] <= facts["free_memory_bytes"]:
        if fits <= facts["tokens_per_micro_batch"]:
            return ", enough for a whole step in one micro-batch"
        return f", enough for a train.tokens_per_micro_batch of {fits:,}"
    if fits:
        return f": it does not fit; set train.tokens_per_micro_batch to {fits}, which does not change the result"
    return ": it does not fit. Take a smaller model, bf16, an adapter, or a shorter data.max_length"
