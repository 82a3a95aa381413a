"""A run's panels as lines of text: what `runs watch` shows where the app is not.

Owns the frame: the line of state, why, how the run fares, the panels that fit, and what is below them. Invariants: it
only reads; a frame has exactly the size that was asked for, and no line is wider; the panels are those of the Curves
screen. Refuses to know terminals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.run.reference_policy import reference_name
from engine.run.safe_text import safe
from workbench.ascii_text import to_ascii
from workbench.curve_scenes import scenes_of
from workbench.curve_view import CurveView
from workbench.curve_words import state_words
from workbench.curves import Glance, RunCurves
from workbench.panel_grid import grid_of, shares
from workbench.plot_canvas import in_ascii
from workbench.plot_drawing import PlotDrawing
from workbench.plot_scene import Scene
from workbench.run_health import Health, health_of
from workbench.run_list import Run
from workbench.text_wrapping import cut, fit, wrap

LEAST_SIZE = (40, 10)
MOST_REASON_LINES = 3


@dataclass(frozen=True)
class FrameLook:
    """How a frame is drawn."""

    width: int = 80
    height: int = 24
    page: int = 1
    """Which of the pages of panels; beyond the last it is the last."""
    log: bool = False
    """A logarithmic axis of values where these allow it."""
    plain: bool = False
    """ASCII alone."""


class RunFrame:
    """One run as a frame of text, again and again; new points cost only themselves."""

    def __init__(self, run: Run, choice: Mapping[str, Sequence[str]] | None = None) -> None:
        """`choice` holds for each method which panels a person wants, as their settings have it."""
        self.run = run
        self.curves = RunCurves(run)
        self._view = CurveView(self.curves)
        self._choice = choice or {}
        self._plots: dict[int, PlotDrawing] = {}
        self._drawn_as: tuple[object, ...] = ()

    def read(self) -> Glance:
        """Everything there is to read now. Raises OSError where a file is there and cannot be read."""
        while (glance := self.curves.look()).more:
            pass
        return glance

    def lines(self, look: FrameLook) -> list[str]:
        """The frame as it is now, `look.height` lines of at most `look.width` cells."""
        glance = self.read()
        width, height = max(LEAST_SIZE[0], look.width), max(LEAST_SIZE[1], look.height)
        health = health_of(glance.summary, self.curves.log, self.curves.config)
        head = self._head(glance, health, width)
        self._view.log = look.log
        choice = self._choice.get(glance.summary.method, ())
        scenes = scenes_of(glance, self.curves, self._view, choice, health)
        room = height - len(head) - 1
        columns, rows = grid_of(len(scenes), width, room) if scenes else (1, 1)
        pages = max(1, -(-len(scenes) // (columns * rows)))
        page = min(max(1, look.page), pages)
        shown = scenes[(page - 1) * columns * rows :][: columns * rows]
        body = self._panels(shown, columns, shares(width, columns), shares(room, rows), look)
        foot = self._foot(glance, page, pages)
        lines = [*head, *(body or [""] * room), cut(foot, width)]
        return [line.rstrip() for line in ((to_ascii(in_ascii(line)) for line in lines) if look.plain else lines)]

    def _head(self, glance: Glance, health: Health, width: int) -> list[str]:
        summary, config = glance.summary, self.curves.config
        reference = f" · ref {reference_name(config)}" if config and reference_name(config) else ""
        words = f"{state_words(summary, glance.step)}{reference}"
        lines = wrap(f"{summary.id}  {words}", width)[:2]
        for text in (summary.reason, summary.note, health.words):
            if text:
                told = wrap(text, width)
                rest = " ".join(told[MOST_REASON_LINES - 1 :])
                lines += [*told[: MOST_REASON_LINES - 1], *([cut(rest, width)] if rest else [])]
        return lines

    def _panels(
        self, scenes: list[Scene], columns: int, widths: list[int], heights: list[int], look: FrameLook
    ) -> list[str]:
        layout = (columns, tuple(widths), tuple(heights), look.plain)
        if layout != self._drawn_as:
            self._drawn_as, self._plots = layout, {}
        lines: list[str] = []
        for row, height in enumerate(heights):
            blocks = []
            for column, width in enumerate(widths):
                place = row * columns + column
                if place < len(scenes):
                    blocks.append((self._drawn(place, scenes[place], width, height, look), width))
                else:
                    blocks.append(([""] * height, width))
            lines += ["".join(fit(block[y], width) for block, width in blocks) for y in range(height)]
        return lines

    def _drawn(self, place: int, scene: Scene, width: int, height: int, look: FrameLook) -> list[str]:
        plot = self._plots.get(place)
        if plot is None:
            plot = self._plots[place] = PlotDrawing(plain=look.plain)
            plot.resize(width, height)
        plot.show(scene, self._view.metrics)
        found = plot.text.split("\n")
        return [*found, *[""] * (height - len(found))][:height]

    def _foot(self, glance: Glance, page: int, pages: int) -> str:
        steps = self.run.checkpoint_steps()
        parts = [f"panels {page} of {pages} (--page)" if pages > 1 else ""]
        parts.append(f"checkpoints at step {', '.join(map(str, steps[-6:]))}" if steps else "")
        if self.curves.log.left_out:
            parts.append(f"{self.curves.log.left_out:,} values of more metrics are left out")
        if glance.missing and self.curves.log.metrics:
            parts.append("metrics.jsonl is gone; these are the curves read before")
        return safe(" · ".join(part for part in parts if part))
