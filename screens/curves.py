"""Curves: one run under watch, live or long over: its panels, its samples, its log, all its metrics.

Owns what is shown of a run and its keys. Invariants: it only reads, four times a second at most, in a thread; leaving
it changes nothing for the run; stopping asks first. What the numbers mean is `workbench.curve_panels`', how they are
drawn is `curves_plots`'; the samples are `curves_samples`'.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from engine.run.reference_policy import reference_name
from screens.curves_choice import ask_for_runs
from screens.curves_plots import PlotsPage
from screens.curves_samples import SamplesPage
from screens.line import Line
from screens.modals import AskText
from screens.narrow_updates import NarrowCompositor
from screens.row_list import Column, Row, RowList
from screens.run_orders import ask_to_stop, resume
from screens.station import Station
from screens.text_view import Block, TextView
from workbench.curve_words import is_alive, is_resumable, metric_rows, neighbour, state_words, tone_of
from workbench.curves import Glance, RunCurves
from workbench.errors import NotFound, WorkbenchError
from workbench.plot_canvas import in_ascii
from workbench.run_board import log_tail
from workbench.run_health import Health, health_of
from workbench.run_list import Run, find_run
from workbench.run_samples import RunSamples

LOOK_EVERY_S = 0.25
VIEWS = ("samples", "log", "metrics")
COLUMNS = (
    Column("metric", flexible=True),
    Column("last", right=True, longest=10),
    Column("step", right=True, longest=9),
    Column("shape", longest=16),
    Column("unit", longest=9, drop=1),
    Column("what it is", longest=70, drop=2),
)
Look = tuple[RunCurves | None, Glance | None, int, tuple[str, ...]]
"""Whose they are, the run, how many samples there are, the end of the log; the last two only where they are looked at.
"""


class Curves(Station):
    """A run and its curves."""

    NAME = "curves"
    TITLE = "curves"
    CSS_PATH = "curves.tcss"
    AUTO_FOCUS = "#plots"
    LATER_KEYS = tuple(f"curves.{name}" for name in ("x_axis", "pause", "smoothing", "log_scale", "arrange"))
    """Named on the key line where there is room behind the others."""
    HELP = (
        "The metrics of one run, as it writes them; ref names the model that its KL, and the loss of DPO, are measured "
        "against. Each panel says what it shows and in which unit, with the last values. A thin curve is every value, "
        "the strong one over it is smoothed; ◆ marks held-out data. A dotted line is a value to compare with: ln 2 is "
        "where the loss of DPO begins, chance is 0.5. The sampled KL, k1 over completions of the policy itself, has "
        "its standard error as bars. × on the axis marks values that are no number, ┴ a checkpoint, ▲ where a run went "
        "on after an end, ◊ settings that were changed then, ! an alarm. No spike is hidden, at any width.\n\n"
        "The sentence above the panels says whether the run is healthy, and what to do where it is not; the panels "
        "that it speaks of have a ! before their title. target and alarm are the limits of the run's own alarms. The "
        "arrows move a crosshair: the titles then say the exact values there, the last line the step, the tokens and "
        "the time. + and - zoom, < and > move along, 0 shows all, f follows the newest step.\n\n"
        "The samples are the model's answers, a prompt at a time: n and N go through the steps, j and k through the "
        "prompts. Words are marked that another step's answer has not (b says which step), or tokens by their "
        "log-ratio to the reference. F flags an answer, and M makes a pair set of all flagged ones.\n\n"
        "Nothing here touches the run, but S and R: S finishes the step, writes a checkpoint and ends; R goes on from "
        "the newest checkpoint. Leave as you like, the run goes on."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "view('')", "curves", id="curves.curves", tooltip="Back to the curves."),
        Binding("s", "view('samples')", "samples", id="curves.samples", tooltip="What the model says, step by step."),
        Binding("l", "view('log')", "log", id="curves.log", tooltip="The end of its log, as it grows."),
        Binding("slash", "search_log", "search", key_display="/", id="curves.search_log",
                tooltip="In the log, keep the lines that hold a text."),
        Binding("m", "view('metrics')", "metrics", id="curves.metrics", tooltip="Every metric with its last value."),
        Binding("enter,a", "compare", "compare", key_display="enter", id="curves.compare",
                tooltip="Its answers beside another model's."),
        Binding("t", "launch", "new run", id="curves.launch", tooltip="The form that starts a run."),
        Binding("S", "stop", "stop", id="curves.stop",
                tooltip="Finish the step, write a checkpoint, end; it asks first."),
        Binding("R", "resume", "resume", id="curves.resume", tooltip="Go on from the newest checkpoint."),
        Binding("o", "overlay", "overlay", id="curves.overlay",
                tooltip="Other runs in the same panels, by a pattern; this one is the baseline."),
        Binding("full_stop", "neighbour_run(1)", "next run", key_display=".", id="curves.next",
                tooltip="The run after this one."),
        Binding("comma", "neighbour_run(-1)", "run before", key_display=",", id="curves.previous",
                tooltip="The run before this one."),
    ]  # fmt: skip

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._compositor = NarrowCompositor()
        self._view = ""
        self._looked: Look | None = None
        self._searched = ""
        """What is looked for in the log."""
        self._curves: RunCurves | None = None
        self._samples: RunSamples | None = None
        self._run: Run | None = None

    @property
    def help_words(self) -> str:
        """With the marks that are drawn: in ASCII they are other ones."""
        return in_ascii(self.HELP) if self.workbench_app.plain else self.HELP

    def compose_body(self) -> Iterable[Widget]:
        plain = self.workbench_app.plain
        yield Line(id="state")
        yield Line(id="reason")
        yield Line(id="health")
        yield PlotsPage(plain=plain, id="plots")
        yield SamplesPage(id="samples")
        yield TextView(id="log", follow=True)
        yield RowList(COLUMNS, empty="no metrics yet", id="metrics")

    def on_mount(self) -> None:
        self._find(self.subject or "-")
        self.watch_files(self._look, self._show, every_s=LOOK_EVERY_S)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        summary = self._glance.summary if self._glance else None
        match action:
            case "search_log":
                return self._view == "log"
            case "view":
                return summary is not None and parameters[0] != self._view
            case "stop":
                return summary is not None and is_alive(summary)
            case "resume":
                return summary is not None and is_resumable(summary)
            case "compare":
                return summary is not None and not is_alive(summary) and self._view != "metrics"
            case "launch":
                return summary is None
            case "neighbour_run" | "overlay":
                return self._curves is not None
        return True

    # What it reads, in a thread.

    def _find(self, reference: str) -> None:
        try:
            run = find_run(self.workspace, reference)
        except WorkbenchError as error:
            self._curves = self._samples = self._run = None
            self._plots.show_run(None)
            none_yet = reference == "-" and isinstance(error, NotFound)
            words = "no runs yet; t starts one" if none_yet else self.workbench_app.here(str(error))
            self.query_one("#state", Line).show((words, "$text-muted"))
            return
        self.subject = run.id
        self._curves, self._samples, self._looked, self._run = RunCurves(run), RunSamples(run.folder), None, run
        self._plots.show_run(self._curves)
        self.query_one("#samples", SamplesPage).show_run(run, self._samples)
        self.say_where(run.id)

    def _look(self) -> Look:
        curves, samples, run = self._curves, self._samples, self._run
        if curves is None or samples is None or run is None:
            # So that the first run is noticed.
            return None, None, 0, tuple(self.workspace.names("runs"))
        glance = curves.look()
        if glance.more:
            self.call_later(self.wake)
        view = self._view
        return curves, glance, samples.read() if view == "samples" else 0, tuple(log_tail(run)) if view == "log" else ()

    # What it shows.

    @property
    def _glance(self) -> Glance | None:
        return self._looked[1] if self._looked else None

    @property
    def _plots(self) -> PlotsPage:
        return self.query_one("#plots", PlotsPage)

    def _show(self, look: Look) -> None:
        of, glance, _, log = look
        if of is not self._curves:
            return  # another run is shown meanwhile; it is looked at next
        before, self._looked = self._looked, look
        if glance is None or self._curves is None:
            self._find(self.subject or "-")
            self.refresh_bindings()
            return
        health = health_of(glance.summary, self._curves.log, self._curves.config)
        self._show_state(glance, health)
        match self._view:
            case "samples":
                self.query_one("#samples", SamplesPage).show(self._curves.log.superseded)
            case "log":
                self._show_log(log)
            case "metrics":
                self._show_metrics()
            case _:
                self._plots.take(glance, health)
        before_state = before[1].summary.state if before and before[1] else ""
        if before_state != glance.summary.state:
            self.refresh_bindings()

    def _show_state(self, glance: Glance, health: Health) -> None:
        summary = glance.summary
        style = {"good": "$success", "bad": "$error", "busy": "$accent"}.get(tone_of(summary), "")
        assert self._curves is not None
        config = self._curves.config
        reference = f" · ref {reference_name(config)}" if config and reference_name(config) else ""
        self.say_where(f"{summary.id}{reference}")
        mark, _, words = state_words(summary, glance.step).partition(" · ")
        if self._plots.look is not None and self._plots.look.paused_at is not None:
            words = f"drawing paused at step {self._plots.look.paused_at:,} · {words}"
        self.query_one("#state", Line).show((mark, f"bold {style}".strip()), f" · {words}")
        reason = self.workbench_app.here(summary.reason)
        if glance.missing and self._curves.log.metrics:
            reason = f"metrics.jsonl is gone; these are the curves read before. {reason}"
        first = (reason, summary.note) if tone_of(summary) == "bad" else (summary.note, reason)
        reason = " · ".join(part for part in first if part)
        _put(self.query_one("#reason", Line), reason, style or "$text-muted")
        mark, tone = {"bad": ("▲ ", "bold $error"), "good": ("✓ ", "$success")}.get(health.tone, ("", "$text-muted"))
        line, words = self.query_one("#health", Line), f"{mark}{health.words}" if health.words else ""
        _put(line, words, tone)
        # What to do stands at the end of a sentence about what is wrong.
        line.set_class(health.tone == "bad" and len(words) > self.size.width - 2, "-long")

    def _show_log(self, log: tuple[str, ...]) -> None:
        wanted = self._searched.casefold()
        lines = [line for line in log if wanted in line.casefold()]
        nothing = f"no line of the last {len(log):,} holds {self._searched!r}" if wanted else "the log is empty"
        self.query_one("#log", TextView).show([Block("\n".join(lines) or nothing)])

    def _show_metrics(self) -> None:
        if self._curves is not None:
            rows = metric_rows(self._curves.log, plain=self.workbench_app.plain)
            self.query_one("#metrics", RowList).show([Row(name, cells) for name, cells in rows])

    # Keys.

    def action_view(self, view: str) -> None:
        self._view = view
        self.say("")  # what was said of another view, the page of its panels or its crosshair, is of no use here
        for name in VIEWS:
            self.set_class(name == view, f"-{name}")
        self.refresh_bindings()
        focus = {"samples": "#samples-text", "log": "#log", "metrics": "#metrics"}.get(view, "#plots")
        self.set_focus(self.query_one(focus))
        if self._looked is not None:
            self._show(self._looked)
        self.wake()

    def on_plots_page_paused(self) -> None:
        if self._looked is not None:
            self._show(self._looked)

    def action_back(self) -> None:
        # Esc leaves the samples, the log or the table for the curves, there the crosshair, and only then the screen.
        if self._view and self._job is None and not self.too_small:
            self.action_view("")
        elif self._job is None and not self.too_small and self._plots.clear_cross():
            return
        else:
            super().action_back()

    def action_neighbour_run(self, by: int) -> None:
        wanted = neighbour(self.workspace, self.subject, by)
        if not wanted or wanted == self.subject:
            self.say("there is no run after this one" if by > 0 else "there is no run before this one")
            return
        self._find(wanted)
        self.workbench_app.subjects["curves"] = wanted
        self.say("")
        self.wake()

    def action_compare(self) -> None:
        self.workbench_app.go("compare", self.subject)

    def action_search_log(self) -> None:
        def search(text: str | None) -> None:
            if text is not None:
                self._searched = text
                self.say(f"the lines that hold {text!r}; / and nothing shows all" if text else "")
                if self._looked is not None:
                    self._show(self._looked)

        self.app.push_screen(AskText("Which lines of the log? Empty for all.", value=self._searched), search)

    def action_overlay(self) -> None:
        ask_for_runs(self, self.subject)

    def action_launch(self) -> None:
        self.workbench_app.go("launch")

    def action_stop(self) -> None:
        if self._run is not None:
            ask_to_stop(self, self._run, self._asked)

    def action_resume(self) -> None:
        if self._run is not None:
            resume(self, self._run, self._asked)

    def _asked(self, words: str) -> None:
        self.workbench_app.tell(words)
        if self._curves is not None:
            self._curves.forget_state()
        self.wake()


def _put(line: Line, words: str, style: str) -> None:
    """Say something on a line that takes no room where there is nothing to say."""
    line.show((words, style))
    line.set_class(bool(words), "-there")
