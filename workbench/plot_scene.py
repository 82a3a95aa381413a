"""What one panel shows at one moment: its curves, the part of the axis, the crosshair, the events below.

Owns the record alone; two scenes that are equal look the same over the same points.
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.curve_axes import STEPS, XAxis
from workbench.curve_columns import column_of
from workbench.curve_panels import Panel
from workbench.curves import Event

SMOOTH_OVER = 1 / 24
"""Reach of the smoothing, as a share of the width."""
SMOOTHINGS = {"off": 0.0, "light": 1 / 48, "medium": SMOOTH_OVER, "strong": 1 / 8}
"""Strengths of the smoothing, by what they are called."""


@dataclass(frozen=True)
class Scene:
    """What a panel shows."""

    panel: Panel
    first_step: int
    last_step: int
    """The ends of the x axis, in its own unit."""
    events: tuple[Event, ...] = ()
    empty: str = "no values yet"
    """What it says while there is nothing to draw."""
    log: bool = False
    """Draw against a logarithmic axis where all values are above 0."""
    smoothing: float = SMOOTH_OVER
    """Reach of the smoothing as a share of the width; 0 for none."""
    x: XAxis = STEPS
    cross: int | None = None
    """Where the crosshair is, on the x axis; the title then shows the values there."""
    marked: bool = False
    """Whether the sentence above the panels speaks of this one."""

    def place(self, at: int, columns: int) -> int:
        """The column of a place on the x axis."""
        return column_of(at, self.first_step, self.last_step, columns)
