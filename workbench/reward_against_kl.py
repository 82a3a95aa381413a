"""Reward against the sampled KL: what a policy has gained, by how far it has gone from its reference for it.

Owns which reward is drawn, and the points. Invariants: the KL is the sampled one, the same quantity in every method; a
probe without a reward at or before its step is no point; points stand in the order of their KL, whatever their order
in time. Places on the axis are thousandths of a nat.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping

from workbench.curve_axes import XAxis, value_at
from workbench.curve_panels import Panel, Trace
from workbench.curve_window import Window
from workbench.curves import Points
from workbench.plot_scene import Scene
from workbench.run_watch import KL

KEY = "reward|kl"
"""What the panel is called, and its curve: no metric of a run is."""
REWARDS = ("eval_reward", "eval_objective/scores", "reward", "objective/scores")
"""Metrics that are a reward of the policy's own answers, held-out ones first."""
_NATS = 1000.0
_FARTHEST = 1e12


def reward_of(metrics: Mapping[str, Points]) -> str:
    """The metric that is drawn against the KL; empty where a run has none, or no KL."""
    if not metrics.get(KL):
        return ""
    return next((name for name in REWARDS if metrics.get(name)), "")


def points_against_kl(metrics: Mapping[str, Points], reward: str) -> Points:
    """The reward at each probe over its KL."""
    kl, rewards = metrics.get(KL), metrics.get(reward)
    found = []
    if kl is not None:
        for place in range(len(kl)):
            value = value_at(rewards, kl.steps[place])
            if value is not None and math.isfinite(value[1]) and abs(kl.values[place]) < _FARTHEST:
                found.append((round(kl.values[place] * _NATS), value[1]))
    found.sort()
    return Points(array("q", (at for at, _ in found)), array("d", (value for _, value in found)))


def panel_against_kl(reward: str, traces: tuple[Trace, ...] = ()) -> Panel:
    """The panel: each probe a mark, or the traces that are given."""
    alone = (Trace(KEY, "at the largest KL", "points"),)
    return Panel(f"{reward} against sampled KL k1, nats/seq", traces or alone, "", f"{reward} by KL")


def scene_against_kl(panel: Panel, curves: list[Points], *, log: bool = False) -> Scene:
    """The scene of that panel over the KL that there is; it begins at 0, where a policy is its reference."""
    ends = [points.steps[end] for points in curves for end in (0, -1) if len(points)]
    window = Window(min([0, *ends]), max([1, *ends]))
    return Scene(panel, window.first, window.last, (), "no probe yet", log, x=XAxis("kl"))
