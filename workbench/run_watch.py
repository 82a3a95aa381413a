"""Watching a run from outside: one frame of text, waiting for its end, and the lines in between.

Owns what a frame shows. Invariant: it only reads the run's files, so any number of watchers changes nothing; what is
not known yet is left out or "-", never invented. A sparkline shows the means of equal stretches of the run, scaled to
their own range: a shape, not a measurement.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, TextIO

from engine.run.metric_names import source_family
from workbench.run_list import ALIVE, Run, RunSummary, exit_code_of, summarise
from workbench.terminal_output import field_lines, number, time_left

BARS, PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
SPARKLINE_WIDTH = 24
POLL_S = 0.25
KL, KL_ERROR = "kl/policy_reference_nats_per_sequence", "kl/policy_reference_standard_error"
KL_PER_TOKEN = "kl/policy_reference_nats_per_token"
_OF_PAIRS = (
    "loss", "rewards/accuracies", "rewards/margins", "eval_loss", "eval_rewards/accuracies", "grad_norm",
    "learning_rate",
)  # fmt: skip
_OF_GROUPS = (
    "reward", "eval_reward", "objective/kl", "frac_reward_zero_std", "completions/mean_length",
    "completions/clipped_ratio", "clip_ratio/region_mean", "loss", "grad_norm", "learning_rate",
)  # fmt: skip
SHOWN: dict[str, tuple[str, ...]] = {
    "sft": ("loss", "mean_token_accuracy", "eval_loss", "grad_norm", "learning_rate"),
    "reward": ("loss", "accuracy", "margin", "eval_loss", "eval_accuracy", "grad_norm", "learning_rate"),
    "dpo": ("loss", "rewards/accuracies", "rewards/margins", "displacement/chosen", *_OF_PAIRS[3:]),
    "simpo": _OF_PAIRS,
    "cpo": _OF_PAIRS,
    "orpo": ("loss", "nll_loss", *_OF_PAIRS[1:]),
    "kto": (
        "loss", "rewards/margins", "kl", "displacement/chosen", "eval_loss", "eval_rewards/margins", "grad_norm",
        "learning_rate",
    ),
    "ppo": (
        "objective/scores", "objective/rlhf_reward", "objective/kl", "loss/policy_avg", "loss/value_avg",
        "policy/clipfrac_avg", "val/num_eos_tokens", "grad_norm", "learning_rate",
    ),
    "grpo": _OF_GROUPS,
    "rloo": _OF_GROUPS,
}  # fmt: skip
Series = dict[str, list[tuple[int, float]]]


def series_of(run: Run) -> Series:
    """Every metric of a run as (step, value), finite values only."""
    series: Series = {}
    for line in run.metrics():
        for name, value in line.metrics.items():
            if value is not None and math.isfinite(value):
                series.setdefault(name, []).append((line.step, value))
    return series


def frame(run: Run, *, every_metric: bool = False) -> list[str]:
    """The whole state of a run as lines for a person, at most 80 columns in ordinary cases."""
    summary, series = summarise(run), series_of(run)
    lines = [f"{summary.id}  {summary.method} · {summary.state}{_step_text(summary)}"]
    if summary.reason:
        lines.append(summary.reason)
    if summary.note:
        lines.append(summary.note)
    if summary.alarm:
        lines.append(f"alarm: {summary.alarm}")
    lines.append(_pace_text(summary))
    wanted = SHOWN.get(summary.method, ())
    names = sorted(series) if every_metric else with_sources([name for name in wanted if name in series], series)
    names = names or sorted(series)[:8]
    lines += ["", *metric_lines(series, names)] if names else ["", "no metrics yet"]
    if KL in series:
        lines += ["", *_kl_lines(series)]
    if summary.best:
        best = summary.best
        lines += ["", f"best {best.get('metric')} {number(best.get('value'), 4)} at step {best.get('step')}"]
    steps = run.checkpoint_steps()
    if steps:
        lines.append(f"checkpoints at step {', '.join(map(str, steps))}")
    return [line for line in lines if line is not None]


def with_sources(names: Sequence[str], known: Iterable[str]) -> list[str]:
    """Metrics, and behind each its figures of single sources, as far as they are `known`."""
    of: dict[str, list[str]] = {}
    for name in known:
        of.setdefault(source_family(name), []).append(name)
    return [one for name in names for one in (name, *of.get(name, ()))]


def metric_lines(series: Series, names: Sequence[str]) -> list[str]:
    """A line for each metric: its name, its last value, its sparkline."""
    width = max(map(len, names))
    return [
        f"{name:<{width}}  {number(series[name][-1][1], 4):>10}  {sparkline([v for _, v in series[name]])}"
        for name in names
    ]


def sparkline(values: Sequence[float], width: int = SPARKLINE_WIDTH, *, plain: bool | None = None) -> str:
    """The shape of `values` in at most `width` bars, each the mean of an equal stretch."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    buckets = min(width, len(finite))
    edges = [round(i * len(finite) / buckets) for i in range(buckets + 1)]
    means = [math.fsum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    bars = PLAIN_BARS if (lacks_bars(sys.stdout) if plain is None else plain) else BARS
    low, high = min(means), max(means)
    if high == low:
        return bars[len(bars) // 2 - 1] * len(means)
    return "".join(bars[min(len(bars) - 1, int((mean - low) / (high - low) * len(bars)))] for mean in means)


def as_json(run: Run) -> dict[str, Any]:
    """The same facts as a frame, for a program."""
    summary = summarise(run)
    last = {name: {"step": points[-1][0], "value": points[-1][1]} for name, points in series_of(run).items()}
    return {"schema": 1, **summary.__dict__, "metrics": last, "checkpoints": run.checkpoint_steps()}


def main_figure(summary: RunSummary) -> str:
    """The last value of the first metric that a run's method is judged by, with its name."""
    name = next((name for name in SHOWN.get(summary.method, ()) if name in summary.last), "")
    return f"{name} {number(summary.last[name])}" if name else ""


def progress_line(summary: RunSummary) -> str:
    """One line about a run that goes on: step, pace, and the two metrics that matter most."""
    first = next((name for name in SHOWN.get(summary.method, ()) if name in summary.last), None)
    names = [name for name in dict.fromkeys((first, "eval_loss")) if name in summary.last]
    parts = [
        summary.id,
        "" if summary.state == "running" else summary.state,
        f"step {summary.step:,}/{summary.total_steps:,}" if summary.total_steps else "",
        time_left(summary.seconds_left) if summary.seconds_left is not None else "",
        *(f"{name} {number(summary.last[name], 4)}" for name in names if name is not None),
    ]
    return "  ".join(part for part in parts if part)


def follow(tell: Callable[[str], None]) -> Callable[[RunSummary], None]:
    """A listener for `wait_for_end` that tells the lines in which something is said.

    Left out are the last moments of a run at its end, lines without a figure, and metrics that a run which goes on
    still shows from its earlier attempt.
    """
    before: dict[str, float] = {}
    alarm = ""

    def hear(summary: RunSummary) -> None:
        nonlocal before, alarm
        if summary.alarm != alarm:
            alarm = summary.alarm
            tell(f"{summary.id}  alarm: {alarm or 'none stands any more'}")
        if summary.state == "preparing":
            before = summary.last
        if summary.state == "stopping" and summary.total_steps and summary.step >= summary.total_steps:
            return
        stale = bool(before) and summary.last == before and summary.state in ALIVE
        line = progress_line(replace(summary, last={}) if stale else summary)
        if line != summary.id:
            tell(line)

    return hear


def wait_for_end(
    run: Run, on_change: Callable[[RunSummary], None] | None = None, *, every_s: float = 1.0, poll_s: float = POLL_S
) -> int:
    """Block until the run has ended; its exit code (0 done, 3 stopped, 1 else).

    `on_change` hears of every new state and alarm at once, and of new steps at most every `every_s` seconds.
    """
    state, step, told = ("", ""), -1, -math.inf
    while True:
        summary = summarise(run)
        over = summary.state not in ALIVE
        due = summary.step != step and time.monotonic() - told >= every_s
        if on_change is not None and ((summary.state, summary.alarm) != state or due):
            state, step, told = (summary.state, summary.alarm), summary.step, time.monotonic()
            on_change(summary)
        if over:
            return exit_code_of(summary.state)
        time.sleep(poll_s)


@contextmanager
def leaving_is_told(run: Run, tell: Callable[[str], None]) -> Iterator[None]:
    """Where a person ends the waiting by Ctrl+C, say that the run has not ended with it."""
    try:
        yield
    except KeyboardInterrupt:
        if run.state().state in ALIVE:
            print(file=sys.stderr)  # below the ^C
            tell(f"run {run.id} goes on. Stop it with: workbench runs stop {run.id}")
        raise


def _step_text(summary: RunSummary) -> str:
    if not summary.total_steps:
        return ""
    share = 100 * summary.step / summary.total_steps
    return f" · step {summary.step:,} of {summary.total_steps:,} ({share:.0f} %)"


def _pace_text(summary: RunSummary) -> str:
    parts = [summary.device] if summary.device else []
    if summary.steps_per_s:
        rate = summary.steps_per_s
        parts.append(f"{number(rate, 2)} steps/s" if rate >= 1 else f"{number(1 / rate, 2)} s a step")
    if summary.seconds_left is not None:
        parts.append(time_left(summary.seconds_left))
    return " · ".join(parts) or "no pace yet"


def _kl_lines(series: Series) -> list[str]:
    step, value = series[KL][-1]
    error = dict(series.get(KL_ERROR, [])).get(step)
    per_token = dict(series.get(KL_PER_TOKEN, [])).get(step)
    text = f"{number(value, 3)} nats a sequence"
    text += f" ± {number(error, 3)}" if error is not None else ""
    text += f", {number(per_token, 4)} a token" if per_token is not None else ""
    return field_lines({"sampled KL": f"{text}, step {step}  {sparkline([v for _, v in series[KL]])}"})


def lacks_bars(stream: TextIO) -> bool:
    """Whether the encoding of a stream has no characters to draw with."""
    try:
        BARS.encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return True
    return False
