"""Which panels a person wants to see of a method, and in which order: their own setting, not the run's.

Owns the form, a list of names for each method under [curves] in the person's config.toml: a panel is named by its first
metric, one that is hidden has a minus before it. Invariants: what is not named comes after what is, in the usual order,
so that a new metric is seen; a name that this run has not is kept for the next.
"""

from __future__ import annotations

from collections.abc import Sequence

from workbench.curve_panels import Panel

HIDDEN = "-"


def name_of(panel: Panel) -> str:
    """What a panel is called in the setting."""
    return panel.traces[0].metric


def arranged(panels: Sequence[Panel], choice: Sequence[str]) -> list[tuple[Panel, bool]]:
    """All panels in the person's order, each with whether it is shown."""
    order = {name.removeprefix(HIDDEN): place for place, name in enumerate(choice)}
    hidden = {name.removeprefix(HIDDEN) for name in choice if name.startswith(HIDDEN)}
    ranked = sorted(panels, key=lambda panel: order.get(name_of(panel), len(order)))
    return [(panel, name_of(panel) not in hidden) for panel in ranked]


def chosen(panels: Sequence[Panel], choice: Sequence[str]) -> tuple[Panel, ...]:
    """The panels that are shown, in the person's order; all of them where every one was hidden."""
    shown = tuple(panel for panel, there in arranged(panels, choice) if there)
    return shown or tuple(panels)


def choice_of(arrangement: Sequence[tuple[Panel, bool]], before: Sequence[str] = ()) -> tuple[str, ...]:
    """The setting that says this arrangement; names in `before` that it has not are kept."""
    names = [f"{'' if there else HIDDEN}{name_of(panel)}" for panel, there in arrangement]
    known = {name_of(panel) for panel, _ in arrangement}
    return (*names, *(name for name in before if name.removeprefix(HIDDEN) not in known))
