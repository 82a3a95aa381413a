"""Ten million rows of chat-like text in one Parquet file, and how long it takes to look into it.

    python tests/benchmarks/grid_data.py FILE.parquet [--rows 10000000]

Makes FILE where it is missing (DuckDB SQL, zstd, row groups of 122,880 rows), then measures the data part of the grid
alone: opening with the first rows, pages at random places, the last page, the first hits of a filter and a whole scan.
Prints medians of five; nothing is asserted, and nothing is drawn: the app's own figures are `app.py`'s.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.dataset_window import RowWindow

ROW_GROUP_ROWS = 122_880
PAGE_ROWS = 50
TIMES = 5
WORD = "derailleur"
"""In one row of a hundred."""

_OPENINGS = (
    *("How do I", "What is the best way to", "Please explain how to", "My friend wants to", "Is it safe to"),
    *("Write a short note on how to", "Why is it hard to", "Can you show me how to", "When should I", "Help me to"),
)
_TASKS = (
    *("true a bicycle wheel", "bake rye bread", "prune an apple tree", "read a tide table", "mend a torn sail"),
    *("tune a guitar", "plan a small garden", "write a cover letter", "learn the bass clef", "fix a dripping tap"),
    *("choose a tent", "sort a long list in SQL", "brew strong coffee", "train a young dog", "draw a simple map"),
    *("season a cast iron pan", "measure a room", "sharpen a knife", "pack for a week at sea", "save on heating"),
)
_WORDS = (
    "the", "part", "that", "is", "easy", "to", "reach", "looks", "for", "a", "mark", "on", "each", "turn", "and",
    "let", "it", "rest", "ten", "minutes", "before", "you", "go", "measure", "twice", "write", "both", "numbers",
    "down", "ask", "somebody", "who", "did", "last", "year", "use", "less", "force", "than", "need", "keep", "old",
    "one", "as", "pattern", "work", "from", "middle", "edge", "stop", "when", "even", "clean", "surface", "with",
    "warm", "water", "first", "try", "small", "piece", "count", "eight", "steps",
)  # fmt: skip
"""64 words: six bits of a hash choose one."""
_SOURCES = ("forum", "manual", "chat", "survey")


def main() -> int:
    """Make the file where it is missing, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    args = parser.parse_args()
    if not args.file.exists():
        began = time.perf_counter()
        make(args.file, args.rows)
        print(f"made {args.file.name} in {time.perf_counter() - began:.1f} s")
    print(f"{args.file.name}: {args.file.stat().st_size / 1e6:.0f} MB")
    measure(args.file)
    return 0


def make(file: Path, rows: int) -> None:
    """Write `rows` rows of id, source, prompt, chosen, rejected and tokens, the same for the same number."""
    import duckdb

    part = file.with_name(file.name + ".part")
    connection = duckdb.connect(config={"threads": "2", "memory_limit": "2GB", "preserve_insertion_order": "true"})
    try:
        connection.execute(
            f"COPY ({_rows(rows)}) TO '{str(part).replace(chr(39), chr(39) * 2)}' "
            f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
        )
    finally:
        connection.close()
    os.replace(part, file)


def _rows(rows: int) -> str:
    def pick(words: tuple[str, ...], salt: int) -> str:
        listed = ", ".join(f"'{word}'" for word in words)
        return f"([{listed}])[1 + (hash(i, {salt}) % {len(words)})::INTEGER]"

    prompt = f"{pick(_OPENINGS, 1)} || ' ' || {pick(_TASKS, 2)} || '? It is case ' || (hash(i, 3) % 100000)::VARCHAR"
    listed = ", ".join(f"'{word}'" for word in _WORDS)

    def sentence(salt: int) -> str:
        words = (f"([{listed}])[1 + ((hash(i, {salt}) >> {6 * place}) & 63)::INTEGER]" for place in range(9))
        return "concat_ws(' ', " + ", ".join(words) + ")"

    chosen = " || '. ' || ".join(sentence(salt) for salt in (4, 5))
    rejected = sentence(7)
    ending = f"CASE WHEN hash(i, 9) % 100 = 0 THEN ' Mind the {WORD}.' ELSE '' END"
    return (
        f"SELECT i AS id, {pick(_SOURCES, 10)} AS source, {prompt} AS prompt, {chosen} || '.' || {ending} AS chosen, "
        f"{rejected} || '.' AS rejected, (20 + hash(i, 11) % 480)::INTEGER AS tokens FROM range({rows}) t(i)"
    )


def measure(file: Path) -> None:
    """Print the medians."""
    from workbench.dataset_reading import recognise_file
    from workbench.dataset_window import open_window

    fresh = [_in_a_new_process(file) for _ in range(TIMES)]
    _say("open and first rows, new process, with the import of duckdb", fresh)
    window = open_window(file, recognise_file(file))
    try:
        total = window.rows_so_far
        window.rows(0, PAGE_ROWS)
        chance = random.Random(7)
        pages = [_ms(lambda: window.rows(chance.randrange(total), PAGE_ROWS)) for _ in range(21)]
        _say("page at a random place", pages)
        _say("the last page", [_ms(lambda: window.rows(total - PAGE_ROWS, PAGE_ROWS)) for _ in range(TIMES)])
        _say("first hits of a common word", [_ms(lambda: _first_hits(window)) for _ in range(TIMES)])
        _say("the whole scan for it", [_ms(lambda: sum(len(found.numbers) for found in window.matching(WORD)))])
    finally:
        window.close()
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def _first_hits(window: RowWindow) -> list[int]:
    return next(list(found.numbers) for found in window.matching(WORD) if found.numbers)


def _in_a_new_process(file: Path) -> float:
    """Milliseconds to the first rows, told by the process itself: Python's own start is not the grid's."""
    program = (
        "import sys, time; from pathlib import Path\n"
        "from workbench.dataset_reading import recognise_file\n"
        "from workbench.dataset_window import open_window\n"
        "began = time.perf_counter(); file = Path(sys.argv[1]); window = open_window(file, recognise_file(file))\n"
        f"window.rows(0, {PAGE_ROWS}); print(1000 * (time.perf_counter() - began))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _ms(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def _say(what: str, times_ms: list[float]) -> None:
    print(f"{what}: {statistics.median(times_ms):.1f} ms (of {len(times_ms)}; slowest {max(times_ms):.1f})")


if __name__ == "__main__":
    sys.exit(main())
