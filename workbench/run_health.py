"""Whether a run is healthy, in one sentence, with what to do and which panels show it.

Owns the sentence. Invariants: what is wrong is said before what is well; an alarm is the engine's, only its figures are
looked up; a judgment from numbers alone (held-out loss, accuracy beside chance) is made beyond two standard errors or
not at all; nothing is said of numbers that are not there. Everything is read from a run's status, config and curves.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from engine.run.alarm_rules import BY_NAME, kl_target, limits_of
from engine.run.method_names import ON_ROLLOUTS
from engine.run.metric_names import STANDARD_ERROR
from workbench.curves import CurveLog, Points
from workbench.run_list import RunSummary
from workbench.run_watch import KL, SHOWN
from workbench.value_axis import short_number

if TYPE_CHECKING:
    from engine.run.config import RunConfig

TREND_POINTS = 10
"""Values that are compared with as many before them, at most; a quarter of all where there are fewer."""
FEW = 4
"""Values in a row that must go one way where there are too few to compare."""
SURE_OF_TREND = 3.0
"""Standard errors beyond which values go somewhere: they are looked at again and again, and noise is not to be told."""
SURE = 2.0
"""Standard errors beyond which a difference is more than noise."""
LEAST_EVALUATIONS = 3
CHANCE = 0.5
_STANDS = re.compile(r"since step (\d+) \((\w+)\)")


@dataclass(frozen=True)
class Health:
    """What is said of a run."""

    words: str = ""
    """One sentence; empty where there is nothing to say yet."""
    tone: str = ""
    """bad, good or neither."""
    metrics: frozenset[str] = frozenset()
    """What it speaks of, where something is wrong: their panels are marked."""


@dataclass(frozen=True)
class _Sentence:
    what: str
    """Of {value}, {limit}, {onset} and {trend}."""
    remedy: str
    """Of {nearer}, {method} and {onset}."""
    metrics: tuple[str, ...]
    share: bool = False
    """Its value is told in per cent."""


_KLS = ("objective/kl", KL)
_ALARMS = {
    "kl_runaway": _Sentence(
        "KL {value} nats is far past its target, beyond {limit}, since step {onset}{trend}",
        "go back to before step {onset} and {nearer}", _KLS,
    ),
    "reward_hacking": _Sentence(
        "the reward rises while the answers get worse, since step {onset}",
        "read the samples; then go back to before step {onset} and raise {method}.kl_coef",
        ("reward", "objective/scores", "completions/mean_length", "objective/response_length", "entropy"),
    ),
    "kl": _Sentence("KL {value} nats is past its target{limit} since step {onset}{trend}", "{nearer}", _KLS),
    "displacement": _Sentence(
        "a token of the preferred answers has lost {value} nats, past {limit}, since step {onset}{trend}",
        "set dpo.sft_coef = 1 or {nearer}", ("displacement/chosen",),
    ),
    "overfitting": _Sentence(
        "training accuracy is {value} above held-out accuracy, past {limit}, since step {onset}",
        "use the best checkpoint, train for an epoch at most, or add pairs", ("accuracy",), share=True,
    ),
    "value": _Sentence(
        "the value function explains {value} of the returns, below {limit}, since step {onset}{trend}",
        "raise ppo.value_warmup or change ppo.value_lr", ("val/explained_variance",),
    ),
    "clipping": _Sentence(
        "{value} of the ratios are clipped, past {limit}, since step {onset}{trend}",
        "lower the learning rate, or make fewer updates a step", ("policy/clipfrac_avg", "clip_ratio/region_mean"),
        share=True,
    ),
    "flat_groups": _Sentence(
        "{value} of the prompts have answers of equal reward, past {limit}, since step {onset}{trend}",
        "raise {method}.temperature or {method}.generations", ("frac_reward_zero_std",), share=True,
    ),
    "cut_off": _Sentence(
        "{value} of the answers are cut off, past {limit}, since step {onset}{trend}",
        "raise {method}.max_new_tokens, or begin from a model that ends its answers", ("completions/clipped_ratio",),
        share=True,
    ),
}  # fmt: skip
"""By alarm, the gravest first."""
_HELD_OUT_LOSSES = ("eval_preference_loss", "eval_loss")
_HELD_OUT_ACCURACIES = ("eval_accuracy", "eval_rewards/accuracies")


def health_of(summary: RunSummary, log: CurveLog, config: RunConfig | None) -> Health:
    """The sentence about a run as it is now."""
    for look in (_standing_alarms, _broken_values):
        if (found := look(summary, log, config)) is not None:
            return found
    for check in (_held_out_loss, _beside_chance):
        if (found := check(summary, log)) is not None:
            return found
    return _well(summary, log, config)


def trend_of(points: Points | None, *, every: int = TREND_POINTS) -> str:
    """rising, falling, or empty where the last values do not differ from those before them by more than noise."""
    if points is None:
        return ""
    count = len(points)
    some = min(every, count // 4)
    if some < 3:  # too few for errors: as many in a row that go one way
        last = list(points.values[max(0, count - FEW) : count])
        ways = {(after > before) - (after < before) for before, after in pairwise(last)} if len(last) == FEW else {0}
        return "rising" if ways == {1} else "falling" if ways == {-1} else ""
    now = [value for value in points.values[count - some : count] if math.isfinite(value)]
    before = [value for value in points.values[count - 2 * some : count - some] if math.isfinite(value)]
    if len(now) < 2 or len(before) < 2:
        return ""
    apart = statistics.fmean(now) - statistics.fmean(before)
    error = math.sqrt(statistics.variance(now) / len(now) + statistics.variance(before) / len(before))
    if abs(apart) <= SURE_OF_TREND * error or apart == 0:
        return ""
    return "rising" if apart > 0 else "falling"


def _standing_alarms(summary: RunSummary, log: CurveLog, config: RunConfig | None) -> Health | None:
    onsets = {name: int(step) for step, name in _STANDS.findall(summary.alarm)}
    if not summary.alarm:
        return None
    known = [name for name in _ALARMS if name in onsets]
    if not known:
        return Health(summary.alarm, "bad")  # of an engine that knows more alarms
    name = known[0]
    words = _alarm_words(name, onsets[name], summary, log, config)
    if len(onsets) > 1:
        words += f" (+{len(onsets) - 1} more)"
    return Health(words, "bad", frozenset(metric for one in known for metric in _ALARMS[one].metrics))


def _alarm_words(name: str, onset: int, summary: RunSummary, log: CurveLog, config: RunConfig | None) -> str:
    sentence, points = _ALARMS[name], _first_there(_ALARMS[name].metrics, log)
    limits = limits_of(BY_NAME[name], config) if config is not None else None
    value = _value_of(name, points, log)
    limit = math.nan if limits is None else limits.threshold
    if name == "kl":
        told_limit = "" if limits is None else f" {_short(limit)}"
    else:
        told_limit = _told(limit, sentence.share) if limits is not None else "its limit"
    trend = trend_of(points)
    what = sentence.what.format(
        value=_told(value, sentence.share), limit=told_limit, onset=f"{onset:,}",
        trend=f" and {trend}" if trend else "",
    )  # fmt: skip
    method = summary.method
    remedy = sentence.remedy.format(nearer=_nearer(method), method=method, onset=f"{onset:,}")
    return f"{what}: {remedy}"


def _value_of(name: str, points: Points | None, log: CurveLog) -> float:
    last = None if points is None else points.last()
    if last is None:
        return math.nan
    if name == "displacement":
        return -last[1]
    if name == "overfitting" and points is not None and (held_out := _last(log, "eval_accuracy")) is not None:
        count = len(points)
        return statistics.fmean(points.values[max(0, count - TREND_POINTS) : count]) - held_out
    return last[1]


def _nearer(method: str) -> str:
    """What keeps a policy nearer to its reference."""
    raised = "the KL coefficient" if method in ON_ROLLOUTS else "" if method == "sft" else f"{method}.beta"
    raised = "cpo.sft_coef" if method == "cpo" else raised
    return f"lower the learning rate or raise {raised}" if raised else "lower the learning rate or train fewer steps"


def _broken_values(summary: RunSummary, log: CurveLog, config: RunConfig | None) -> Health | None:
    """Metrics whose newest value is no finite number."""
    broken = {}
    for name, points in list(log.metrics.items()):
        last = points.last()
        if last is not None and not math.isfinite(last[1]) and last[0] == log.last_step:
            broken[name] = last
    if not broken:
        return None
    name = next((name for name in SHOWN.get(summary.method, ()) if name in broken), next(iter(broken)))
    step, value = broken[name]
    more = f" (+{len(broken) - 1} more)" if len(broken) > 1 else ""
    remedy = "lower the learning rate, look for an odd example of that step, and read the log"
    return Health(f"{name} is {_short(value)} at step {step:,}: {remedy}{more}", "bad", frozenset(broken))


def _held_out_loss(summary: RunSummary, log: CurveLog) -> Health | None:
    """A held-out loss that lies above its best by more than its standard errors say, in two evaluations in a row."""
    name = next((name for name in _HELD_OUT_LOSSES if name in log.metrics), "")
    steps, values = _finite(log.metrics.get(name))
    if len(values) < LEAST_EVALUATIONS:
        return None
    best = min(range(len(values)), key=values.__getitem__)
    errors = dict(zip(*_finite(log.metrics.get(f"{name}{STANDARD_ERROR}")), strict=True))
    if best >= len(values) - 2 or steps[best] not in errors:
        return None
    for place in (-1, -2):
        noise = math.hypot(errors[steps[best]], errors.get(steps[place], math.inf))
        if values[place] - values[best] <= SURE * noise:
            return None
    words = (
        f"held-out loss {_short(values[-1])} is above its best, {_short(values[best])} at step "
        f"{steps[best]:,}: stop here and use the best checkpoint, or lower the learning rate"
    )
    return Health(words, "bad", frozenset({name, name.removeprefix("eval_")}))


def _beside_chance(summary: RunSummary, log: CurveLog) -> Health | None:
    """A held-out accuracy that does not differ from chance when half of the run is over."""
    name = next((name for name in _HELD_OUT_ACCURACIES if name in log.metrics), "")
    steps, values = _finite(log.metrics.get(name))
    error = _last(log, f"{name}{STANDARD_ERROR}")
    if len(values) < LEAST_EVALUATIONS or error is None or not summary.total_steps:
        return None
    if 2 * steps[-1] < summary.total_steps or abs(values[-1] - CHANCE) > SURE * error:
        return None
    words = (
        f"held-out accuracy {_short(values[-1])}±{_short(error)} is no different from chance: look at "
        "the labels' agreement, add pairs, or raise the learning rate"
    )
    return Health(words, "bad", frozenset({name, name.removeprefix("eval_")}))


def _well(summary: RunSummary, log: CurveLog, config: RunConfig | None) -> Health:
    """What is said where nothing is wrong: the main figure, the held-out one and the KL, with where they go."""
    parts = []
    main = next((name for name in SHOWN.get(summary.method, ()) if _last(log, name) is not None), "")
    for name in dict.fromkeys((main, f"eval_{main}")):
        last = _last(log, name) if name else None
        if last is not None:
            trend = trend_of(log.metrics[name])
            parts.append(f"{name} {_short(last)}{f' and {trend}' if trend else ''}")
    kl = _last(log, KL)
    if kl is not None:
        target = kl_target(config) if config is not None else None
        of_target = f" of its target {_short(target)}" if target is not None else ""
        parts.append(f"KL {_short(kl)} nats{of_target}")
    watched = "no alarm: " if config is not None else ""  # nobody watches a run that was made elsewhere
    return Health(watched + ", ".join(parts), "good" if watched else "") if parts else Health()


def _first_there(names: Sequence[str], log: CurveLog) -> Points | None:
    return next((points for name in names if (points := log.metrics.get(name))), None)


def _last(log: CurveLog, name: str) -> float | None:
    points = log.metrics.get(name)
    last = None if points is None else points.last()
    return last[1] if last is not None and math.isfinite(last[1]) else None


def _finite(points: Points | None) -> tuple[list[int], list[float]]:
    if points is None:
        return [], []
    count = len(points)
    there = [place for place in range(count) if math.isfinite(points.values[place])]
    return [points.steps[place] for place in there], [points.values[place] for place in there]


def _short(value: float) -> str:
    """Three digits that matter: enough for a sentence."""
    return f"{value:.3g}" if not math.isfinite(value) or 1e-3 <= abs(value) < 1000 else short_number(value)


def _told(value: float, share: bool) -> str:
    if not math.isfinite(value):
        return "?"
    return f"{100 * value:.0f} %" if share else _short(value)
