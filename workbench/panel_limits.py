"""The values that a run's alarms hold its metrics against, as lines in its panels.

Owns which limit belongs to which metric. Invariant: the limits are the engine's own, as this run's settings make them;
an alarm that is off has no line.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.run.alarm_rules import BY_NAME, limits_of
from workbench.curve_panels import Panel, Reference

if TYPE_CHECKING:
    from engine.run.config import RunConfig

_KL = ("kl/policy_reference_nats_per_sequence", "objective/kl")
_LINES = (
    ("kl", _KL, "target", 1.0),
    ("kl_runaway", _KL, "alarm", 1.0),
    ("clipping", ("policy/clipfrac_avg", "clip_ratio/region_mean"), "alarm", 1.0),
    ("flat_groups", ("frac_reward_zero_std",), "alarm", 1.0),
    ("cut_off", ("completions/clipped_ratio",), "alarm", 1.0),
    ("value", ("val/explained_variance",), "alarm", 1.0),
    ("displacement", ("displacement/chosen",), "alarm", -1.0),
)
"""(alarm, metrics, what the line is called, what its threshold is multiplied by to be in the metric's unit)."""


def with_limits(panels: tuple[Panel, ...], config: RunConfig | None) -> tuple[Panel, ...]:
    """The panels with a line for each limit; a value that has a line already gets no second one."""
    if config is None:
        return panels
    lines: dict[str, list[Reference]] = {}
    for alarm, metrics, label, sign in _LINES:
        limits = limits_of(BY_NAME[alarm], config)
        if limits is not None:
            for metric in metrics:
                lines.setdefault(metric, []).append(Reference(sign * limits.threshold, label))
    return tuple(_with(panel, lines.get(panel.traces[0].metric, ())) for panel in panels)


def _with(panel: Panel, lines: tuple[Reference, ...] | list[Reference]) -> Panel:
    known = {reference.value for reference in panel.references}
    new = tuple(line for line in lines if line.value not in known)
    return replace(panel, references=panel.references + new) if new else panel
