"""Curves: opening long runs, drawing their panels, watching a live one; beside textual-plotext's drawing of the data.

    python -m tests.benchmarks.curves [--steps 200000] [--long 1000000] [--live 20] [--awake] [--small]

Owns the measuring: medians of five, processor time of this process beside the wall's, so that a busy machine can be
told from a slow program. Runs are made by writing metrics.jsonl as the engine does; what is drawn are the panels of a
PPO run at 160x48. Nothing is asserted. textual-plotext is measured where it is installed (pip install textual-plotext).
The app on a live run is measured by tests/benchmarks/app.py --only live_curve.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from engine.run.folder import RunFolder
from engine.run.locks import hold, is_held
from engine.run.metrics_log import MetricsWriter
from tests.benchmarks.awake import awake
from tests.benchmarks.blank_app import BLANK_APP, BLANK_READY
from tests.screens.pty_terminal import PtyTerminal, app_command
from tests.workbench.run_folders import make_run
from tests.workbench.test_several_runs import write_run
from workbench.compact_metrics import compact, compacted_path
from workbench.curve_panels import Panel, Trace
from workbench.curves import WORTH_COMPACTING_BYTES, CurveLog, Points, RunCurves
from workbench.plot_drawing import PlotDrawing
from workbench.plot_scene import Scene
from workbench.run_frame import FrameLook, RunFrame
from workbench.run_list import Run, find_run
from workbench.workspace import Workspace, init

TIMES = 5
METRICS = (
    "objective/scores", "objective/rlhf_reward", "objective/kl", "loss/policy_avg", "loss/value_avg",
    "val/explained_variance", "policy/clipfrac_avg", "objective/response_length", "val/ratio", "policy/approxkl_avg",
    "grad_norm", "learning_rate", "entropy", "tokens_per_second", "num_tokens", "step_time_s", "peak_memory_bytes",
    "objective/entropy", "loss", "val/num_eos_tokens",
)  # fmt: skip
OF_DPO = (
    "loss", "rewards/margins", "rewards/accuracies", "rewards/chosen", "rewards/rejected", "logps/chosen",
    "logps/rejected", "grad_norm", "learning_rate", "tokens_per_second", "step_time_s",
)  # fmt: skip
KEYS = {
    "the crosshair moves": ("", "\x1b[D"), "zoom in": ("0", "+"), "further back": ("0++", "<"),
    "all of the axis": ("+", "0"), "smoothing": ("", "e"), "another x axis": ("", "x"), "more panels": ("", "j"),
    "a logarithmic axis": ("", "L"),
}  # fmt: skip
"""What is measured: keys before it that are not, and the key."""
SIZE = (160, 48)
PANEL = (53, 22)
OVERLAID = 20
QUIET_S = 0.4
"""After which an answer is over."""
RATE = 10
BEGUN = 1100
"""Steps of a live run before it is measured: its x axis does not double meanwhile, which is a whole frame sent."""


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    value: float
    unit: str
    goal: float | None = None
    cpu: float | None = None
    """Of the same, by the processor's clock; in ms."""

    def line(self) -> str:
        """As it is printed."""
        goal = f"   goal {self.goal:g}" if self.goal is not None else ""
        cpu = f"   cpu {self.cpu:.1f} ms" if self.cpu is not None else ""
        return f"{self.what:<66}{self.value:>9.1f} {self.unit}{cpu}{goal}"


def timed(act: Callable[[], object], times: int = TIMES) -> tuple[float, float]:
    """Medians of wall and processor time, in ms."""
    walls, cpus = [], []
    for _ in range(times):
        began, cpu = time.perf_counter(), time.process_time()
        act()
        walls.append(1000 * (time.perf_counter() - began))
        cpus.append(1000 * (time.process_time() - cpu))
    return statistics.median(walls), statistics.median(cpus)


def long_run(workspace: Workspace, steps: int) -> Run:
    """A PPO run of so many steps and 20 metrics, written as the engine writes it, with a spike and a gap."""
    run_id = f"1130-ppo-long-{steps % 36**3:03d}"[:24]
    folder = make_run(workspace, run_id, step=0)
    draw, lines = random.Random(steps), []
    with open(folder.metrics_path, "wb") as stream:
        for step in range(1, steps + 1):
            noise = draw.random()
            values: dict[str, float | None] = {
                name: math.exp(-step / steps) + noise / (place + 1) for place, name in enumerate(METRICS)
            }
            line: dict[str, object] = {"schema": 1, "step": step, "attempt": 1, "time": 1e9 + step, "metrics": values}
            if step == steps // 3:
                values["objective/kl"] = 1e3
            if step == steps // 2:
                values["loss"], line["nonfinite"] = None, {"loss": "nan"}
            lines.append(orjson.dumps(line))
            if len(lines) == 10_000 or step == steps:
                stream.write(b"\n".join(lines) + b"\n")
                lines.clear()
    return find_run(workspace, run_id)


def open_whole(run: Run) -> RunCurves:
    """The curves of a run, read to their end."""
    curves = RunCurves(run)
    while curves.look().more:
        pass
    return curves


def opened_in_background(run: Run) -> None:
    """Let the process end that opening a long run has started, and take away what it made."""
    if run.folder.metrics_path.stat().st_size >= WORTH_COMPACTING_BYTES:
        while not compacted_path(run.folder).exists() or is_held(run.folder.path / ".compact.lock"):
            time.sleep(0.1)
    compacted_path(run.folder).unlink(missing_ok=True)


def opening(workspace: Workspace, steps: int, goal_ms: float, times: int) -> Iterator[Figure]:
    """Opening a run from its log and compacted, and drawing it."""
    run = long_run(workspace, steps)
    size = run.folder.metrics_path.stat().st_size / 1e6
    what = f"{steps:,} steps x {len(METRICS)} metrics"
    wall, cpu = timed(lambda: open_whole(run), min(times, 2))
    yield Figure(f"open {what}, from metrics.jsonl ({size:.0f} MB)", wall, "ms", None, cpu)
    opened_in_background(run)
    wall, cpu = timed(lambda: compact(run.folder), 1)
    yield Figure("compact it, in the background", wall, "ms", None, cpu)
    wall, cpu = timed(lambda: open_whole(run), times)
    yield Figure(
        f"open it compacted ({compacted_path(run.folder).stat().st_size / 1e6:.0f} MB)", wall, "ms", goal_ms, cpu
    )
    frame = RunFrame(run)
    first = timed(lambda: frame.lines(FrameLook(*SIZE)), 1)
    yield Figure(f"the first frame at {SIZE[0]}x{SIZE[1]}, opening included", first[0], "ms", None, first[1])
    log = frame.curves.log
    scene = Scene(Panel("objective/kl", (Trace("objective/kl", "train", smooth=True),), "nats"), 0, steps)
    wall, cpu = timed(lambda: anew(scene, log), times)
    yield Figure("a panel drawn anew from all points", wall, "ms", 5.0, cpu)
    plot = PlotDrawing()
    plot.resize(*PANEL)
    plot.show(scene, log.metrics)
    wall, cpu = timed(lambda: one_point_more(plot, scene, log), times)
    yield Figure("a panel redrawn with a new point", wall, "ms", 5.0, cpu)


def anew(scene: Scene, log: CurveLog) -> None:
    """A panel as after a zoom: every point goes into new columns."""
    plot = PlotDrawing()
    plot.resize(*PANEL)
    plot.show(scene, log.metrics)


def one_point_more(plot: PlotDrawing, scene: Scene, log: CurveLog) -> None:
    """A panel as while a run goes on."""
    points = log.metrics["objective/kl"]
    points.steps.append(points.steps[-1])
    points.values.append(0.5)
    plot.show(scene, log.metrics)


def overlaid(steps: int, times: int) -> Iterator[Figure]:
    """Twenty runs in one panel, drawn anew as a key that zooms does, on each of six panels."""
    draw = random.Random(1)
    curves = {
        f"run{number}": Points(array("q", range(steps)), array("d", (draw.random() + number for _ in range(steps))))
        for number in range(OVERLAID)
    }
    kinds = ("line", "dashes", "dots")
    panel = Panel("loss", tuple(Trace(name, name, kinds[place % 3]) for place, name in enumerate(curves)))
    scene, log = Scene(panel, 0, steps), CurveLog()
    log.metrics = curves
    wall, cpu = timed(lambda: anew(scene, log), times)
    yield Figure(f"{OVERLAID} runs of {steps:,} steps overlaid, a panel drawn anew", wall, "ms", 50.0, cpu)


def overlaid_keys(workspace: Workspace, steps: int, times: int) -> Iterator[Figure]:
    """From a key to the last byte of the answer, with twenty runs in nine panels at 160x48, less a blank app's."""
    for number in range(OVERLAID):
        overlaid_run(workspace, number, steps)
    what = f"{OVERLAID} runs of {steps:,} steps in the app"
    command = app_command(workspace.root, "--station", "several", "--subject", "/overlaid-")
    with PtyTerminal(command, size=SIZE) as terminal, PtyTerminal(BLANK_APP, size=SIZE) as blank:
        terminal.sees(f"{OVERLAID} in the same panels")
        blank.sees(BLANK_READY)
        for name, (before, key) in KEYS.items():
            both = [(_answered(terminal, before, key), _answered(blank, "", key)) for _ in range(times + 1)][1:]
            ours, theirs = (statistics.median(one[of][0] for one in both) for of in (0, 1))
            cpu = statistics.median(mine[1] for mine, _ in both)
            yield Figure(f"{what}: {name}", ours - theirs, "ms", 50.0, cpu)
            yield Figure("  with the blank app's own time", ours, "ms")
            yield Figure("  bytes", statistics.median(mine[2] for mine, _ in both), "B")


def _answered(terminal: PtyTerminal, before: str, key: str) -> tuple[float, float, int]:
    """Wall and processor time, in ms, from a key to the last byte of the answer, and its bytes."""
    terminal.press(*before)
    terminal.settle()
    cpu, count, sent_at = _cpu_s(terminal), terminal.count, terminal.send(key)
    last_at = terminal.answer(QUIET_S)
    return 1000 * (last_at - sent_at), 1000 * (_cpu_s(terminal) - cpu), terminal.count - count


def overlaid_run(workspace: Workspace, number: int, steps: int) -> None:
    """One of twenty DPO runs, each with a learning rate of its own."""
    draw = random.Random(number)
    folder = write_run(workspace, f"1130-dpo-overlaid-{number:02d}", lr=1e-5 * (number + 1))
    folder.metrics_path.unlink()
    writer = MetricsWriter(folder.metrics_path, 1)
    for step in range(1, steps + 1):
        values = {
            name: math.exp(-step / steps) + draw.random() / (place + 1) + number / 10
            for place, name in enumerate(OF_DPO)
        }
        values["num_tokens"] = 100.0 * step
        if step % 50 == 0:
            values |= {"eval_loss": 1.0 + number / 10, "kl/policy_reference_nats_per_sequence": step / 100 + number}
        writer.write(step, values, time=1.8e9 + step)
    writer.close()


def plotext(steps: int, times: int) -> Iterator[Figure]:
    """The same curve drawn by textual-plotext's plotext, raw and brought down to two points a column."""
    try:
        import plotext as plt  # type: ignore[import-not-found]
    except ImportError:
        print("textual-plotext is not installed: its rows are left out", file=sys.stderr)
        return
    draw = random.Random(steps)
    values = [math.exp(-step / steps) + draw.random() for step in range(steps)]

    def drawn(few: list[float]) -> None:
        plt.clear_figure()
        plt.plotsize(*PANEL)
        plt.plot(few, marker="braille")
        plt.build()

    wide = 2 * PANEL[0]
    parts = [values[place * steps // wide : (place + 1) * steps // wide] for place in range(wide)]
    wall, cpu = timed(lambda: drawn([one for part in parts for one in (min(part), max(part))]), times)
    yield Figure("textual-plotext: a panel, after decimation to its columns", wall, "ms", None, cpu)
    wall, cpu = timed(lambda: drawn(values), 1)
    yield Figure(f"textual-plotext: a panel of all {steps:,} points", wall, "ms", None, cpu)


def live(workspace: Workspace, seconds: float, *, slow_link: bool) -> Iterator[Figure]:
    """`runs watch` on a run that writes ten points a second, six panels at 160x48."""
    folder = make_run(workspace, f"1130-ppo-live-{'low' if slow_link else 'usu'}", phase="running", step=0)
    lock = hold(folder.lock_path)
    writer = MetricsWriter(folder.metrics_path, 1)
    for step in range(1, BEGUN):
        _write(writer, step)
    command = [sys.executable, "-m", "workbench", "--workspace", str(workspace.root), "runs", "watch", folder.id]
    with PtyTerminal(command + ["--low-bandwidth"] * slow_link, size=SIZE) as terminal:
        terminal.until(lambda: terminal.count > 2000, "the first frame")
        step = _train(folder, writer, BEGUN, 3.0, terminal)
        before, count, began = _cpu_s(terminal), terminal.count, time.perf_counter()
        _train(folder, writer, step, seconds, terminal)
        elapsed = time.perf_counter() - began
        name = "runs watch --low-bandwidth, 1 Hz" if slow_link else "runs watch, 4 Hz"
        yield Figure(
            f"live, {RATE} points/s, six panels: {name}", 100 * (_cpu_s(terminal) - before) / elapsed, "% core", 10
        )
        rate = (terminal.count - count) / elapsed
        yield Figure("  bytes a second", rate, "B/s", 600 if slow_link else 4000)
    if lock is not None:
        lock.release()


def _train(folder: RunFolder, writer: MetricsWriter, step: int, for_s: float, terminal: PtyTerminal) -> int:
    until = time.perf_counter() + for_s
    while time.perf_counter() < until:
        _write(writer, step)
        step += 1
        terminal.read(1 / RATE)
    return step


def _write(writer: MetricsWriter, step: int) -> None:
    draw = random.Random(step)
    writer.write(step, {name: math.exp(-step / 300) + draw.random() / 10 for name in METRICS})


def _cpu_s(terminal: PtyTerminal) -> float:
    fields = Path(f"/proc/{terminal.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--long", type=int, default=1_000_000, help="steps of the longer run; 0 leaves it out")
    parser.add_argument(
        "--live", type=float, default=20.0, metavar="S", help="seconds of each live run; 0 leaves them out"
    )
    parser.add_argument("--awake", action="store_true", help="keep idle cores from sleeping while keys are measured")
    parser.add_argument("--small", action="store_true", help="see that it works: 5,000 steps, 3 s, once")
    args = parser.parse_args()
    steps, longer, seconds, times = args.steps, args.long, args.live, TIMES
    if args.small:
        steps, longer, seconds, times = 5_000, 0, 3.0, 1
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        workspace = init(Path(folder) / "ws")
        for figure in opening(workspace, steps, 500.0, times):
            print(figure.line(), flush=True)
        if longer:
            for figure in opening(workspace, longer, 1000.0, times):
                print(figure.line(), flush=True)
        with awake(args.awake):
            for figure in overlaid_keys(workspace, min(steps, 2_000), times):
                print(figure.line(), flush=True)
        for figure in (*overlaid(min(steps, 10_000), times), *plotext(min(steps, 100_000), times)):
            print(figure.line(), flush=True)
        for slow_link in (False, True) if seconds else ():
            for figure in live(workspace, seconds, slow_link=slow_link):
                print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
