"""The one loop: count tokens, forward, objective, backward, step, emit.

Knows nothing of any method: a method gives updates with exact denominators and the loop turns them into optimizer
steps, metrics, evaluations, probes and checkpoints. A loss or gradient that is not finite is refused before the
optimizer sees it. A stop request is honoured where no step is half done.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.checkpoints import prune, save_checkpoint
from engine.errors import CheckpointError, NumericalError, StopRequested
from engine.methods.method import Meter, Method
from engine.optimizer import Optimizer
from engine.probe import Probe
from engine.reporting import Reporter
from engine.run import control
from engine.run.config import RunConfig
from engine.run.folder import RunFolder

CHECKPOINT_FAILURES_BORNE = 3


@dataclass
class Progress:
    """What must survive a stop, beside weights and optimizer: all of it goes into trainer/state.json."""

    step: int = 0
    """Optimizer-complete training steps."""
    tokens: int = 0
    """Tokens trained on so far, prompts included."""
    best: dict[str, Any] | None = None
    """{"step", "metric", "value"} of the best evaluation so far."""
    nonfinite_in_a_row: int = 0
    unfinished: dict[str, float] | None = None
    """Metrics of the present step whose evaluation or probe a stop cut short; finished first on a resume."""


class TrainingLoop:
    """Runs a method from `progress.step` to its end, or to a stop request."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        reporter: Reporter,
        method: Method,
        optimizer: Optimizer,
        probe: Probe | None,
        progress: Progress,
        write_weights: Callable[[Path], None],
        stop_wanted: Callable[[], bool],
    ) -> None:
        self._config = config
        self._folder = folder
        self._reporter = reporter
        self._method = method
        self._optimizer = optimizer
        self._probe = probe
        self._progress = progress
        self._write_weights = write_weights
        self._stop_wanted = stop_wanted
        self._checkpoint_failures = 0
        self._saved_step = -1
        total = method.total_steps
        self._evaluate_every = config.evaluation.every or max(1, math.ceil(total / 10))
        self._checkpoint_every = config.checkpoint.every or max(1, math.ceil(total / 10))
        self._probe_every = config.probe.every or max(1, math.ceil(total / 4))

    def check(self) -> None:
        """Raise StopRequested where a stop was asked for."""
        if self._stop_wanted():
            raise StopRequested(f"stop requested at step {self._progress.step}")

    def run(self) -> None:
        """Train to the end. Raises StopRequested after a checkpoint, NumericalError where numbers break down."""
        total = self._method.total_steps
        try:
            if self._progress.step == 0 and self._config.evaluation.at_start:
                self._emit(0, {**self._held_out(0), **self._probed(0)})
            if self._progress.unfinished is not None:
                self._finish_step(self._progress.unfinished)
            while self._progress.step < total:
                self.check()
                self._one_step()
        except StopRequested:
            self._reporter.status(phase="stopping")
            self._checkpoint(must=True)
            raise
        self._checkpoint(must=True)

    def _one_step(self) -> None:
        step = self._progress.step
        started = time.monotonic()
        self._reporter.status(phase="running", step=step, total_steps=self._method.total_steps)
        metrics = self._train(step)
        seconds = time.monotonic() - started
        self._progress.step = step + 1
        self._progress.tokens += int(metrics["num_tokens"])
        metrics["tokens_per_second"] = metrics["num_tokens"] / seconds
        metrics["num_tokens"] = float(self._progress.tokens)
        metrics["step_time_s"] = seconds
        metrics["peak_memory_bytes"] = float(peak_memory_bytes())
        self._finish_step(metrics)

    def _finish_step(self, metrics: dict[str, float]) -> None:
        """Evaluate and probe where due, write the step's line, and only then its checkpoint."""
        done = self._progress.step
        last = done == self._method.total_steps
        self._progress.unfinished = metrics
        measured = dict(metrics)
        if last or done % self._evaluate_every == 0:
            measured.update(self._held_out(done))
        if last or done % self._probe_every == 0:
            measured.update(self._probed(done))
        self._progress.unfinished = None
        self._emit(done, measured)
        best_before = self._progress.best
        improved = self._note_best(done, measured)
        asked = control.pending(self._folder, "checkpoint") is not None
        saved = (improved or asked or done % self._checkpoint_every == 0) and self._checkpoint()
        if improved and saved:
            self._tell_best()
        elif improved:
            # The best is a checkpoint: one that could not be written is none.
            self._progress.best = best_before

    def _train(self, step: int) -> dict[str, float]:
        """All updates of one step."""
        meter = Meter()
        tokens = 0
        for update in self._method.updates(step):
            total = 0.0
            for run in update.micro_batches:
                terms = run()
                loss = torch.stack([terms.losses[key] / update.counts[key] for key in terms.losses]).sum()
                loss.backward()
                meter.add(terms.metrics)
                total = total + loss.detach()
            tokens += update.tokens
            self._apply(step, total, meter)
        meter.add(self._method.step_metrics())
        return {**meter.read(), "num_tokens": float(tokens)}

    def _apply(self, step: int, loss: torch.Tensor | float, meter: Meter) -> None:
        """One optimizer step, or its refusal where the loss or a gradient is not finite."""
        value = float(loss)
        stepped = self._optimizer.step(step) if math.isfinite(value) else None
        if stepped is not None:
            self._progress.nonfinite_in_a_row = 0
            norm, rate = stepped
            meter.add({"loss": (value, 1.0), "grad_norm": (norm, 1.0), "learning_rate": (rate, 1.0)})
            return
        self._optimizer.clear()
        self._progress.nonfinite_in_a_row += 1
        what = "loss" if not math.isfinite(value) else "gradient"
        in_a_row, limit = self._progress.nonfinite_in_a_row, self._config.train.nonfinite_stop_after
        self._reporter.event("nonfinite", step=step + 1, what=what, in_a_row=in_a_row)
        if in_a_row >= limit:
            raise NumericalError(
                f"the {what} was not finite {in_a_row} times in a row, last at step {step + 1}; the weights are those "
                f"before it. Lower optim.lr (now {self._config.optim.lr:g}) or look at the data of these steps"
            )

    def _held_out(self, step: int) -> dict[str, float]:
        self._reporter.status(phase="evaluating")
        metrics = self._method.evaluate(self.check)
        if metrics:
            self._reporter.event("evaluated", step=step, **{k: v for k, v in metrics.items() if math.isfinite(v)})
        return metrics

    def _note_best(self, step: int, metrics: Mapping[str, float]) -> bool:
        """True where this step's evaluation is the best so far by the run's selection metric."""
        wanted = self._config.checkpoint
        value = metrics.get(wanted.metric, math.nan) if wanted.metric else math.nan
        if not math.isfinite(value):
            return False
        best = self._progress.best
        sign = 1.0 if wanted.goal == "min" else -1.0
        if best is not None and sign * value >= sign * best["value"]:
            return False
        self._progress.best = {"step": step, "metric": wanted.metric, "value": value}
        return True

    def _tell_best(self) -> None:
        best = self._progress.best
        assert best is not None
        self._folder.write_best(best)
        self._reporter.status(best=best)
        self._reporter.event("best", **best)

    def _probed(self, step: int) -> dict[str, float]:
        if self._probe is None:
            return {}
        reading = self._probe.read(self.check)
        self._reporter.samples(step, "probe", reading.samples)
        return reading.metrics

    def _emit(self, step: int, metrics: dict[str, float]) -> None:
        """Write the step's line and bring status.json up to date."""
        self._reporter.metrics(step, metrics)
        seconds = metrics.get("step_time_s", 0.0)
        left = (self._method.total_steps - step) * seconds
        self._reporter.status(
            phase="running",
            step=step,
            total_steps=self._method.total_steps,
            last={name: value for name, value in metrics.items() if math.isfinite(value)},
            steps_per_s=1.0 / seconds if seconds else None,
            seconds_left=left if seconds else None,
        )

    def _checkpoint(self, *, must: bool = False) -> bool:
        """Save the present step. A failure is told and borne a few times, unless the checkpoint is the last chance."""
        step = self._progress.step
        if step == self._saved_step:
            return True
        self._reporter.status(phase="checkpointing")
        self._reporter.sync_metrics()
        try:
            folder = save_checkpoint(
                self._folder.checkpoints,
                step,
                write_weights=self._write_weights,
                tensors={
                    "optimizer": self._optimizer.state_tensors(),
                    "random": {"torch": torch.get_rng_state()},
                    **{name: dict(module.state_dict()) for name, module in self._method.modules().items()},
                },
                state={"progress": vars(self._progress)},
            )
        except CheckpointError as error:
            self._checkpoint_failures += 1
            self._reporter.event("checkpoint_failed", step=step, what=str(error))
            if must or self._checkpoint_failures >= CHECKPOINT_FAILURES_BORNE:
                raise
            return False
        self._checkpoint_failures = 0
        self._saved_step = step
        control.clear(self._folder, "checkpoint")
        best = self._progress.best["step"] if self._progress.best else None
        prune(self._folder.checkpoints, keep=self._config.checkpoint.keep, best_step=best)
        self._reporter.event("checkpoint", step=step, name=folder.name)
        return True


def peak_memory_bytes() -> int:
    """Most memory this process has held: of the CUDA device where one is used, else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
