"""The one loop: count tokens, forward, objective, backward, step, emit.

Knows nothing of any method: a method gives updates with exact denominators and the loop turns them into optimizer
steps, metrics, evaluations, probes and checkpoints. A loss or gradient that is not finite is refused before the
optimizer sees it. A stop request is honoured where no step is half done.

Several processes may run one loop together (`engine.ranks`): each runs every n-th micro-batch of an update, all take
the same step, and the leading one alone writes. What could differ between them (clocks, requests, the disk) is decided
by the leading one for all.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from engine.alarm_watch import AlarmWatch
from engine.checkpoints import prune, save_checkpoint
from engine.errors import CheckpointError, NumericalError, RewardError, StoppedByAlarm, StopRequested
from engine.machine import Machine
from engine.methods.method import Meter, Method, Reporting, seed_of
from engine.optimizer import Optimizer
from engine.probe import PROBE_SECONDS, Probe
from engine.ranks import leaders_word, leads, rank, sum_gradients, sum_over_ranks
from engine.reporting import Reporter
from engine.run import control
from engine.run.cadence import (
    CHECKPOINTS_A_RUN,
    EVALUATIONS_A_RUN,
    PROBES_A_RUN,
    pace,
    probe_stretch,
    steps_between,
)
from engine.run.config import RunConfig
from engine.run.folder import RunFolder
from engine.selection import Standing, judged

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
    stale: int = 0
    """Evaluations in a row that were no better than the best."""
    seconds: float = 0.0
    """Spent on steps and evaluations."""
    probes: int = 0
    probe_seconds: float = 0.0
    """Spent on all probes so far."""
    probe_stretched: bool = False
    """It was said that probes come more rarely than asked for."""
    nonfinite_in_a_row: int = 0
    unfinished: dict[str, float] | None = None
    """Metrics of the present step whose evaluation or probe a stop cut short; finished first on a resume."""
    alarms: dict[str, Any] = field(default_factory=dict)
    """How each alarm stands."""


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
        machine: Machine | None = None,
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
        self._machine = machine
        self._alarms = AlarmWatch(config, folder, reporter, progress.alarms)
        self._checkpoint_failures = 0
        self._pace_s = 0.0
        """Seconds of a step of late; 0 before the first one of this process."""
        self._saved_step = -1
        total = method.total_steps
        self._evaluate_every = steps_between(config.evaluation.every, total, times=EVALUATIONS_A_RUN)
        self._checkpoint_every = steps_between(config.checkpoint.every, total, times=CHECKPOINTS_A_RUN)
        self._probe_every = steps_between(config.probe.every, total, times=PROBES_A_RUN)

    def check(self) -> None:
        """Raise StopRequested where a stop was asked for."""
        self._reporter.going_on()
        if self._stop_wanted():
            raise StopRequested(f"stop requested at step {self._progress.step}")

    def run(self) -> None:
        """Train to the end. Raises StopRequested after a checkpoint, NumericalError where numbers break down."""
        total = self._method.total_steps
        if leads() and self._progress.best is not None and self._folder.best() != self._progress.best:
            self._tell_best()  # a kill came between the best checkpoint and the word of it
        try:
            if self._progress.step == 0 and self._config.evaluation.at_start:
                row = {**self._held_out(0), **self._probed(0)}
                self._emit(0, row)
                self._alarms.hear(0, row)
            if self._progress.unfinished is not None:
                self._finish_step(self._progress.unfinished)
            while self._progress.step < total and not self._standing().spent(self._config.checkpoint.patience):
                self.check()
                self._one_step()
        except StopRequested:
            self._reporter.status(phase="stopping")
            self._checkpoint(must=True)
            raise
        except RewardError:
            # Scores are asked for before a step changes anything, so nothing that was learnt is lost.
            self._checkpoint(must=True)
            raise
        self._checkpoint(must=True)

    def _one_step(self) -> None:
        step = self._progress.step
        started = time.monotonic()
        self._reporter.status(phase="running", step=step, total_steps=self._method.total_steps)
        metrics = self._train(step)
        seconds = time.monotonic() - started
        self._reporter.going_on(seconds)
        self._progress.step = step + 1
        self._progress.tokens += int(metrics["num_tokens"])
        self._progress.seconds += seconds
        metrics["tokens_per_second"] = metrics["num_tokens"] / seconds
        metrics["num_tokens"] = float(self._progress.tokens)
        metrics["step_time_s"] = seconds
        metrics["peak_memory_bytes"] = float(peak_memory_bytes())
        metrics |= self._machine.step(seconds) if self._machine is not None else {}
        self._finish_step(metrics)

    def _finish_step(self, metrics: dict[str, float]) -> None:
        """Evaluate and probe where due, write the step's line, and only then its checkpoint."""
        done = self._progress.step
        last = done == self._method.total_steps
        self._progress.unfinished = metrics
        held_out = self._held_out(done) if last or done % self._evaluate_every == 0 else {}
        standing = judged(self._standing(), self._config.checkpoint, done, held_out)
        early = not last and standing.spent(self._config.checkpoint.patience)
        probed = self._probed(done) if last or early or leaders_word(self._probe_due(done)) else {}
        self._progress.unfinished = None
        row = {**metrics, **held_out, **probed}
        self._emit(done, row)
        heard = self._alarms.hear(done, row)
        best_before = self._progress.best
        self._progress.best, self._progress.stale = standing.best, standing.stale
        saved = (standing.improved or heard.checkpoint or self._checkpoint_due(done)) and self._checkpoint()
        if standing.improved and saved:
            self._tell_best()
        elif standing.improved:
            # The best is a checkpoint: one that could not be written is none.
            self._progress.best = best_before
        if early:
            self._tell_early_end(done)
        elif heard.ends and not last:
            raise StoppedByAlarm(heard.alarm, heard.action, done)

    def _standing(self) -> Standing:
        return Standing(self._progress.best, self._progress.stale)

    def _checkpoint_due(self, step: int) -> bool:
        kept_forever = self._config.checkpoint.keep_every
        due = step % self._checkpoint_every == 0 or (kept_forever > 0 and step % kept_forever == 0)
        return due or bool(leaders_word(control.pending(self._folder, "checkpoint") is not None))

    def _train(self, step: int) -> dict[str, float]:
        """All updates of one step."""
        measured, overall = Meter(), Meter()
        tokens = 0
        # What a step draws (dropout) is a function of its number, so that a resume repeats it on any device.
        torch.manual_seed(seed_of(self._config.train.seed, "step", step, rank()))
        for update in self._method.updates(step):
            total: torch.Tensor | float = 0.0
            for run in update.own():
                terms = run()
                loss = torch.stack([terms.losses[key] / update.counts[key] for key in terms.losses]).sum()
                loss.backward()
                measured.add(terms.metrics)
                total = total + loss.detach()
            tokens += update.tokens
            self._apply(step, total, measured, overall)
        measured.add_over_ranks()
        overall.add(self._method.step_metrics())
        return {**measured.read(), **overall.read(), "num_tokens": float(tokens)}

    def _apply(self, step: int, loss: torch.Tensor | float, measured: Meter, overall: Meter) -> None:
        """One optimizer step, or its refusal where the loss or a gradient is not finite.

        `loss` is this process's part of it. What was `measured` is read with it, in the one copy to the host.
        """
        sum_gradients(self._optimizer.parameters)
        on_device = self._optimizer.gradient_norms()
        whole_loss = sum_over_ranks(torch.as_tensor(loss).to(on_device[0]))
        value, *norms = measured.fetch(whole_loss, *on_device)
        if math.isfinite(value) and all(map(math.isfinite, norms)):
            rate = self._optimizer.step(step, norms)
            self._progress.nonfinite_in_a_row = 0
            overall.add({"loss": (value, 1.0), "grad_norm": (norms[0], 1.0), "learning_rate": (rate, 1.0)})
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
        started = time.monotonic()
        metrics: dict[str, float] = leaders_word(self._method.evaluate(self.check))
        self._progress.seconds += time.monotonic() - started
        if metrics:
            self._reporter.event("evaluated", step=step, **{k: v for k, v in metrics.items() if math.isfinite(v)})
        if isinstance(self._method, Reporting) and (report := self._method.report()):
            self._reporter.event("held_out_report", step=step, **report)
        return metrics

    def _tell_best(self) -> None:
        best = self._progress.best
        assert best is not None
        if leads():
            self._folder.write_best(best)
        self._reporter.status(best=best)
        self._reporter.event("best", **best)

    def _tell_early_end(self, step: int) -> None:
        best = self._progress.best
        assert best is not None
        self._reporter.event(
            "early_stopped",
            step=step,
            total_steps=self._method.total_steps,
            best=best,
            what=f"{best['metric']} was no better than at step {best['step']} for {self._progress.stale} evaluations "
            "in a row; checkpoint.patience = 0 goes on to the end",
        )

    def _probe_due(self, step: int) -> bool:
        """Whether a step between the first and the last is probed: the cadence stretches so that probes take no more
        than their share of the run's time. Training itself is the same whichever steps are probed."""
        progress = self._progress
        if self._probe is None or step % self._probe_every != 0 or progress.probes == 0:
            return self._probe is not None and step % self._probe_every == 0
        stretch = probe_stretch(
            self._probe_every,
            self._method.total_steps,
            seconds_a_step=progress.seconds / step,
            seconds_a_probe=progress.probe_seconds / progress.probes,
            max_share=self._config.probe.max_share,
        )
        if stretch > 1 and not progress.probe_stretched:
            progress.probe_stretched = True
            self._reporter.event(
                "probe_stretched",
                step=step,
                every=self._probe_every * stretch,
                seconds_a_probe=round(progress.probe_seconds / progress.probes, 3),
                what=f"probes each {self._probe_every} steps would take more than probe.max_share = "
                f"{self._config.probe.max_share:g} of the run's time; the first and the last are always made",
            )
        return step % (self._probe_every * stretch) == 0

    def _probed(self, step: int) -> dict[str, float]:
        if self._probe is None:
            return {}
        reading = self._probe.read(self.check)
        self._progress.probes += 1
        self._progress.probe_seconds += reading.metrics[PROBE_SECONDS]
        for source, rows in reading.samples.items():
            self._reporter.samples(step, source, rows)
        return reading.metrics

    def _emit(self, step: int, metrics: dict[str, float]) -> None:
        """Write the step's line and bring status.json up to date."""
        self._reporter.metrics(step, metrics)
        seconds = self._pace_s = pace(self._pace_s, metrics.get("step_time_s", 0.0))
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
        """Save the present step. A failure is told and borne a few times, unless the checkpoint is the last chance.

        The leading process writes what all of them hold; the others wait for its word on it.
        """
        step = self._progress.step
        if step == self._saved_step:
            return True
        saved = bool(leaders_word(leads() and self._write_checkpoint(step, must=must)))
        self._saved_step = step if saved else self._saved_step
        return saved

    def _write_checkpoint(self, step: int, *, must: bool) -> bool:
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
                # At a run's last chance a tight fit is better than nothing.
                margin=not must,
            )
        except CheckpointError as error:
            self._checkpoint_failures += 1
            self._reporter.event("checkpoint_failed", step=step, what=str(error))
            if must or self._checkpoint_failures >= CHECKPOINT_FAILURES_BORNE:
                raise
            return False
        self._checkpoint_failures = 0
        control.clear(self._folder, "checkpoint")
        best = self._progress.best["step"] if self._progress.best else None
        kept = self._config.checkpoint
        prune(
            self._folder.checkpoints, keep=kept.keep, best_step=best, keep_every=kept.keep_every,
            spare_before=self._alarms.spare_before(),
        )  # fmt: skip
        self._reporter.event("checkpoint", step=step, name=folder.name)
        return True


def peak_memory_bytes() -> int:
    """Most memory this process has held: of the CUDA device where one is used, else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
