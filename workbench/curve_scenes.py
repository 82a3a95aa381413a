"""The panels of a run as scenes: what the app and a terminal without it draw.

Owns how a look at a run becomes panels: which, in whose order, which part of the axis, which of them are marked. Pure:
the same run and the same look give the same scenes.
"""

from __future__ import annotations

from collections.abc import Sequence

from workbench.curve_panels import Panel, panels_of, why_empty
from workbench.curve_view import CurveView
from workbench.curve_words import is_alive
from workbench.curves import Glance, RunCurves
from workbench.panel_choice import chosen, name_of
from workbench.panel_limits import with_limits
from workbench.plot_scene import SMOOTHINGS, Scene
from workbench.reward_against_kl import KEY, panel_against_kl, reward_of, scene_against_kl
from workbench.run_health import Health, health_of
from workbench.run_watch import KL


def panels_shown(glance: Glance, curves: RunCurves, choice: Sequence[str] = ()) -> tuple[Panel, ...]:
    """The panels of a run with their lines, as a person has arranged them."""
    return chosen(panels_known(glance, curves), choice)


def panels_known(glance: Glance, curves: RunCurves) -> tuple[Panel, ...]:
    """Every panel that there is of a run, in the usual order; reward against KL behind the KL."""
    metrics = curves.log.metrics
    panels = list(with_limits(panels_of(glance.summary.method, list(metrics), curves.config), curves.config))
    if reward := reward_of(metrics):
        at = next(place for place, panel in enumerate(panels) if any(trace.metric == KL for trace in panel.traces))
        panels.insert(at + 1, panel_against_kl(reward))
    return tuple(panels)


def scenes_of(
    glance: Glance, curves: RunCurves, view: CurveView, choice: Sequence[str] = (), health: Health | None = None
) -> list[Scene]:
    """What to draw of a run; `view` follows it first. A panel that the sentence about the run speaks of is marked."""
    summary = glance.summary
    over = not is_alive(summary)
    view.follow(summary.total_steps, over=over)
    marked = (health or health_of(summary, curves.log, curves.config)).metrics
    events, shown = view.events(glance.events), view.shown
    against = view.against_kl
    return [
        scene_against_kl(panel, [against], log=view.log)
        if name_of(panel) == KEY
        else Scene(
            panel, shown.first, shown.last, events,
            why_empty(panel, curves.config, summary.total_steps, over=over), view.log,
            SMOOTHINGS[view.smoothing], view.x, view.cross_place,
            any(trace.metric in marked for trace in panel.traces),
        )
        for panel in panels_shown(glance, curves, choice)
    ]  # fmt: skip
