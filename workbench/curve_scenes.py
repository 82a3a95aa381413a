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
from workbench.panel_choice import chosen
from workbench.panel_limits import with_limits
from workbench.plot_scene import SMOOTHINGS, Scene
from workbench.run_health import Health, health_of


def panels_shown(glance: Glance, curves: RunCurves, choice: Sequence[str] = ()) -> tuple[Panel, ...]:
    """The panels of a run with their lines, as a person has arranged them."""
    panels = panels_of(glance.summary.method, list(curves.log.metrics), curves.config)
    return with_limits(chosen(panels, choice), curves.config)


def scenes_of(
    glance: Glance, curves: RunCurves, view: CurveView, choice: Sequence[str] = (), health: Health | None = None
) -> list[Scene]:
    """What to draw of a run; `view` follows it first. A panel that the sentence about the run speaks of is marked."""
    summary = glance.summary
    over = not is_alive(summary)
    view.follow(summary.total_steps, over=over)
    marked = (health or health_of(summary, curves.log, curves.config)).metrics
    events, shown = view.events(glance.events), view.shown
    return [
        Scene(
            panel, shown.first, shown.last, events,
            why_empty(panel, curves.config, summary.total_steps, over=over), view.log,
            SMOOTHINGS[view.smoothing], view.x, view.cross_place,
            any(trace.metric in marked for trace in panel.traces),
        )
        for panel in panels_shown(glance, curves, choice)
    ]  # fmt: skip
