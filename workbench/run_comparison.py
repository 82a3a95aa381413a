"""Several runs beside each other: which settings differ, what each metric came to, and what may be compared.

Owns the rules of a comparison. Invariants: pure but for `facts_of`, which only reads; the first run is the baseline
for the others; a value of other held-out data, another reward model or another reference is shown, but
never beside the baseline's as if it were better or worse; the best of a metric is named only where one direction is
better. Refuses to know how it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from engine.run.config import SECTIONS, sections_of
from engine.run.method_names import ON_ROLLOUTS
from engine.run.metric_names import HELD_OUT, METRICS, STANDARD_ERROR, metric_info, source_family
from workbench.curves import CurveLog, Points, RunCurves
from workbench.run_clone import as_typed
from workbench.run_list import Run

if TYPE_CHECKING:
    from engine.run.config import RunConfig

OWN = frozenset({"run.id", "run.name", "run.created", "data.train", "data.eval"})
"""Keys that say which run it is, and so differ always."""
ABSENT = "–"
DIGEST_LETTERS = 12
_DOWN = ("loss", "calibration_error", "perplexity")
_UP = (
    "accuracy", "accuracies", "margin", "margins", "reward", "scores", "rlhf_reward", "raw_scores", "mean_reward",
    "explained_variance", "mean",
)  # fmt: skip
"""Last parts of the names of metrics of which less, or more, is better."""
_OF_REWARDS = ("reward", "objective/scores", "objective/raw_scores", "objective/rlhf_reward", "rewards/")


@dataclass(frozen=True)
class MetricValue:
    """What a metric of one run came to; finite values alone."""

    last: float
    last_step: int
    best: float | None
    """None where no direction is better."""
    best_step: int | None


@dataclass(frozen=True)
class RunFacts:
    """What is compared of a run."""

    id: str
    method: str
    settings: Mapping[str, str]
    """Every setting of its method as typed, by key; empty where run.toml is damaged, or is not ours."""
    values: Mapping[str, MetricValue]
    held_out: str = ""
    """Which held-out examples, and how many of them; equal for runs that were measured on the same ones."""
    judge: str = ""
    """What gives its rewards."""
    reference: str = ""
    """What its KL is measured against, and by which probe."""


@dataclass(frozen=True)
class SettingRow:
    """A setting that differs."""

    key: str
    values: tuple[str, ...]
    """One for each run; ABSENT where its method has no such key."""


@dataclass(frozen=True)
class MetricRow:
    """A metric of every run."""

    name: str
    unit: str
    goal: str
    """min, max, or empty where no direction is better."""
    values: tuple[MetricValue | None, ...]
    why_not: tuple[str, ...]
    """For each run why its value cannot be held against the baseline's; empty where it can."""
    winners: tuple[int, ...]
    """Places of the runs with the best value of those that can be compared; none where there are fewer than two."""


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other; the first is the baseline."""

    runs: tuple[str, ...]
    settings: tuple[SettingRow, ...]
    metrics: tuple[MetricRow, ...]
    warnings: tuple[str, ...]
    """What a person should know before comparing, a sentence each."""

    def as_json(self) -> dict[str, Any]:
        """Plain values for a program."""
        return {"schema": 1, **asdict(self)}


def facts_of(run: Run, log: CurveLog | None = None, config: RunConfig | None = None) -> RunFacts:
    """What is compared of a run; reads metrics.jsonl and run.toml where they are not handed in.

    Raises OSError where the metrics are there and cannot be read.
    """
    if log is None:
        curves = RunCurves(run)
        while curves.look().more:
            pass
        log, config = curves.log, config or curves.config
    if config is None:
        try:
            config = run.config()
        except (EngineError, OSError, ValueError):
            config = None
    values = {
        name: value
        for name, points in list(log.metrics.items())
        if (value := value_of(points, goal_of(name))) is not None
    }
    if config is None:
        return RunFacts(run.id, run.method, {}, values)
    if config.run.imported:  # another program's: what it was measured on nobody knows, so it is like nothing else
        return RunFacts(run.id, run.method, {}, values, run.id, run.id, run.id)
    return RunFacts(
        run.id, config.run.method, settings_as_typed(config), values, _held_out(config), _judge(config),
        _reference(config),
    )  # fmt: skip


def value_of(points: Points, goal: str) -> MetricValue | None:
    """Last and best finite value of a curve; of equal bests the first. None where there is no finite value."""
    count = len(points)
    steps, values = points.steps[:count], points.values[:count]
    last = next((place for place in range(count - 1, -1, -1) if math.isfinite(values[place])), None)
    if last is None:
        return None
    if not goal:
        return MetricValue(values[last], steps[last], None, None)
    best = (min if goal == "min" else max)(value for value in values if math.isfinite(value))
    return MetricValue(values[last], steps[last], best, steps[values.index(best)])


def goal_of(metric: str) -> str:
    """min, max, or empty where neither direction is better: a KL, a length, an entropy, an error."""
    if metric.endswith(STANDARD_ERROR) or metric.startswith(("kl", "policy/", "val/clip")):
        return ""
    plain = (source_family(metric) or metric).removeprefix(HELD_OUT)
    if plain.startswith(("loss/", "completions/", "clip_ratio/", "sampling/")):
        return ""
    last = plain.rpartition("/")[2]
    if plain in _DOWN or last.endswith("_loss"):
        return "min"
    return "max" if last in _UP else ""


def compare(facts: Sequence[RunFacts]) -> Comparison:
    """Runs held against the first of them. Raises ValueError without any."""
    if not facts:
        raise ValueError("a comparison needs at least one run")
    names = {name for one in facts for name in one.values if not name.endswith(STANDARD_ERROR)}
    known = list(METRICS)
    order = {name: place for place, name in enumerate(known)}
    # Held-out figures first: they are what runs are compared by.
    ranked = sorted(
        names,
        key=lambda name: (
            not name.startswith(HELD_OUT), order.get(name.removeprefix(HELD_OUT), len(known)), name,
        ),
    )  # fmt: skip
    return Comparison(
        tuple(one.id for one in facts), differing_settings(facts), tuple(_metric_row(name, facts) for name in ranked),
        tuple(_warnings(facts)),
    )  # fmt: skip


def differing_settings(facts: Sequence[RunFacts]) -> tuple[SettingRow, ...]:
    """The settings that are not the same in all runs, in the order of run.toml."""
    keys = dict.fromkeys(key for one in facts for key in one.settings)
    rows = [SettingRow(key, tuple(one.settings.get(key, ABSENT) for one in facts)) for key in keys]
    return tuple(row for row in rows if len(set(row.values)) > 1)


def settings_as_typed(config: RunConfig) -> dict[str, str]:
    """Every setting of the run's method but those that say which run it is, as one types it; a hash in short."""
    found = {"run.method": config.run.method}
    for section in sections_of(config.run.method):
        for key in fields(SECTIONS[section]):
            name = f"{section}.{key.name}"
            if name not in OWN:
                text = as_typed(getattr(getattr(config, section), key.name))
                found[name] = text[:DIGEST_LETTERS] if name.endswith("sha256") and len(text) > 32 else text
    return found


def why_not_comparable(metric: str, one: RunFacts, baseline: RunFacts) -> str:
    """Why a metric of two runs is not of the same quantity; empty where it is."""
    plain = metric.removeprefix(HELD_OUT)
    if metric.startswith(HELD_OUT) and one.held_out != baseline.held_out:
        return "other held-out data"
    if plain == "loss" and one.method != baseline.method:
        return "another objective"
    if plain.startswith(_OF_REWARDS) and one.method in ON_ROLLOUTS and one.judge != baseline.judge:
        return "another judge of rewards"
    if (metric.startswith("kl/") or metric == "objective/kl") and one.reference != baseline.reference:
        return "another reference or probe"
    return ""


def _metric_row(name: str, facts: Sequence[RunFacts]) -> MetricRow:
    info = metric_info(name)
    values = tuple(one.values.get(name) for one in facts)
    reasons = tuple(
        "" if value is None else why_not_comparable(name, one, facts[0])
        for one, value in zip(facts, values, strict=True)
    )
    goal = goal_of(name)
    rivals = {
        place: value.best
        for place, (value, reason) in enumerate(zip(values, reasons, strict=True))
        if value is not None and value.best is not None and not reason
    }
    winners: tuple[int, ...] = ()
    if goal and len(rivals) > 1:
        best = (min if goal == "min" else max)(rivals.values())
        winners = tuple(place for place, value in rivals.items() if value == best)
    unit = "" if info is None or info.unit in ("1", "share") else info.unit
    return MetricRow(name, unit, goal, values, reasons, winners)


def _warnings(facts: Sequence[RunFacts]) -> list[str]:
    found = []
    others = [one.id for one in facts[1:] if one.held_out != facts[0].held_out]
    if others:
        found.append(
            f"held-out values are not comparable with those of {facts[0].id}, which has other held-out data: "
            f"{', '.join(others)}."
        )
    if unread := [one.id for one in facts if not one.settings]:
        found.append(f"the settings are not known of {', '.join(unread)}.")
    return found


def _held_out(config: RunConfig) -> str:
    if not config.data.eval or not config.data.eval_rows:
        return ""
    rows = config.evaluation.max_rows or config.data.eval_rows
    source = config.data.eval_sha256 or ", ".join(config.data.names)
    return f"{source}:{min(rows, config.data.eval_rows)}:{config.data.max_length}"


def _judge(config: RunConfig) -> str:
    if config.run.method not in ON_ROLLOUTS:
        return ""
    model, rewards = config.model, config.rewards
    return repr((model.reward_sha256 or model.reward_source, *(getattr(rewards, key.name) for key in fields(rewards))))


def _reference(config: RunConfig) -> str:
    probe, model = config.probe, config.model
    asked = (probe.prompts, probe.max_new_tokens, probe.temperature, probe.seed, config.data.train_sha256)
    return repr((model.sha256 or model.source, model.adapter, *asked))
