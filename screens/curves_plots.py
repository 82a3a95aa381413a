"""The panels of one run on Curves, with the keys by which a person looks at them.

Owns the drawing of a run's panels and the look: axis, window, crosshair, smoothing, pause. What each key does to the
look is `workbench.curve_view`'s, what is drawn then `workbench.curve_scenes`'. Invariant: while it is paused nothing
that comes is drawn, and nothing of it is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.message import Message

from screens.curves_panels import ArrangePanels
from screens.plot_grid import PlotGrid
from workbench.curve_scenes import panels_known, scenes_of
from workbench.curve_view import CurveView
from workbench.curves import Glance, RunCurves
from workbench.run_health import Health

if TYPE_CHECKING:
    from screens.station import Station


class PlotsPage(PlotGrid, can_focus=True):
    """One run's panels."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down,pagedown,space", "page(1)", "more", id="curves.more", tooltip="The panels that did not fit."),
        Binding("k,up,pageup", "page(-1)", "", show=False, id="curves.before", tooltip="The panels before these."),
        Binding("right", "cross(1)", "", show=False, id="curves.cross_right",
                tooltip="The crosshair to the right: every title then says the exact value there."),
        Binding("left", "cross(-1)", "", show=False, id="curves.cross_left", tooltip="The crosshair to the left."),
        Binding("shift+right", "cross(10)", "", show=False, id="curves.cross_far_right",
                tooltip="The crosshair ten times as far."),
        Binding("shift+left", "cross(-10)", "", show=False, id="curves.cross_far_left",
                tooltip="The crosshair ten times as far to the left."),
        Binding("x", "next_axis", "x axis", id="curves.x_axis",
                tooltip="Over steps, tokens, episodes, or the time that it ran."),
        Binding("plus,equals_sign", "zoom(True)", "", show=False, id="curves.zoom_in",
                tooltip="Half as much of the x axis, around the crosshair or at its end."),
        Binding("minus", "zoom(False)", "", show=False, id="curves.zoom_out", tooltip="Twice as much of the x axis."),
        Binding("0", "whole", "", show=False, id="curves.whole", tooltip="All of the x axis."),
        Binding("greater_than_sign", "pan(1)", "", show=False, id="curves.pan_right",
                tooltip="A quarter further along the x axis."),
        Binding("less_than_sign", "pan(-1)", "", show=False, id="curves.pan_left",
                tooltip="A quarter back along the x axis."),
        Binding("f", "newest", "follow", show=False, id="curves.follow",
                tooltip="Back to the newest step, and on with it."),
        Binding("p", "pause", "pause", id="curves.pause",
                tooltip="Draw nothing new, or go on; all is collected meanwhile."),
        Binding("e", "smoothing", "smooth", id="curves.smoothing", tooltip="How strongly the curves are smoothed."),
        Binding("L", "log_scale", "log y", id="curves.log_scale", tooltip="A logarithmic axis where values allow it."),
        Binding("P", "arrange", "panels", id="curves.arrange",
                tooltip="Hide and move panels; it is remembered for the method."),
    ]  # fmt: skip

    class Paused(Message):
        """The drawing was paused, or goes on: what stands around the panels is to be shown anew."""

    def __init__(self, *, plain: bool, id: str | None = None) -> None:
        super().__init__(plain=plain, id=id)
        self._curves: RunCurves | None = None
        self._view: CurveView | None = None
        self._glance: Glance | None = None
        self._health = Health()

    @property
    def look(self) -> CurveView | None:
        """How the run is looked at; None while there is no run."""
        return self._view

    def show_run(self, curves: RunCurves | None) -> None:
        """Show another run, as a whole."""
        self._curves, self._glance = curves, None
        self._view = CurveView(curves) if curves is not None else None

    def take(self, glance: Glance, health: Health) -> None:
        """Show what there is now, unless it is paused."""
        if self._view is None or (self._view.paused_at is not None and self._glance is not None):
            return
        self._glance, self._health = glance, health
        self._draw()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "page":
            return self.pages > 1
        own = ("cross", "next_axis", "zoom", "whole", "pan", "newest", "pause", "smoothing", "log_scale", "arrange")
        return self._glance is not None if action in own else True

    def action_page(self, by: int) -> None:
        self.turn(by)
        self._station.say(f"panels {self.page} of {self.pages}")

    def action_cross(self, by: int) -> None:
        if self._view is not None:
            self._view.move_cross(by)
            self._draw()

    def action_next_axis(self) -> None:
        if self._view is not None:
            self._station.say(f"over {self._view.next_axis()}")
            self._draw()

    def action_zoom(self, inwards: bool) -> None:
        if self._view is not None:
            self._view.zoom(inwards)
            self._draw()

    def action_whole(self) -> None:
        if self._view is not None:
            self._view.whole()
            self._draw()

    def action_pan(self, by: int) -> None:
        if self._view is not None:
            self._view.pan(by)
            self._draw()

    def action_newest(self) -> None:
        if self._view is not None:
            self._view.go_to_newest()
            self._station.say("following the newest step")
            self._draw()

    def action_pause(self) -> None:
        if self._view is not None:
            paused = self._view.pause()
            self._station.say("paused: all is collected, nothing new is drawn; p goes on" if paused else "going on")
            self.post_message(self.Paused())
            self._draw()

    def action_smoothing(self) -> None:
        if self._view is not None:
            self._station.say(f"smoothing: {self._view.next_smoothing()}")
            self._draw()

    def action_log_scale(self) -> None:
        if self._view is not None:
            self._view.log = not self._view.log
            self._station.say("logarithmic where all values are above 0" if self._view.log else "linear")
            self._draw()

    def action_arrange(self) -> None:
        glance, curves = self._glance, self._curves
        if glance is not None and curves is not None:
            method = glance.summary.method
            panels = panels_known(glance, curves)
            self.app.push_screen(
                ArrangePanels(method, panels, self._choice(method)), lambda choice: self._arranged(method, choice)
            )

    def clear_cross(self) -> bool:
        """Take the crosshair away; whether there was one."""
        if self._view is None or self._view.cross is None:
            return False
        self._view.cross = None
        self._station.say("")
        self._draw()
        return True

    def _arranged(self, method: str, choice: tuple[str, ...] | None) -> None:
        if choice is not None:
            self._station.workbench_app.keep_panels(method, choice)
            self._draw()

    @property
    def _station(self) -> Station:
        return cast("Station", self.screen)

    def _choice(self, method: str) -> tuple[str, ...]:
        return tuple(self._station.workbench_app.settings.curves.get(method, ()))

    def _draw(self) -> None:
        glance, curves, view = self._glance, self._curves, self._view
        if glance is None or curves is None or view is None:
            return
        pages = self.pages
        self.show(scenes_of(glance, curves, view, self._choice(glance.summary.method), self._health), view.metrics)
        if view.cross is not None:
            self._station.say(view.cross_words(glance.events))
        if self.pages != pages:
            self.screen.refresh_bindings()
