"""Inspecting ten million rows: first rows, pages, sort, filter, an index of JSON lines, and the end of a runaway query.

    python -m tests.benchmarks.inspect_speed [--rows 10000000] [--keep FOLDER] [--only WHAT] [--peers FOLDER] [--awake]

Prints medians of five beside the targets; nothing is asserted. The figures of the app are taken over a pseudo-terminal
as in `app.py`, a blank Textual app subtracted; harlequin and visidata are timed on the same file where they are
installed, on the PATH or in the folder of programs that --peers names, each for at most five minutes. (It is not called
inspect.py: a script in this folder would then import it in the place of Python's own.)
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.benchmarks.app import TIMES, Bench, Figure, first_rows, harlequin, page_down, rss_mb
from tests.benchmarks.awake import awake
from tests.benchmarks.grid_data import PAGE_ROWS, WORD
from tests.screens.pty_terminal import PtyTerminal
from workbench import native_cache
from workbench.cache_room import native_folder
from workbench.child_programs import child_environment
from workbench.dataset_reading import FileKind
from workbench.dataset_window import RowWindow, open_window
from workbench.dataset_window_jsonl import JsonLinesWindow
from workbench.dataset_window_parquet import ParquetWindow
from workbench.row_query import rows_of_query

LINES_BYTES = 300_000_000
RUNAWAYS = {
    "a fold over a list": "SELECT list_reduce(range(50000000), lambda a, b: (a + b) % 1000003)",
    "a cross join": "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3",
    "a recursion": "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
    "a sort": "SELECT * FROM range(2000000000) ORDER BY hash(range)",
}
CACHE_S = 900.0
"""A native cache is waited for so long."""
BEGUN_S = 1.5
"""A query has run so long when it is ended."""


def sort_and_filter(bench: Bench) -> Iterator[Figure]:
    """The data part alone: from the line to the first page of its rows."""
    bench.large()
    window = open_window(bench.folder / f"rows-{bench.rows}.parquet", FileKind("parquet"))
    try:
        window.rows(0, PAGE_ROWS)
        took = _medians(lambda: _first_page(window, "sort -tokens"))
        yield Figure("sort by an integer, to the first page", took, None, 2000, "ms")
        took = _medians(lambda: _first_page(window, WORD))
        yield Figure(f"first {PAGE_ROWS} hits of a common text", took, None, 200, "ms")
        took = _medians(lambda: _first_page(window, f"tokens > 50 and chosen has {WORD}"))
        yield Figure("the same among rows of a condition", took, None, 200, "ms")
    finally:
        window.close()


def native_cache_figures(bench: Bench) -> Iterator[Figure]:
    """The native cache: how long it takes to make and how large the child grows; then the same from it."""
    bench.large()
    file = bench.folder / f"rows-{bench.rows}.parquet"
    window = ParquetWindow(file)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    at, most_mb = time.monotonic(), 0.0
    window.speed_up()
    while not window.from_cache and time.monotonic() - at < CACHE_S:
        time.sleep(0.2)
        most_mb = max(most_mb, _peak_mb(native_cache._child._process))
    assert window.from_cache, f"no cache after {CACHE_S:.0f} s"
    yield Figure("native cache, niced, to its use", time.monotonic() - at, None, float("inf"), "s")
    used_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    yield Figure("  of its child's processor", used_s, None, float("inf"), "s")
    yield Figure("  memory of its child", most_mb, None, 512, "MB")
    size = window._rows.relation.attached
    yield Figure("  its size", (size.stat().st_size if size else 0) / 1e6, None, float("inf"), "MB")
    rows = window.rows_so_far
    places = iter(range(0, rows - PAGE_ROWS, max(1, rows // 50)))
    yield Figure("  a page anywhere", _medians(lambda: window.rows(next(places), PAGE_ROWS)), None, 10, "ms")
    yield Figure("  the last page", _medians(lambda: window.rows(rows - PAGE_ROWS, PAGE_ROWS)), None, 20, "ms")
    yield Figure("  sort by an integer", _medians(lambda: _first_page(window, "sort -tokens")), None, 1000, "ms")
    yield Figure("  first hits of a common text", _medians(lambda: _first_page(window, WORD)), None, 50, "ms")
    window.close()


def json_lines(bench: Bench) -> Iterator[Figure]:
    """A file of JSON lines: to its whole index, and a page in its middle."""
    file = bench.folder / "lines.jsonl"
    if not file.exists():
        line = (
            b'{"prompt": "' + b"how do I true a wheel? " * 12 + b'", "completion": "' + b"turn by turn. " * 20 + b'"}\n'
        )
        with open(file, "wb") as target:
            for _ in range(LINES_BYTES // (1000 * len(line))):
                target.write(line * 1000)
    yield Figure("300 MB of JSON lines, indexed", _medians(lambda: _indexed(file)), None, 200, "ms")
    window = JsonLinesWindow(file)
    while not window.complete:
        time.sleep(0.01)
    middle = window.rows_so_far // 2
    yield Figure("  a page in their middle", _medians(lambda: window.rows(middle, PAGE_ROWS)), None, 5, "ms")
    window.close()


def runaways(bench: Bench) -> Iterator[Figure]:
    """From ctrl+c to the death of the process in which the query runs."""
    from workbench.workspace import init

    root = bench.folder / "asking"
    if not root.exists():
        init(root)
    for what, query in RUNAWAYS.items():
        times = [_ended(root, query) for _ in range(TIMES)]
        yield Figure(
            f"{what}, ctrl+c to its death", statistics.median(times), None, 700, "ms", f"worst {max(times):.0f}"
        )


def visidata(bench: Bench) -> Iterator[Figure]:
    """visidata on the same file, once: from its start to the first rows."""
    if not shutil.which("vd"):
        return
    bench.large()
    file = bench.folder / f"rows-{bench.rows}.parquet"
    with PtyTerminal([shutil.which("vd") or "", str(file)], size=(120, 40)) as terminal:
        begun = time.monotonic()
        terminal.until(lambda: "forum" in terminal.text, "visidata's rows", 300)
        yield Figure("visidata, to its first rows", 1000 * (time.monotonic() - begun), None, float("inf"), "ms")
        yield Figure("  its memory there", rss_mb(terminal), None, float("inf"), "MB")


def pages(bench: Bench) -> Iterator[Figure]:
    """Pages of the app from the Parquet file itself."""
    shutil.rmtree(native_folder(), ignore_errors=True)
    yield from page_down(bench)


def cached_pages(bench: Bench) -> Iterator[Figure]:
    """Pages of the app from the native cache, a moment after it was found."""
    if any(native_folder().glob("*.duckdb")):
        yield from page_down(bench, 3.0, "page down, cached", 10)


FIGURES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "first": first_rows, "pages": pages, "sort": sort_and_filter, "cache": native_cache_figures, "cached": cached_pages,
    "lines": json_lines,
    "sql": runaways, "visidata": visidata, "harlequin": harlequin,
}  # fmt: skip


def _first_page(window: RowWindow, line: str) -> None:
    numbers: list[int] = []
    for found in rows_of_query(window, line):
        numbers += found.numbers[:PAGE_ROWS]
        if len(numbers) >= PAGE_ROWS:
            break
    window.rows_at(numbers[:PAGE_ROWS])


def _indexed(file: Path) -> None:
    window = JsonLinesWindow(file)
    while not window.complete:
        time.sleep(0.001)
    window.close()


def _ended(root: Path, query: str) -> float:
    """Milliseconds from SIGINT until neither the command nor the query's process is there."""
    command = subprocess.Popen(
        [sys.executable, "-P", "-m", "workbench", "--workspace", str(root), "sql", query],
        env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    while not (found := children.read_text().split()):
        time.sleep(0.01)
    time.sleep(BEGUN_S)
    child = Path(f"/proc/{found[0]}")
    at = time.monotonic()
    command.send_signal(signal.SIGINT)
    while child.exists():
        time.sleep(0.001)
    took = 1000 * (time.monotonic() - at)
    command.wait()
    return took


def _peak_mb(process: subprocess.Popen[bytes] | None) -> float:
    """The most memory that a process has had; 0 where there is none."""
    with suppress(OSError, IndexError, ValueError):
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines() if process else []
        return next((float(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), 0.0)
    return 0.0


def _medians(call: Callable[[], object]) -> float:
    times = []
    for _ in range(TIMES):
        at = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - at))
    return statistics.median(times)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--keep", type=Path, help="a folder for the data, used again the next time")
    parser.add_argument("--only", choices=list(FIGURES), action="append")
    parser.add_argument("--peers", type=Path, help="where the programs harlequin and vd are")
    parser.add_argument("--awake", action="store_true", help="keep idle cores from sleeping")
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp(prefix="inspect-speed-"))
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background ignores it
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    if args.peers:
        os.environ["PATH"] = f"{args.peers}{os.pathsep}{os.environ['PATH']}"
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {args.rows:,} rows; medians of {TIMES}")
    try:
        for name in args.only or FIGURES:
            try:
                with awake(args.awake):
                    for figure in FIGURES[name](Bench(folder, args.rows)):
                        print(figure.line(), flush=True)
            except AssertionError as error:  # a program that was not there in its time
                print(f"{name}: not measured: {str(error).splitlines()[0][:200]}", flush=True)
    finally:
        if args.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
