"""Curves: one run under watch, live or long over: its panels, its samples, its log, all its metrics.

Owns what is shown of a run and its keys. Invariants: it only reads, four times a second at most, in a thread; leaving
it changes nothing for the run; stopping asks first. What the numbers mean is `workbench.curve_panels`', how they are
drawn is `plot`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widget import Widget

from engine.run.reference_policy import reference_name
from screens.line import Line
from screens.modals import Choice, Question
from screens.narrow_updates import NarrowCompositor
from screens.plot_grid import PlotGrid
from screens.row_list import Column, Row, RowList
from screens.station import Station
from screens.tasks import Task
from screens.text_view import Block, TextView
from workbench.curve_panels import panels_of, why_empty
from workbench.curve_words import is_alive, is_resumable, metric_rows, neighbour, state_words, tone_of
from workbench.curves import Glance, RunCurves, x_range
from workbench.errors import NotFound, WorkbenchError
from workbench.plot_canvas import in_ascii
from workbench.plot_drawing import Scene
from workbench.run_board import log_tail
from workbench.run_list import Run, find_run
from workbench.run_samples import Place, RunSamples, Sample, summary_of

LOOK_EVERY_S = 0.25
VIEWS = ("samples", "log", "metrics")
SHOWN_SAMPLES = 64
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
    AUTO_FOCUS = ""
    HELP = (
        "The metrics of one run, as it writes them; ref names the model that its KL, and the loss of DPO, are measured "
        "against. Each panel says what it shows and in which unit, with the last values. A thin curve is every value, "
        "the strong one over it is smoothed; ◆ marks held-out data. A dotted line is a value to compare with: ln 2 is "
        "where the loss of DPO begins, chance is 0.5. The sampled KL, k1 over completions of the policy itself, has "
        "its standard error as bars. × on the axis marks values that are no number, ┴ a checkpoint, ▲ where a run went "
        "on after an end, ! an alarm: what it is stands above the panels, with what to do. No spike is hidden, at any "
        "width.\n\n"
        "Nothing here touches the run, but S and R: S finishes the step, writes a checkpoint and ends; R goes on from "
        "the newest checkpoint. Leave as you like, the run goes on."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "view('')", "curves", id="curves.curves", tooltip="Back to the curves."),
        Binding("s", "view('samples')", "samples", id="curves.samples", tooltip="What the model says, step by step."),
        Binding("n,right", "step(1)", "later", id="curves.later", tooltip="The samples of the next step."),
        Binding("N,left", "step(-1)", "earlier", id="curves.earlier", tooltip="The samples of the step before."),
        Binding("l", "view('log')", "log", id="curves.log", tooltip="The end of its log, as it grows."),
        Binding("m", "view('metrics')", "metrics", id="curves.metrics", tooltip="Every metric with its last value."),
        Binding("j,down,pagedown,space", "page(1)", "more", id="curves.more", tooltip="The panels that did not fit."),
        Binding("k,up,pageup", "page(-1)", "", show=False, id="curves.before", tooltip="The panels before these."),
        Binding("enter,a", "compare", "compare", key_display="enter", id="curves.compare",
                tooltip="Its answers beside another model's."),
        Binding("t", "launch", "new run", id="curves.launch", tooltip="The form that starts a run."),
        Binding("S", "stop", "stop", id="curves.stop",
                tooltip="Finish the step, write a checkpoint, end; it asks first."),
        Binding("R", "resume", "resume", id="curves.resume", tooltip="Go on from the newest checkpoint."),
        Binding("L", "log_scale", "log y", id="curves.log_scale", tooltip="A logarithmic axis where values allow it."),
        Binding("full_stop", "neighbour_run(1)", "next run", key_display=".", id="curves.next",
                tooltip="The run after this one."),
        Binding("comma", "neighbour_run(-1)", "run before", key_display=",", id="curves.previous",
                tooltip="The run before this one."),
    ]  # fmt: skip

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._compositor = NarrowCompositor()
        self._view = ""
        self._log_scale = False
        self._looked: Look | None = None
        self._place: Place | None = None
        """Where in the samples; None follows the newest."""
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
        yield PlotGrid(plain=plain, id="plots")
        yield Container(Line(id="place"), TextView(id="samples-text"), id="samples")
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
            case "view":
                return summary is not None and parameters[0] != self._view
            case "step":
                return self._view == "samples"
            case "page":
                return self._view == "" and self._plots.pages > 1
            case "log_scale":
                return summary is not None and self._view == ""
            case "stop":
                return summary is not None and is_alive(summary)
            case "resume":
                return summary is not None and is_resumable(summary)
            case "compare":
                return summary is not None and not is_alive(summary) and self._view != "metrics"
            case "launch":
                return summary is None
            case "neighbour_run":
                return self._curves is not None
        return True

    # What it reads, in a thread.

    def _find(self, reference: str) -> None:
        try:
            run = find_run(self.workspace, reference)
        except WorkbenchError as error:
            self._curves = self._samples = self._run = None
            none_yet = reference == "-" and isinstance(error, NotFound)
            words = "no runs yet; t starts one" if none_yet else self.workbench_app.here(str(error))
            self.query_one("#state", Line).show((words, "$text-muted"))
            return
        self.subject = run.id
        self._curves, self._place, self._looked = RunCurves(run), None, None
        self._samples, self._run = RunSamples(run.folder), run
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
    def _plots(self) -> PlotGrid:
        return self.query_one("#plots", PlotGrid)

    def _show(self, look: Look) -> None:
        of, glance, _, log = look
        if of is not self._curves:
            return  # another run is shown meanwhile; it is looked at next
        before, self._looked = self._looked, look
        if glance is None or self._curves is None:
            self._find(self.subject or "-")
            self.refresh_bindings()
            return
        self._show_state(glance)
        match self._view:
            case "samples":
                self._show_samples()
            case "log":
                self.query_one("#log", TextView).show([Block("\n".join(log) or "the log is empty")])
            case "metrics":
                self._show_metrics()
            case _:
                self._show_plots()
        before_state = before[1].summary.state if before and before[1] else ""
        if before_state != glance.summary.state:
            self.refresh_bindings()

    def _show_state(self, glance: Glance) -> None:
        summary = glance.summary
        style = {"good": "$success", "bad": "$error", "busy": "$accent"}.get(tone_of(summary), "")
        assert self._curves is not None
        config = self._curves.config
        reference = f" · ref {reference_name(config)}" if config and reference_name(config) else ""
        self.say_where(f"{summary.id}{reference}")
        mark, _, words = state_words(summary, glance.step).partition(" · ")
        self.query_one("#state", Line).show((mark, f"bold {style}".strip()), f" · {words}")
        reason = self.workbench_app.here(summary.reason)
        if glance.missing and self._curves.log.metrics:
            reason = f"metrics.jsonl is gone; these are the curves read before. {reason}"
        if summary.alarm:
            reason, style = f"{reason}{' · ' if reason else ''}alarm: {summary.alarm}", "$error"
        line = self.query_one("#reason", Line)
        line.show((reason, style or "$text-muted"))
        line.set_class(bool(reason), "-there")

    def _show_plots(self) -> None:
        glance, curves = self._glance, self._curves
        if glance is None or curves is None:
            return
        summary, log = glance.summary, curves.log
        over = not is_alive(summary)
        first, last = x_range(max(0, log.last_step), summary.total_steps, over=over)
        panels = panels_of(summary.method, list(log.metrics), curves.config)
        scenes = [
            Scene(
                panel, first, last, glance.events,
                why_empty(panel, curves.config, summary.total_steps, over=over), self._log_scale,
            )
            for panel in panels
        ]  # fmt: skip
        pages = self._plots.pages
        self._plots.show(scenes, log)
        if self._plots.pages != pages:
            self.refresh_bindings()

    def _show_metrics(self) -> None:
        if self._curves is not None:
            rows = metric_rows(self._curves.log, plain=self.workbench_app.plain)
            self.query_one("#metrics", RowList).show([Row(name, cells) for name, cells in rows])

    # Samples.

    def _places(self) -> list[Place]:
        if self._samples is None or self._curves is None:
            return []
        return self._samples.places(self._curves.log.superseded)

    def _show_samples(self) -> None:
        places = self._places()
        line, page = self.query_one("#place", Line), self.query_one("#samples-text", TextView)
        if not places or self._samples is None or self._curves is None:
            line.show(("no samples yet: they come with the probe", "$text-muted"))
            page.show([])
            return
        at = places.index(self._place) if self._place in places else len(places) - 1
        place = places[at]
        found = self._samples.at(place, self._curves.log.superseded)
        where = f"step {place[0]:,} · {place[1]}"
        line.show((where, "bold"), f" · {at + 1} of {len(places)} · {summary_of(found)}")
        page.show(_sample_blocks(found))

    def action_step(self, by: int) -> None:
        places = self._places()
        if places:
            at = places.index(self._place) if self._place in places else len(places) - 1
            wanted = max(0, min(len(places) - 1, at + by))
            # At the newest it follows: what comes then is shown by itself.
            self._place = None if wanted == len(places) - 1 else places[wanted]
            self._show_samples()

    # Keys.

    def action_view(self, view: str) -> None:
        self._view = view
        for name in VIEWS:
            self.set_class(name == view, f"-{name}")
        self.refresh_bindings()
        focus = {"samples": "#samples-text", "log": "#log", "metrics": "#metrics"}.get(view)
        self.set_focus(self.query_one(focus) if focus else None)
        if self._looked is not None:
            self._show(self._looked)
        self.wake()

    def action_back(self) -> None:
        # Esc leaves the samples, the log or the table for the curves, and only these for the screen before.
        if self._view and self._job is None and not self.too_small:
            self.action_view("")
        else:
            super().action_back()

    def action_page(self, by: int) -> None:
        self._plots.turn(by)
        self.say(f"panels {self._plots.page} of {self._plots.pages}")

    def action_log_scale(self) -> None:
        self._log_scale = not self._log_scale
        self.say("logarithmic where all values are above 0" if self._log_scale else "linear")
        self._show_plots()

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

    def action_launch(self) -> None:
        self.workbench_app.go("launch")

    def action_stop(self) -> None:
        question = Question(
            f"Stop {self.subject}?",
            [Choice("S", "stop it")],
            details="It finishes its step, writes a checkpoint and ends; R resumes it.",
        )
        self.app.push_screen(question, lambda answer: self._stop() if answer else None)

    def _stop(self) -> None:
        from workbench.run_control import stop_run

        if self._curves is not None:
            run = self._curves.run
            self.start_task(
                f"stopping {run.id}", lambda task: stop_run(run), lambda _: self._asked(f"{run.id} was asked to stop")
            )

    def action_resume(self) -> None:
        from workbench.run_control import prepare_resume
        from workbench.run_launch import start_run

        if self._curves is None:
            return
        run = self._curves.run

        def work(task: Task) -> None:
            prepare_resume(run)
            task.check()
            start_run(run)

        self.start_task(f"resuming {run.id}", work, lambda _: self._asked(f"{run.id} goes on"))

    def _asked(self, words: str) -> None:
        self.workbench_app.tell(words)
        if self._curves is not None:
            self._curves.forget_state()
        self.wake()


def _sample_blocks(samples: list[Sample]) -> list[Block]:
    blocks: list[Block] = []
    for sample in samples[:SHOWN_SAMPLES]:
        blocks += [
            Block(sample.prompt, "faint"), Block(sample.completion or "(nothing)", "plain", 2),
            Block(sample.figures, "accent", 2), Block(""),
        ]  # fmt: skip
    if len(samples) > SHOWN_SAMPLES:
        blocks.append(Block(f"and {len(samples) - SHOWN_SAMPLES:,} more in samples.jsonl", "faint"))
    return blocks
