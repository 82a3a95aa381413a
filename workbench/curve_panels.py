"""Which curves belong together in one panel, for each method, and in which order they matter.

Owns titles, units, reference lines and the order of panels. Invariants: a metric and its held-out twin share a panel;
the sampled KL is among the first panels of every method that changes a policy and among none of the others; every
metric of a run is in some panel. Refuses to know how a panel is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.run.cadence import EVALUATIONS_A_RUN, steps_between
from engine.run.metric_names import (
    HELD_OUT,
    METRICS,
    STANDARD_ERROR,
    metric_info,
    reward_family,
    reward_labels,
    source_family,
)
from workbench.run_watch import KL, KL_ERROR, KL_PER_TOKEN

if TYPE_CHECKING:
    from engine.run.config import RunConfig


@dataclass(frozen=True)
class Trace:
    """One curve of a panel."""

    metric: str
    label: str
    """What tells it apart in its panel; empty where it is alone."""
    kind: str = "line"
    """line, dashes, dots, long-dashes (lines that differ without colour), or points."""
    smooth: bool = False
    """A strong smoothed curve over the raw one."""
    error: str = ""
    """The metric that is its standard error."""
    ink: int = -1
    """Which colour of the palette of runs it has; -1 for that of its kind."""
    letter: str = ""
    """What stands on the curve, so that many differ without colour."""


@dataclass(frozen=True)
class Reference:
    """A value to compare a curve with."""

    value: float
    label: str


@dataclass(frozen=True)
class Panel:
    """Curves that are drawn against one axis."""

    title: str
    traces: tuple[Trace, ...]
    unit: str = ""
    short_title: str = ""
    """For where there is little room; the title where empty."""
    references: tuple[Reference, ...] = ()
    share: bool = False
    """Values lie between 0 and 1."""
    scale: float = 1.0
    """What values are multiplied by to be in the unit."""
    by_name: bool = False
    """Its curves are told apart by their labels, which are cut before they are left out."""


@dataclass(frozen=True)
class _Wanted:
    """A panel of the table: the metrics that share it, the first that is there of each group of spellings."""

    metrics: tuple[str, ...]
    smooth: bool = True
    references: tuple[Reference, ...] = ()
    title: str = ""
    labels: tuple[str, ...] = ()
    held_out: tuple[str, ...] | None = None
    """The held-out twins; None for those of the same names."""


_LN_2 = (Reference(math.log(2), "ln 2"),)
_CHANCE = (Reference(0.5, "chance"),)
_ZERO = (Reference(0.0, "zero"),)
_SAMPLED_KL = _Wanted((KL,), smooth=False, references=_ZERO)
_PACE = (
    _Wanted(("grad_norm",)),
    _Wanted(("learning_rate",), smooth=False),
    _Wanted(("entropy",)),
    _Wanted(("tokens_per_second",)),
)
_MACHINE = (
    _Wanted(("mfu",), title="MFU"),
    _Wanted(("gpu/load",), title="GPU load"),
    _Wanted(("gpu/memory_bytes",), smooth=False, title="GPU memory"),
    _Wanted(("gpu/power_watts",), title="GPU power"),
    _Wanted(("gpu/temperature_celsius",), smooth=False, title="GPU temperature"),
)
"""Of a run on a GPU alone; no panel waits for them."""
_SIDES = ("chosen", "rejected")
_MARGINS = _Wanted(("rewards/margins",), references=_ZERO)
_ACCURACIES = _Wanted(("rewards/accuracies",), references=_CHANCE)
_REWARDS = _Wanted(("rewards/chosen", "rewards/rejected"), title="rewards", labels=_SIDES, references=_ZERO)
_LOG_PROBS = _Wanted(("logps/chosen", "logps/rejected"), title="logps", labels=_SIDES)
# Beside the margins: they may grow while the chosen answers, too, become less likely.
_DISPLACEMENT = _Wanted(
    ("displacement/chosen", "displacement/rejected"), title="log-probs since the start", labels=_SIDES, references=_ZERO
)
_AGAINST_REFERENCE = (_Wanted(("loss",), references=_LN_2), _SAMPLED_KL, _MARGINS, _DISPLACEMENT)
_WITHOUT_REFERENCE = (_Wanted(("loss",)), _SAMPLED_KL, _MARGINS, _ACCURACIES, _REWARDS, _LOG_PROBS)
_OF_GROUPS = (
    _Wanted(("reward",)),
    _SAMPLED_KL,
    _Wanted(("objective/kl",), references=_ZERO),
    _Wanted(("completions/mean_length",)),
    _Wanted(("clip_ratio/high_mean", "clip_ratio/low_mean"), title="clipped ratios", labels=("high", "low")),
    _Wanted(("frac_reward_zero_std",)),
    _Wanted(("completions/clipped_ratio",)),
    _Wanted(("entropy",)),
    _Wanted(("policy/approxkl_avg",)),
)
_TABLE: dict[str, tuple[_Wanted, ...]] = {
    "sft": (_Wanted(("loss",)), _Wanted(("mean_token_accuracy",)), _SAMPLED_KL, *_PACE),
    "reward": (
        _Wanted(("loss",), references=_LN_2),
        _Wanted(("accuracy",), references=_CHANCE),
        _Wanted(("margin",), references=_ZERO),
        _Wanted(
            ("mean_reward", "min_reward", "max_reward"), title="reward of an answer", labels=("mean", "least", "most")
        ),
        *_PACE,
    ),
    "dpo": (*_AGAINST_REFERENCE, _ACCURACIES, _REWARDS, _LOG_PROBS, *_PACE),
    "simpo": (*_WITHOUT_REFERENCE, *_PACE),
    "cpo": (*_WITHOUT_REFERENCE, *_PACE),
    "orpo": (*_WITHOUT_REFERENCE, *_PACE),
    "kto": (
        _Wanted(("loss",)),
        *_AGAINST_REFERENCE[1:3],
        _Wanted(("kl",), references=_ZERO),
        _DISPLACEMENT,
        _REWARDS,
        _LOG_PROBS,
        *_PACE,
    ),
    "ppo": (
        _Wanted(("objective/scores", "objective/rlhf_reward"), title="objective", labels=("scores", "rlhf_reward")),
        _SAMPLED_KL,
        _Wanted(("objective/kl",), references=_ZERO),
        _Wanted(("loss/policy_avg", "loss/value_avg"), title="losses", labels=("policy", "value")),
        _Wanted(("val/explained_variance",), references=_ZERO),
        _Wanted(("policy/clipfrac_avg",)),
        _Wanted(("objective/response_length",)),
        _Wanted(("val/ratio",), references=(Reference(1.0, "one"),)),
        _Wanted(("policy/approxkl_avg",)),
        _Wanted(("loss/kl_avg",), references=_ZERO),
        *_PACE,
    ),
    "grpo": (*_OF_GROUPS, _Wanted(("loss/kl_avg",), references=_ZERO), *_PACE),
    "rloo": (*_OF_GROUPS, *_PACE),
}
_FROM_LN_2 = ("sigmoid", "sigmoid_norm", "robust")
"""Losses of dpo that are ln 2 where policy and reference agree."""
_KL_TITLES = {
    KL: ("sampled KL to the reference, k1", "KL to ref k1", "nats/seq"),
    KL_PER_TOKEN: ("sampled KL to the reference, k1", "KL to ref k1", "nats/token"),
    "objective/kl": ("KL of the rollouts to the reference, k1", "rollout KL k1", "nats/seq"),
    "policy/approxkl_avg": ("KL of the update, k2", "update KL k2", "nats"),
    "loss/kl_avg": ("KL in the loss, by its estimator", "loss KL", "nats"),
}
_SCALED = {"bytes": (1e-9, "GB")}
_KINDS = ("line", "dashes", "dots")
BEFORE_SOURCES = 3
"""Panels before that of the held-out loss of each source."""
LONGEST_SOURCE = 20
"""Characters of a source's name that stand beside its curve."""


def panels_of(method: str, metrics: Collection[str], config: RunConfig | None = None) -> tuple[Panel, ...]:
    """The panels of a run, the most telling first; `metrics` are the names that it has written so far."""
    wanted = list(_TABLE.get(method, ()))
    at_start = wanted[0].references if wanted else ()
    if method == "dpo" and config is not None and config.dpo.loss not in _FROM_LN_2:
        at_start = ()
        wanted[0] = _Wanted(("loss",))
    if "preference_loss" in metrics and wanted:
        # Beside an NLL only the preference term begins where the loss alone would; cpo and orpo mean both.
        terms = [_Wanted(("preference_loss",), references=at_start), _Wanted(("nll_loss",))]
        if method in ("cpo", "orpo"):
            wanted[2:2] = terms
        else:
            wanted[0] = terms[0]
            wanted[4:4] = [_Wanted(("loss",)), terms[1]]
    wanted += [one for one in _MACHINE if one.metrics[0] in metrics]
    panels = [_panel(one, config) for one in wanted]
    if config is not None and config.run.imported:
        panels = [panel for panel in panels if _has_values(panel, metrics)]
    elif panels and panels[0].traces[0].metric in metrics:
        # After the first step, what is missing will not come; but for the KL, which may begin later.
        panels = [panel for panel in panels if panel.traces[0].metric == KL or _has_values(panel, metrics)]
    own = _of_each_source(metrics, config)
    first = [panel for panel in own if panel.title == own[0].title]
    panels[BEFORE_SOURCES:BEFORE_SOURCES] = first
    panels += own[len(first) :]
    panels[1:1] = _of_each_reward(metrics, config)
    there = {trace.metric for panel in panels for trace in panel.traces}
    there |= {trace.error for panel in panels for trace in panel.traces}
    rest = [name for name in metrics if name not in there and not _belongs_to_another(name, metrics)]
    known = list(METRICS)
    rest.sort(key=lambda name: (known.index(name) if name in METRICS else len(known), name))
    return (*panels, *(_panel(_Wanted((name,), smooth=False), config) for name in rest))


def _of_each_source(metrics: Collection[str], config: RunConfig | None) -> list[Panel]:
    """Held-out figures of the sources of a run beside each other, so many to a panel as differ without colour."""
    families: dict[str, list[str]] = {}
    for name in metrics:
        family = source_family(name)
        if family and not family.endswith(STANDARD_ERROR):
            families.setdefault(family, []).append(name)
    panels = []
    for family, names in sorted(families.items(), key=lambda item: item[0] != HELD_OUT + "loss"):
        for start in range(0, len(names), len(_KINDS)):
            some = tuple(names[start : start + len(_KINDS)])
            labels = tuple(name.rpartition("/")[2][:LONGEST_SOURCE] for name in some)
            wanted = _Wanted(some, smooth=False, title=f"{family} by source", labels=labels)
            panel = _panel(wanted, config)
            traces = tuple(replace(trace, error="") for trace in panel.traces)
            panels.append(replace(panel, traces=traces, short_title=family, by_name=True))
    return panels


def _of_each_reward(metrics: Collection[str], config: RunConfig | None) -> list[Panel]:
    """What each reward gave, in its own unit and so on an axis of its own, in the order of the run's rewards."""
    named = {family[0]: name for name in metrics if (family := reward_family(name)) and name.endswith("/mean")
             and not name.startswith(HELD_OUT)}  # fmt: skip
    order = reward_labels(config) if config is not None else ()
    rewards = [reward for reward in order if reward in named] + sorted(named.keys() - set(order))
    return [
        replace(
            _panel(_Wanted((named[reward],), title=f"reward {reward}"), config), short_title=reward[:LONGEST_SOURCE]
        )
        for reward in rewards
    ]


def first_step_of(panel: Panel, config: RunConfig | None, total_steps: int) -> int | None:
    """The step at which a panel without values gets its first; None where that is not known."""
    metric = panel.traces[0].metric
    if config is None or not total_steps:
        return None
    if metric.startswith(("kl/", "probe/")):
        return 0 if config.probe.prompts else None
    if metric.startswith(HELD_OUT):
        every = steps_between(config.evaluation.every, total_steps, times=EVALUATIONS_A_RUN)
        return 0 if config.evaluation.at_start else every
    return 1


def why_empty(panel: Panel, config: RunConfig | None, total_steps: int, *, over: bool) -> str:
    """What a panel says that has no values."""
    if panel.traces[0].metric == KL and config is not None and not config.probe.prompts:
        return "not measured: probe.prompts = 0"
    if over:
        return "no values: the run wrote none"
    first = first_step_of(panel, config, total_steps)
    return "no values yet" if first is None else f"no values yet: first at step {first}"


def _panel(wanted: _Wanted, config: RunConfig | None) -> Panel:
    first = wanted.metrics[0]
    info = metric_info(first)
    title, unit = wanted.title or first, "" if info is None else _unit(info.unit)
    short = "" if wanted.title else first.rsplit("/", 1)[-1]
    title, short, unit = _KL_TITLES.get(first, (title, short, unit))
    scale, unit = _SCALED.get(unit, (1.0, unit))
    lines = [
        Trace(name, wanted.labels[place] if wanted.labels else "train", _KINDS[place % 3], wanted.smooth and place == 0,
              _error_of(name) if not wanted.smooth else "")
        for place, name in enumerate(wanted.metrics)
    ]  # fmt: skip
    twins = wanted.held_out
    if twins is None:
        whole = first.startswith((HELD_OUT, "kl/", "probe/"))
        twins = () if whole else tuple(HELD_OUT + name for name in wanted.metrics)
    points = [Trace(name, f"eval {label}".strip(), "points")
              for name, label in zip(twins, wanted.labels or ("",), strict=False)]  # fmt: skip
    acting = _acting_kl(config)
    if first == "loss/kl_avg" and acting is not None:
        title = f"KL in the loss, {acting[0]}"
    references = wanted.references
    if first == "policy/approxkl_avg" and config is not None and config.ppo.target_kl:
        references = (Reference(config.ppo.target_kl, "target"),)
    if first == "objective/kl" and acting is not None:
        title += f"; {acting[0]} acts in the {acting[1]}"
    if first == "objective/kl" and config is not None and config.ppo.kl_control == "adaptive":
        references = (*references, Reference(config.ppo.kl_target, "target"))
    share = info is not None and info.unit == "share"
    return Panel(title, (*lines, *points), unit, short, references, share, scale)


def _acting_kl(config: RunConfig | None) -> tuple[str, str] | None:
    """By which estimator the KL to the reference acts, and where: the reward, or the loss. None where none is set."""
    if config is None or config.run.method not in ("ppo", "grpo", "rloo"):
        return None
    if config.run.method == "rloo":
        return config.rloo.kl_estimator, "reward"
    section = config.ppo if config.run.method == "ppo" else config.grpo
    return section.kl_estimator, section.kl_in


def _has_values(panel: Panel, metrics: Collection[str]) -> bool:
    return any(trace.metric in metrics for trace in panel.traces)


def _unit(unit: str) -> str:
    return "" if unit in ("1", "share") else unit


def _error_of(name: str) -> str:
    return KL_ERROR if name == KL else name + STANDARD_ERROR if name.startswith(HELD_OUT) else ""


def _belongs_to_another(name: str, metrics: Collection[str]) -> bool:
    """A standard error, or a held-out twin of a metric that has a panel of its own."""
    if source_family(name).endswith(STANDARD_ERROR):
        return True
    if name.endswith(STANDARD_ERROR):
        return name == KL_ERROR or name.removesuffix(STANDARD_ERROR) in metrics
    return name.startswith(HELD_OUT) and name.removeprefix(HELD_OUT) in metrics
