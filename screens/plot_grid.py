"""The panels of a run in a grid: as many as fit, the most telling first, and the rest on further pages.

Owns which page is shown. Invariant: a change of numbers never moves a panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.app import ComposeResult
from textual.containers import Container
from textual.events import Resize

from screens.plot_widget import Plot
from workbench.curves import Points
from workbench.panel_grid import MOST, grid_of
from workbench.plot_scene import Scene


class PlotGrid(Container):
    """Panels side by side. `show` draws what has changed."""

    DEFAULT_CSS = """
    PlotGrid { layout: grid; grid-gutter: 0; height: 1fr; }
    """

    def __init__(self, *, plain: bool, id: str | None = None) -> None:
        super().__init__(id=id)
        self.plots = tuple(Plot(plain=plain) for _ in range(MOST))
        self._scenes: Sequence[Scene] = ()
        self._metrics: Mapping[str, Points] = {}
        self._page = 0
        self._laid_out = (0, 0)

    def compose(self) -> ComposeResult:
        for plot in self.plots:
            plot.display = False
            yield plot

    @property
    def pages(self) -> int:
        """How many pages there are."""
        columns, rows = self._grid
        return max(1, -(-len(self._scenes) // (columns * rows)))

    @property
    def page(self) -> int:
        """The page that is shown, from 1."""
        return self._page + 1

    @property
    def text(self) -> str:
        """What the panels show, one after the other."""
        return "\n".join(plot.text for plot in self.plots if plot.display)

    def show(self, scenes: Sequence[Scene], metrics: Mapping[str, Points]) -> None:
        """Show panels with the points there are now."""
        self._scenes, self._metrics = scenes, metrics
        self._again()

    def turn(self, by: int) -> None:
        """Another page; after the last comes the first."""
        self._page = (self._page + by) % self.pages
        self._again()

    def on_resize(self, event: Resize) -> None:
        self._again()

    @property
    def _grid(self) -> tuple[int, int]:
        return grid_of(len(self._scenes), self.size.width, self.size.height)

    def _again(self) -> None:
        columns, rows = self._grid
        if (columns, rows) != self._laid_out:
            self._laid_out = (columns, rows)
            self.styles.grid_size_columns, self.styles.grid_size_rows = columns, rows
        self._page = min(self._page, self.pages - 1)
        shown = self._scenes[self._page * columns * rows :][: columns * rows]
        for place, plot in enumerate(self.plots):
            there = place < len(shown)
            if plot.display != there:
                plot.display = there
            plot.show(shown[place] if there else None, self._metrics)
