"""Home: the loop as a line of stations with what is in each, what wants doing next, the latest runs, the GPUs.

A person opens the program to learn where they stand and to go on: the first suggestion is under the cursor, Enter
does it. Tab goes to the runs, Enter there opens a run's curves; a letter goes to a station; `[` and `]` move along
the loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget

from screens.line import Line
from screens.loop_line import LoopLine
from screens.row_list import Column, Row, RowList
from screens.station import Station
from workbench.run_list import ALIVE, STATE_MARKS, STATE_TONES, RunSummary
from workbench.run_watch import main_figure
from workbench.terminal_output import number, time_left

if TYPE_CHECKING:
    from workbench.gpu_holders import GpuUse
    from workbench.loop_overview import LoopReader, NextStep, Overview

MOST_GPU_LINES = 8
LOOK_EVERY_S = 1.5
GPUS_EVERY_S = 5.0


class Home(Station):
    """Where a person stands in the loop."""

    NAME = "home"
    TITLE = "workbench"
    CSS_PATH = "home.tcss"
    AUTO_FOCUS = "#steps"
    HELP = (
        "The line on top is the loop: data, pairs of answers, labels, frozen preferences, runs, curves, comparisons, "
        "and round again. Under each station stands what is in it.\n\n"
        "“next” names what wants doing, the most urgent first. Enter does it."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "go('datasets')", "datasets", id="home.datasets", tooltip="Datasets and preference sets."),
        Binding("p", "go('pairs')", "pairs", id="home.pairs", tooltip="Pair sets: make, label, freeze."),
        Binding("l", "go('label')", "label", id="home.label", tooltip="Judge pairs."),
        Binding("t", "go('launch')", "train", id="home.train", tooltip="Start a run."),
        Binding("r", "go('runs')", "runs", id="home.runs", tooltip="All runs."),
        Binding("v", "go('curves')", "curves", id="home.curves", tooltip="Watch the latest run."),
        Binding("c", "go('compare')", "compare", id="home.compare", tooltip="Compare models."),
        Binding("q,escape", "back", "quit", id="back", tooltip="Leave; it asks first, and no run is stopped by it."),
        Binding("a", "go('add')", "add data", show=False, id="home.add", tooltip="Add a dataset."),
    ]

    def compose_body(self) -> Iterable[Widget]:
        yield LoopLine(id="loop")
        yield Line((" next", "bold $primary"), classes="section")
        yield RowList([Column("what", flexible=True)], empty="", titles=False, waits=True, id="steps")
        yield Line((" runs", "bold $primary"), classes="section")
        yield RowList(
            [
                Column("run", longest=30),
                Column("state", longest=14),
                Column("how far", right=True, longest=12, drop=2),
                Column("left", right=True, longest=10, drop=1),
                Column("value", flexible=True),
            ],
            empty="no runs yet; t starts one",
            titles=False,
            waits=True,
            id="runs",
        )
        yield RowList(
            [
                Column("gpu", longest=24),
                Column("memory", right=True, longest=14),
                Column("holder", flexible=True),
            ],
            empty="gpus: none here, runs use the CPU",
            titles=False,
            id="gpus",
        )

    def on_mount(self) -> None:
        self._steps: dict[str, NextStep] = {}
        """By where they lead: the cursor stays on a step whose words or place change."""
        self._reader: LoopReader | None = None
        self.watch_files(self._look, self._show, every_s=LOOK_EVERY_S)
        self.watch_files(_look_at_gpus, self._show_gpus, every_s=GPUS_EVERY_S)

    def action_go(self, station: str) -> None:
        self.workbench_app.go(station)

    def _look(self) -> Overview:
        """In a thread: what reads the loop is imported while the first frame is drawn."""
        if self._reader is None:
            from workbench.loop_overview import LoopReader

            self._reader = LoopReader(self.workspace)
        return self._reader.look()

    @on(RowList.Opened, "#steps")
    def _do(self, event: RowList.Opened) -> None:
        step = self._steps.get(event.key)
        if step is not None:
            self.workbench_app.go(step.station, step.subject)

    @on(RowList.Opened, "#runs")
    def _watch(self, event: RowList.Opened) -> None:
        self.workbench_app.go("curves", event.key)

    def _show(self, found: Overview) -> None:
        self._steps = {f"{step.station} {step.subject}": step for step in found.steps}
        self.query_one(LoopLine).show(found.stops, found.steps[0].station if found.steps else "")
        steps = [
            Row(key, (("▲ " if step.urgent else "") + step.words,), "bad" if step.urgent else "")
            for key, step in self._steps.items()
        ]
        listed = self.query_one("#steps", RowList)
        listed.show(steps or [Row("nothing", ("nothing is waiting; go round again: d datasets",), "faint")])
        self.query_one("#runs", RowList).show([_run_row(run) for run in found.runs])
        if found.damaged:
            self.say(found.damaged[0], "bad")

    def _show_gpus(self, uses: tuple[GpuUse, ...]) -> None:
        """A line for each GPU; without one, a line that says so."""
        rows = [
            Row(
                use.gpu.uuid,
                (
                    f"gpu {use.gpu.index} {use.gpu.name}",
                    f"{use.gpu.memory_used_mb / 1024:.0f}/{use.gpu.memory_total_mb / 1024:.0f} GiB",
                    use.holder,
                ),
                "" if use.holder == "free" else "busy",
            )
            for use in uses
        ]
        listed = self.query_one("#gpus", RowList)
        listed.styles.height = min(MOST_GPU_LINES, max(1, len(rows)))
        listed.show(rows)


def _look_at_gpus() -> tuple[GpuUse, ...]:
    """In a thread: nvidia-smi takes its time."""
    from workbench.gpu_holders import gpu_uses

    return gpu_uses()


def _run_row(run: RunSummary) -> Row:
    mark = STATE_MARKS.get(run.state, "·")
    far = f"{100 * run.step / run.total_steps:.0f} %" if run.total_steps and run.state in ALIVE else ""
    left = time_left(run.seconds_left) if run.seconds_left is not None else ""
    state = f"{mark} {run.state}{' !' if run.alarm else ''}"
    cells = (run.id, state, far or f"step {run.step:,}", left, _values(run))
    return Row(run.id, cells, "bad" if run.alarm else STATE_TONES.get(run.state, ""))


def _values(run: RunSummary) -> str:
    """The main figure of a run: its best where it selects one, else the last of its method's first metric."""
    if run.best:
        return f"best {run.best.get('metric')} {number(run.best.get('value'))} at step {run.best.get('step')}"
    return main_figure(run) or run.reason
