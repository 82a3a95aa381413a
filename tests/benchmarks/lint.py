"""How long lint takes, how much memory, and which of the planted near-duplicates it finds.

    python -m tests.benchmarks.lint                      42,000 rows of chat-like preferences
    python -m tests.benchmarks.lint --rows 200000

Makes its own rows from a seed: preferences of about 1,200 characters, of which 2 % are the same again with a share of
their words replaced, at a similarity that is counted exactly (Jaccard, runs of 8 bytes of prompt and of answers). Runs
lint in a process of its own, so that its peak memory is lint's. Times are CPU time; nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from workbench.near_duplicates import SHINGLE_BYTES, THRESHOLD, normal

WORDS = 4000
SHARE_PLANTED = 0.02
Row = dict[str, str]


def main() -> None:
    """Make the rows, lint them, say what it took and what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=42_000)
    parser.add_argument("--child", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _child(Path(args.child))
        return
    with tempfile.TemporaryDirectory() as folder:
        planted, megabytes = _make(Path(folder), args.rows)
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        command = [sys.executable, "-m", "tests.benchmarks.lint", "--child", folder]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        told = json.loads(done.stdout.splitlines()[-1])
    found = set(told["near"])
    print(f"{args.rows:,} rows, {megabytes:,.0f} MB")
    print(f"  adding them                 {told['added_s']:6.1f} s of CPU time")
    print(f"  linting them                {told['all_s']:6.1f} s, peak {told['peak_mb']:,.0f} MB")
    print(f"  without near-duplicates     {told['without_near_s']:6.1f} s")
    print("  planted pairs by true similarity (the part least alike), and how many were found")
    for low, high in ((0.5, 0.7), (0.7, 0.75), (0.75, 0.8), (0.8, 0.85), (0.85, 0.9), (0.9, 1.01)):
        inside = [line for line, share in planted.items() if low <= share < high]
        if inside:
            hits = sum(line in found for line in inside)
            print(f"    {low:.2f} to {min(high, 1):.2f}   {len(inside):5,}   found {hits:5,}")
    print(f"  found and not planted: {len(found - planted.keys()):,}; the threshold is {THRESHOLD}")


def _make(folder: Path, rows: int) -> tuple[dict[int, float], float]:
    """Writes the rows; {line of a planted row: how alike it truly is}, megabytes."""
    rng = random.Random(1)
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 10))) for _ in range(WORDS)]

    def text(count: int) -> str:
        return " ".join(rng.choices(words, k=count))

    made: list[Row] = []
    planted: dict[int, float] = {}
    file = folder / "rows.jsonl"
    with open(file, "wb") as lines:
        for line in range(1, rows + 1):
            if len(made) > 200 and rng.random() < SHARE_PLANTED:
                row, planted[line] = _changed(rng, words, rng.choice(made))
            else:
                row = {"prompt": text(40), "chosen": text(rng.randint(40, 120)), "rejected": text(rng.randint(40, 120))}
                made = [*made[-2000:], row]
            lines.write(orjson.dumps(row) + b"\n")
    return planted, file.stat().st_size / 1e6


def _changed(rng: random.Random, words: list[str], row: Row) -> tuple[Row, float]:
    """The row with some words of each part replaced, and how alike the part least alike is."""
    share = rng.uniform(0.002, 0.12)
    changed = {name: " ".join(rng.choice(words) if rng.random() < share else word for word in text.split())
               for name, text in row.items()}  # fmt: skip
    changed["rejected"] += " indeed"  # never the very same row
    parts = [("prompt",), ("chosen", "rejected")]
    return changed, min(_jaccard([row[n] for n in part], [changed[n] for n in part]) for part in parts)


def _jaccard(one: list[str], other: list[str]) -> float:
    first, second = (
        {
            t[i : i + SHINGLE_BYTES]
            for t in [b"\x1f".join(map(normal, texts))]
            for i in range(len(t) - SHINGLE_BYTES + 1)
        }
        for texts in (one, other)
    )
    return len(first & second) / len(first | second)


def _child(folder: Path) -> None:
    from workbench.dataset_store import add_dataset
    from workbench.lint import lint
    from workbench.lint_findings import KINDS
    from workbench.workspace import init

    workspace = init(folder / "ws")
    times: dict[str, Any] = {}
    begun = time.process_time()
    add_dataset(workspace, folder / "rows.jsonl", "rows")
    times["added_s"] = time.process_time() - begun
    for name, only in (("without_near_s", [kind for kind in KINDS if "near" not in kind]), ("all_s", ())):
        begun = time.process_time()
        report = lint(workspace, "rows", only=only)
        times[name] = time.process_time() - begun
    finding = report.finding("near-duplicates")
    near = [index + 1 for index in finding.bits] if finding else []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({**times, "near": near, "peak_mb": peak}))


if __name__ == "__main__":
    main()
