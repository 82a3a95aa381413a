"""The app's figures on a pseudo-terminal, beside those of a blank Textual app measured in the same run.

    python tests/benchmarks/app.py [--only NAME] [--rows 10000000] [--keep FOLDER]

Owns the measuring: medians of five, ours and the blank app's taken in turns, from the key or the start of the process
to the last byte that the terminal received. Nothing is asserted: a busy machine makes every figure worse, so the load
of the machine is printed with them. The app is started as the command starts it, by `screens.start`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.run.folder import RunFolder  # noqa: E402
from engine.run.locks import hold  # noqa: E402
from engine.run.metrics_log import MetricsWriter  # noqa: E402
from engine.run.status import Status, write_status  # noqa: E402
from tests.benchmarks.awake import awake  # noqa: E402
from tests.benchmarks.blank_app import BLANK_APP, BLANK_READY  # noqa: E402
from tests.screens.furnished_workspace import ARENA, PAIRS, RUN_DONE, furnish  # noqa: E402
from tests.screens.pty_terminal import PAGE_DOWN, PtyTerminal, app_command  # noqa: E402
from tests.workbench.run_folders import make_run  # noqa: E402
from workbench.dataset_reading import RawRow, read_rows, recognise_file  # noqa: E402
from workbench.dataset_shapes import column_kinds, recognise  # noqa: E402
from workbench.dataset_source import record_source  # noqa: E402
from workbench.dataset_store import DatasetInfo, add_dataset, to_toml  # noqa: E402
from workbench.dataset_window import open_window  # noqa: E402
from workbench.pair_sets import pairs_from_dataset  # noqa: E402
from workbench.workspace import Workspace, init, now, write_toml  # noqa: E402

TIMES = 5
PAGES = 20
LABELS = 20
ANSWER_CHARACTERS = 2000
GUARD_S = 0.15
"""The label screen ignores keys for so long after a pair appears."""
QUIET_S = 0.25
"""After which an answer is over."""
LIVE_S, LIVE_RATE = 20.0, 10
IDLE_S = 3.0
HEAVY = ("torch", "transformers", "pyarrow", "libtorch", "libarrow")
_BLANK = """
import os; os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
from textual.app import App
from textual.widgets import Static
class Blank(App):
    def compose(self): yield Static("blank app ready")
Blank().run()
"""
BLANK = [sys.executable, "-c", _BLANK]


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    ours: float
    blank: float | None
    target: float
    unit: str
    note: str = ""

    def line(self) -> str:
        """As it is printed."""
        difference = self.ours - (self.blank or 0.0)
        met = "yes" if difference <= self.target else "NO"
        if math.isinf(self.target):  # of another program: there is nothing to meet
            return f"{self.name:<44}{self.ours:>10,.1f}{'':>28} {self.unit}"
        blank = "" if self.blank is None else f"{self.blank:,.1f}"
        return (
            f"{self.name:<44}{self.ours:>10,.1f}{blank:>9}{difference:>10,.1f}{self.target:>9,.1f} "
            f"{self.unit:<7}{met:<4}{self.note}"
        )


@dataclass
class Bench:
    """Where it is measured."""

    folder: Path
    rows: int

    def workspace(self, name: str, fill: Callable[[Path], Workspace]) -> Workspace:
        """A workspace that is made when it is first needed."""
        from workbench.workspace import open_workspace

        place = self.folder / name
        if (place / "ws").exists():
            return open_workspace(place / "ws")
        place.mkdir(parents=True)
        return fill(place)

    def furnished(self) -> Workspace:
        """Something at every station."""
        return self.workspace("furnished", furnish)

    def large(self) -> Workspace:
        """A dataset of many rows in Parquet, added: its hash is known."""

        def fill(place: Path) -> Workspace:
            from tests.benchmarks.grid_data import make

            file = self.folder / f"rows-{self.rows}.parquet"
            if not file.exists():
                make(file, self.rows)
            workspace = init(place / "ws")
            _enter(workspace, file, "large")
            return workspace

        return self.workspace(f"large-{self.rows}", fill)

    def to_label(self) -> Workspace:
        """Pairs with long answers."""

        def fill(place: Path) -> Workspace:
            workspace = init(place / "ws")
            words = [
                "check",
                "that",
                "the",
                "tyre",
                "bead",
                "sits",
                "evenly",
                "all",
                "round",
                "and",
                "spin",
                "it",
                "twice",
            ]
            rows = (
                {"prompt": f"What should I check first on wheel {n}?",
                 **{side: f"{side}{n} " + _prose(words, n * 7 + salt) for side, salt in (("a", 1), ("b", 5))}}
                for n in range(200)
            )  # fmt: skip
            file = place / "answers.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
            pairs_from_dataset(workspace, "long-answers", add_dataset(workspace, file, "answers"))
            return workspace

        return self.workspace("to-label", fill)


def _enter(workspace: Workspace, file: Path, name: str) -> None:
    """A dataset as `data add` writes it, told from the first rows: reading ten million is not what is timed."""
    kind = recognise_file(file)
    sample = [row.value for row in islice(read_rows(file, kind), 256) if isinstance(row, RawRow)]
    window = open_window(file, kind)
    rows = window.rows_so_far
    window.close()
    with workspace.new_folder("datasets", name) as folder:
        recorded = record_source(file, str(file), "reference", str(file), kind, {})
        info = DatasetInfo(name, now(), recognise(sample, None), recorded, rows, column_kinds(sample), {}, "")
        write_toml(folder / "dataset.toml", to_toml(info))


def _prose(words: list[str], start: int) -> str:
    text, place = "", start
    while len(text) < ANSWER_CHARACTERS:
        text += words[(place * place + start) % len(words)] + " "
        place += 1
    return text.strip()


def start_to_home(bench: Bench) -> Iterator[Figure]:
    """Process start until Home shows its counts and takes keys."""
    workspace = bench.furnished()
    ours, blank = _in_turns(
        app_command(workspace.root), lambda terminal: f"{len(workspace.names('datasets'))}" in _counts(terminal)
    )
    yield Figure("process start to usable Home", ours, blank, 300, "ms")


def _counts(terminal: PtyTerminal) -> str:
    """The line under the stations, once the next steps are there."""
    lines = terminal.text.splitlines()
    return lines[3] if len(lines) > 3 and "▸" in terminal.text and "looking" not in terminal.text else ""


def first_rows(bench: Bench) -> Iterator[Figure]:
    """Process start until the first rows of the large dataset are read."""
    workspace = bench.large()
    command = app_command(workspace.root, "--station", "inspect", "--subject", "large")
    ours, blank = _in_turns(command, _has_rows)
    yield Figure(f"process start to first rows of {bench.rows:,}", ours, blank, 300, "ms")


def _has_rows(terminal: PtyTerminal) -> bool:
    return re.search(r"^ +16 +15 ", terminal.text, re.MULTILINE) is not None


def harlequin(bench: Bench) -> Iterator[Figure]:
    """harlequin on the same file, once, where it is installed: from its query to the first rows."""
    if not shutil.which("harlequin"):
        return
    bench.large()
    file = bench.folder / f"rows-{bench.rows}.parquet"
    command = [shutil.which("harlequin") or "", "-a", "duckdb", ":memory:"]
    with PtyTerminal(command, size=(120, 40)) as terminal:
        terminal.sees("Query Editor", 60)
        terminal.send(f"select * from '{file}'")
        # Its cursor blinks, so it is never quiet: wait for the text, and a moment for what it does with it.
        terminal.until(lambda: file.name in terminal.text, "the query", 60)
        terminal.read(2.0)
        at = terminal.send("\x0a")
        seen = terminal.until(lambda: "It is" in terminal.text, "harlequin's rows", 300)
        yield Figure("harlequin, query to first rows", 1000 * (seen - at), None, float("inf"), "ms")
        yield Figure("  its memory there", rss_mb(terminal), None, float("inf"), "MB")


def page_down(bench: Bench, settled_s: float = 1.0, name: str = "page down", target: float = 15) -> Iterator[Figure]:
    """A page further in the large dataset, key to last byte, `settled_s` after its first rows; in turns with a key of
    the blank app."""
    command = app_command(bench.large().root, "--station", "inspect", "--subject", "large")
    with PtyTerminal(command) as terminal, PtyTerminal(BLANK_APP) as blank:
        terminal.until(lambda: _has_rows(terminal), "rows")
        blank.sees(BLANK_READY)
        terminal.settle(settled_s)
        took = [(*_answered(terminal, PAGE_DOWN), _answered(blank, "x")[0]) for _ in range(PAGES)]
        ours, sizes, theirs = (list(column) for column in zip(*took, strict=True))
        middle = statistics.median(theirs)
        worst = f"worst {max(ours):.0f}"
        yield Figure(f"{name}, key to last byte (median)", statistics.median(ours), middle, target, "ms", worst)
        yield Figure(f"{name}, bytes", statistics.median(sizes) / 1000, None, 4, "kB")
        ends = []
        for _ in range(TIMES):
            ends.append(_answered(terminal, "G")[0])
            _answered(terminal, "g")
        yield Figure("to the last row", statistics.median(ends), middle, 60, "ms", f"worst {max(ends):.0f}")
        yield Figure("memory of the app there", rss_mb(terminal), None, 250, "MB")


def _answered(terminal: PtyTerminal, key: str) -> tuple[float, int]:
    """As `_key`, where an answer must come; what the terminal draws is none of the program's time."""
    before, at = terminal.count, terminal.send(key)
    return 1000 * (terminal.answer(QUIET_S) - at), terminal.count - before


def label_key(bench: Bench) -> Iterator[Figure]:
    """A verdict, key to last byte: it is on the disk and the next pair is drawn."""
    command = app_command(bench.to_label().root, "--station", "label", "--subject", "long-answers")
    with PtyTerminal(command) as terminal:
        terminal.sees("wheel")
        terminal.settle(1.0)
        took, size = [], []
        for n in range(LABELS):
            elapsed, count = _key(terminal, "12"[n % 2], quiet_s=GUARD_S + 0.15)
            if count > 200:
                took.append(elapsed)
                size.append(count)
        note = f"{len(took)} of {LABELS} judged, worst {max(took, default=0):.0f}"
        yield Figure("label key to last byte (median)", statistics.median(took), None, 30, "ms", note)
        yield Figure(
            "label key, bytes (median)", statistics.median(size) / 1000, None, 4, "kB", f"worst {max(size) / 1000:.1f}"
        )


def live_curve(bench: Bench) -> Iterator[Figure]:
    """A run that reports ten points a second, watched for a while: a young one, and one that has gone on for long."""
    yield from _live(bench, "one curve, 2,000 steps", 2000, ("loss",))
    yield from _live(bench, "all of DPO, 2,000 steps", 2000)
    yield from _live(bench, "all of DPO, young", 2)


def _live(bench: Bench, name: str, steps: int, only: tuple[str, ...] = ()) -> Iterator[Figure]:
    workspace = bench.workspace("live", lambda place: init(place / "ws"))
    run = make_run(workspace, f"1124-dpo-live{steps}{len(only)}-{time.time_ns() % 900 + 100}", phase="running", step=1)
    # A run goes on while its lock is held, and a screen draws one that goes on otherwise than one that is over.
    lock = hold(run.lock_path)
    writer = MetricsWriter(run.metrics_path, 1)
    for step in range(2, steps):
        writer.write(step, _metrics(step, only))
    with (
        PtyTerminal(app_command(workspace.root, "--station", "curves", "--subject", run.id)) as terminal,
        PtyTerminal(BLANK) as blank,
    ):
        step = _train_a_while(run, writer, only, steps, 3.0, terminal, blank)
        before, before_blank, count = _cpu_s(terminal), _cpu_s(blank), terminal.count
        began = time.perf_counter()
        _train_a_while(run, writer, only, step, LIVE_S, terminal, blank)
        elapsed = time.perf_counter() - began
        ours, idle = (100 * (_cpu_s(one) - was) / elapsed for one, was in ((terminal, before), (blank, before_blank)))
        yield Figure(f"live, 10 points/s: {name}", ours, idle, 5, "% core")
        yield Figure("  bytes a second", (terminal.count - count) / elapsed / 1000, None, 3, "kB/s")
    if lock is not None:
        lock.release()


def _metrics(step: int, only: tuple[str, ...] = ()) -> dict[str, float]:
    noise = math.sin(step * 12.9898) * 0.05
    every = {
        "loss": 0.69 * math.exp(-step / 200) + noise, "rewards/margins": step / 300 + noise, "grad_norm": 1 + noise,
        "rewards/accuracies": 0.6 + noise, "rewards/chosen": noise, "rewards/rejected": -step / 400 + noise, "lr": 1e-5,
        "kl/policy_reference_nats_per_sequence": step / 100 + noise, "kl/policy_reference_standard_error": 0.05,
    }  # fmt: skip
    return {name: every[name] for name in only or every}


def _train_a_while(
    run: RunFolder, writer: MetricsWriter, only: tuple[str, ...], step: int, seconds: float, *terminals: PtyTerminal
) -> int:
    end = time.perf_counter() + seconds
    due = time.perf_counter()
    while due < end:
        writer.write(step, _metrics(step, only))
        if step % LIVE_RATE == 0:
            write_status(
                run, Status(run=run.id, phase="running", step=step, total_steps=5000, attempt=1, heartbeat=time.time())
            )
        step += 1
        due += 1 / LIVE_RATE
        for terminal in terminals:
            terminal.read(max(0.0, due - time.perf_counter()) / len(terminals))
    return step


def idle(bench: Bench) -> Iterator[Figure]:
    """Bytes that each screen sends while nothing happens."""
    from screens.stations import STATIONS

    workspace = bench.furnished()
    subjects = {"inspect": "demonstrations", "label": PAIRS, "curves": RUN_DONE, "compare": ARENA}
    for station in STATIONS:
        subject = ["--subject", subjects[station]] if station in subjects and station != "compare" else []
        with PtyTerminal(app_command(workspace.root, "--station", station, *subject)) as terminal:
            terminal.until(lambda t=terminal: "? keys" in t.text or "esc back" in t.text, "its keys")  # type: ignore[misc]
            terminal.settle(1.5)
            yield Figure(
                f"idle bytes in {IDLE_S:.0f} s: {station}",
                terminal.read(IDLE_S),
                None,
                0,
                "B",
                f"{rss_mb(terminal):.0f} MB",
            )


def memory(bench: Bench) -> Iterator[Figure]:
    """Resident memory, and what was loaded, after a walk along the whole loop."""
    with PtyTerminal(app_command(bench.furnished().root)) as terminal, PtyTerminal(BLANK) as blank:
        terminal.sees("next")
        terminal.settle()
        blank.sees("blank app ready")
        yield Figure("memory at Home", rss_mb(terminal), rss_mb(blank), 60, "MB")
        for _ in range(8):
            terminal.press("]")
        terminal.settle()
        yield Figure("memory after the whole loop", rss_mb(terminal), rss_mb(blank), 200, "MB")
        maps = Path(f"/proc/{terminal.process.pid}/maps").read_text()
        loaded = sorted(name for name in HEAVY if f"/{name}" in maps)
        yield Figure(
            "heavy libraries in its maps", len(loaded), None, 0, "", ", ".join(loaded) or "no " + ", ".join(HEAVY)
        )


FIGURES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "home": start_to_home, "rows": first_rows, "page": page_down, "label": label_key, "live": live_curve, "idle": idle,
    "memory": memory, "harlequin": harlequin,
}  # fmt: skip


def _in_turns(command: list[str], ready: Callable[[PtyTerminal], bool]) -> tuple[float, float]:
    """Medians in ms from the start of the process until `ready`, of the app and of the blank app."""
    ours: list[float] = []
    blank: list[float] = []
    for number in range(TIMES + 1):
        for one, until, times in ((BLANK, _blank_ready, blank), (command, ready, ours)):
            with PtyTerminal(one) as terminal:
                at = terminal.until(lambda u=until, t=terminal: u(t), "usable", 120)  # type: ignore[misc]
                if number:  # the first of each warms the caches
                    times.append(1000 * (at - terminal.began))
    return statistics.median(ours), statistics.median(blank)


def _blank_ready(terminal: PtyTerminal) -> bool:
    return "blank app ready" in terminal.text


def _key(terminal: PtyTerminal, key: str, quiet_s: float = 0.25) -> tuple[float, int]:
    """Milliseconds from a key to the last byte it caused, and how many bytes."""
    before = terminal.count
    at = terminal.send(key)
    terminal.settle(quiet_s)
    return 1000 * max(0.0, terminal.pieces[-1].at - at), terminal.count - before


def _cpu_s(terminal: PtyTerminal) -> float:
    fields = Path(f"/proc/{terminal.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(terminal: PtyTerminal) -> float:
    """Resident memory of the program on a terminal, in MB."""
    pages = int(Path(f"/proc/{terminal.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(FIGURES), action="append")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--keep", type=Path, help="a folder for the data, used again the next time")
    parser.add_argument("--awake", action="store_true", help="keep idle cores from sleeping")
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp(prefix="workbench-figures-"))
    folder.mkdir(parents=True, exist_ok=True)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{os.cpu_count()} cores, load {load}; medians of {TIMES}; harlequin: {bool(shutil.which('harlequin'))}")
    print(f"{'':<44}{'ours':>10}{'blank':>9}{'differ.':>10}{'target':>9} {'':<7}met")
    try:
        for name in args.only or FIGURES:
            try:
                with awake(args.awake):
                    for figure in FIGURES[name](Bench(folder, args.rows)):
                        print(figure.line(), flush=True)
            except (AssertionError, statistics.StatisticsError, subprocess.SubprocessError) as error:
                print(f"{name}: not measured: {str(error)[:1500]}", flush=True)
    finally:
        if args.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
