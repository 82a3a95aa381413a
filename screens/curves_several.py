"""Several runs in the same panels: overlaid curves, a pinned baseline, seeds as a mean, and a table of what differs.

Owns what is shown of several runs and its keys. Invariants: it only reads, once a second, in a thread; nothing here
stops or changes a run. What the runs come to is `workbench.run_comparison`'s, how they are drawn `overlay_view`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Resize
from textual.widget import Widget

from screens.curves_choice import ask_for_runs
from screens.line import Line
from screens.narrow_updates import NarrowCompositor, draw_now
from screens.plot_grid import PlotGrid
from screens.station import Station
from screens.text_view import Block, TextView
from workbench.errors import WorkbenchError
from workbench.overlay_view import STYLES, OverlayView
from workbench.plot_canvas import PALETTE
from workbench.run_list import STATE_MARKS
from workbench.several_runs import Seen, SeveralRuns, letter_of, table_lines, what_differs

LOOK_EVERY_S = 1.0
MOST_LEGEND_LINES = 8
TABLE_COLUMN = 20
_STROKES = dict(zip(STYLES, "─┄┈╌", strict=True))


class SeveralCurves(Station):
    """Several runs and their curves."""

    NAME = "several"
    TITLE = "runs"
    CSS_PATH = "curves_several.tcss"
    AUTO_FOCUS = ""
    LATER_KEYS = tuple(f"several.{name}" for name in ("x_axis", "log_scale", "smoothing"))
    HELP = (
        "Several runs in the same panels. Each has a letter, which stands on its curves, a line and a colour; the "
        "first is the baseline, which b passes on to the next run. Runs that differ by their seed alone are one curve, "
        "their mean with its standard error as bars; g shows each by itself.\n\n"
        "The table says which settings differ, and of every metric the best value with its step, or the last where "
        "neither direction is better. * is the best. ≠ stands before what cannot be held against the baseline: other "
        "held-out data, another reward model, another reference."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "table", "table", id="several.table", tooltip="Settings that differ, and best and last values."),
        Binding("o", "choose", "choose", id="several.choose", tooltip="Other runs, by a pattern."),
        Binding("b", "baseline", "baseline", id="several.baseline", tooltip="The next run becomes the baseline."),
        Binding("g", "group", "seeds", id="several.group", tooltip="Runs of one seed each, or their mean."),
        Binding("j,pagedown,space", "page(1)", "more", id="several.more", tooltip="The panels that did not fit."),
        Binding("k,pageup", "page(-1)", "", show=False, id="several.before", tooltip="The panels before these."),
        Binding("right", "cross(1)", "", show=False, id="several.cross_right", tooltip="The crosshair to the right."),
        Binding("left", "cross(-1)", "", show=False, id="several.cross_left", tooltip="The crosshair to the left."),
        Binding("x", "next_axis", "x axis", id="several.x_axis", tooltip="Over steps, tokens, episodes, or time."),
        Binding("L", "log_scale", "log y", id="several.log_scale", tooltip="A logarithmic axis where values allow."),
        Binding("e", "smoothing", "smooth", id="several.smoothing", tooltip="How strongly curves are smoothed."),
        Binding("plus,equals_sign", "zoom(True)", "", show=False, id="several.zoom_in", tooltip="Half of the axis."),
        Binding("minus", "zoom(False)", "", show=False, id="several.zoom_out", tooltip="Twice as much of it."),
        Binding("0", "whole", "", show=False, id="several.whole", tooltip="All of the x axis."),
        Binding("greater_than_sign", "pan(1)", "", show=False, id="several.pan_right", tooltip="Further along."),
        Binding("less_than_sign", "pan(-1)", "", show=False, id="several.pan_left", tooltip="Back along."),
        Binding("full_stop", "columns(1)", "more runs", key_display=".", id="several.next_columns",
                tooltip="In the table, the runs that did not fit."),
        Binding("comma", "columns(-1)", "", show=False, id="several.previous_columns",
                tooltip="In the table, the runs before these."),
    ]  # fmt: skip

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._compositor = NarrowCompositor()
        self._runs: SeveralRuns | None = None
        self._seen: Seen | None = None
        self._view = OverlayView()
        self._table = False
        self._first_column = 1

    def compose_body(self) -> Iterable[Widget]:
        yield Line(id="warning")
        yield Vertical(*(Line(classes="legend") for _ in range(MOST_LEGEND_LINES)), id="legend")
        yield PlotGrid(plain=self.workbench_app.plain, id="plots")
        yield TextView(id="table")

    def on_mount(self) -> None:
        try:
            self._runs = SeveralRuns(self.workspace, self.subject or "/")
        except WorkbenchError as error:
            self.query_one("#warning", Line).show((self.workbench_app.here(str(error)), "$error"))
            self.query_one("#warning").set_class(True, "-there")
            return
        self.watch_files(self._look, self._show, every_s=LOOK_EVERY_S)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        there = self._seen is not None and bool(self._seen.runs)
        match action:
            case "group":
                return there and self._view.has_groups
            case "page":
                return there and not self._table and self._plots.pages > 1
            case "cross" | "next_axis" | "zoom" | "whole" | "pan" | "log_scale" | "smoothing":
                return there and not self._table
            case "columns":
                return there and self._table and self._seen is not None and len(self._seen.runs) > self._columns
            case "table" | "baseline":
                return there
        return True

    def on_resize(self, event: Resize) -> None:
        if self._seen is not None:
            self._show_legend(self._seen)

    def _look(self) -> Seen | None:
        return self._runs.look() if self._runs is not None else None

    @property
    def _plots(self) -> PlotGrid:
        return self.query_one("#plots", PlotGrid)

    def _show(self, seen: Seen | None) -> None:
        if seen is None:
            return
        first = self._seen is None
        self._seen = seen
        self._view.take(seen)
        self.say_where(f"{len(seen.runs)} in the same panels")
        warnings = " ".join(seen.comparison.warnings) if seen.comparison else "no run is found; o looks for others"
        if seen.left_out:
            warnings = f"{seen.left_out:,} older runs are left out. {warnings}"
        line = self.query_one("#warning", Line)
        line.show((warnings, "$text-muted"))
        line.set_class(bool(warnings), "-there")
        self._show_legend(seen)
        self._draw()
        if first:
            self.refresh_bindings()

    def _draw(self) -> None:
        if self._seen is None:
            return
        if self._table:
            self._show_table(self._seen)
            return
        pages = self._plots.pages
        self._plots.show(*self._view.drawn())
        if self._view.cross is not None:
            self.say(self._view.cross_words())
        if self._plots.pages != pages:
            self.refresh_bindings()
        self._send()

    def _send(self) -> None:
        """The panels go out with the key, and what is said of it."""
        draw_now(self, *self._plots.plots, self.query_one("#message"))

    @property
    def _columns(self) -> int:
        """Runs that fit into the table."""
        return max(1, (max(40, self.size.width - 3) - 24) // TABLE_COLUMN)

    def _show_legend(self, seen: Seen) -> None:
        room = max(2, min(MOST_LEGEND_LINES, self.size.height // 6))
        curves = self._view.groups
        lines = list(self.query(".legend").results(Line))
        for row, line in enumerate(lines):
            there = row < min(room, len(curves)) and seen.comparison is not None
            line.display = there
            if not there or seen.comparison is None:
                continue
            if row == room - 1 and len(curves) > room:
                line.show((f" … and {len(curves) - row:,} more; m lists all", "$text-muted"))
                continue
            place = curves[row][0]
            number = seen.marks[place]
            mark = STATE_MARKS.get(seen.glances[place].summary.state, "·")
            more = f" as the mean of {len(curves[row])} seeds" if len(curves[row]) > 1 else ""
            baseline = " · baseline" if place == 0 else ""
            colour = PALETTE[number % len(PALETTE)]
            line.show(
                (f" {letter_of(number)} {_STROKES[STYLES[number % len(STYLES)]] * 2} ", f"bold {colour}"),
                f"{mark} {seen.runs[place].run.id}{more}{baseline}  ",
                (what_differs(seen.comparison, curves[row]), "$text-muted"),
            )

    def _show_table(self, seen: Seen) -> None:
        if seen.comparison is None:
            return
        table = self.query_one("#table", TextView)
        width = max(40, self.size.width - 3)
        fits = self._columns
        others = range(1, len(seen.runs))
        self._first_column = max(1, min(self._first_column, len(seen.runs) - fits + 1))
        shown = [0, *others[self._first_column - 1 : self._first_column - 1 + fits - 1]]
        if fits == 1 and len(others):
            shown = [self._first_column]
        letters = [letter_of(mark) for mark in seen.marks]
        table.show([Block(line, style) for line, style in table_lines(seen.comparison, letters, shown, width)])

    # Keys.

    def action_table(self) -> None:
        self._table = not self._table
        self.say("")
        self.set_class(self._table, "-table")
        self.set_focus(self.query_one("#table") if self._table else None)
        self.refresh_bindings()
        self._draw()

    def action_back(self) -> None:
        if self._table and self._job is None and not self.too_small:
            self.action_table()
        elif self._view.cross is not None and self._job is None and not self.too_small:
            self._view.cross = None
            self.say("")
            self._draw()
        else:
            super().action_back()

    def action_choose(self) -> None:
        named, _, pattern = self.subject.partition("/")
        first = self._seen.runs[0].run.id if self._seen and self._seen.runs else named.split(",")[0]
        ask_for_runs(self, first, pattern)

    def action_baseline(self) -> None:
        if self._runs is not None and self._seen is not None:
            self.say(f"baseline: {self._runs.next_baseline(self._seen)}")
            self.wake()

    def action_group(self) -> None:
        self._view.grouped = not self._view.grouped
        self.say("seeds as their mean, with its standard error" if self._view.grouped else "each run by itself")
        if self._seen is not None:
            self._show_legend(self._seen)
        self._draw()

    def action_page(self, by: int) -> None:
        self._plots.turn(by)
        self.say(f"panels {self._plots.page} of {self._plots.pages}")
        self._send()

    def action_columns(self, by: int) -> None:
        self._first_column += by
        self._draw()

    def action_cross(self, by: int) -> None:
        self._view.move_cross(by)
        self._draw()

    def action_next_axis(self) -> None:
        self.say(f"over {self._view.next_axis()}")
        self._draw()

    def action_log_scale(self) -> None:
        self._view.log = not self._view.log
        self._draw()

    def action_smoothing(self) -> None:
        self.say(f"smoothing: {self._view.next_smoothing()}")
        self._draw()

    def action_zoom(self, inwards: bool) -> None:
        self._view.zoom(inwards)
        self._draw()

    def action_whole(self) -> None:
        self._view.whole()
        self._draw()

    def action_pan(self, by: int) -> None:
        self._view.pan(by)
        self._draw()
