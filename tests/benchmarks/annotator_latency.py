"""From a verdict to its line on the disk and the next pair's claim, with several people at once.

    python -m tests.benchmarks.annotator_latency --annotators 8

Each annotator is a forked process with a sitting of the store, on one set with an overlap of two; between verdicts they
wait as long as a fast person would (`--pause`, seconds; 0: not at all). Beside each verdict, in turn, the same process
times one plain write of as many bytes with fdatasync to a file of its own: that is what the disk alone costs now.
Medians and 99th percentiles in milliseconds are printed; goal: p99 under 25 ms with eight.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from engine.run.locks import excludes
from workbench.labeling import Sitting
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.pair_sharing import Sharing
from workbench.statistics import quantile
from workbench.workspace import init

LINE_BYTES = 320


def main(argv: list[str] | None = None) -> int:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--annotators", type=int, default=8)
    parser.add_argument("--verdicts", type=int, default=100, help="of each annotator")
    parser.add_argument("--pause", type=float, default=0.2)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="annotator-latency-") as scratch:
        folder = Path(scratch)
        count = args.annotators * args.verdicts
        rows = (CandidatePair(f"question {n}", "yes", f"no {n}") for n in range(count))
        made = create_pairs(init(folder / "ws"), "s", rows, {"dataset": "d"}, sharing=Sharing(overlap=2))
        (made.folder / "claims").mkdir(mode=0o700)
        excludes(made.folder / "claims")
        children = [_start(made, f"p{n}", folder, args.verdicts, args.pause) for n in range(args.annotators)]
        codes = [os.waitpid(child, 0)[1] for child in children]
        told = [json.loads(path.read_text()) for path in sorted(folder.glob("p*.json"))]
    told_of = {what: sorted(1000 * value for one in told for value in one[what]) for what in ("verdict", "plain")}
    figures = {
        f"{what}_p{share}_ms": round(quantile(values, share / 100), 2)
        for what, values in told_of.items()
        for share in (50, 99)
    }
    print(
        json.dumps(
            {"annotators": args.annotators, "pause_s": args.pause, "verdicts": len(told_of["verdict"])} | figures
        )
    )
    return int(any(codes))


def _start(made: PairSet, who: str, folder: Path, verdicts: int, pause_s: float) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        (folder / f"{who}.json").write_text(json.dumps(_label(made, who, folder, verdicts, pause_s)))
        code = 0
    finally:
        os._exit(code)


def _label(made: PairSet, who: str, folder: Path, verdicts: int, pause_s: float) -> dict[str, list[float]]:
    draw, took, plain = random.Random(who), [], []
    beside = os.open(folder / f"{who}.plain", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with Sitting(made, who) as sitting:
        sitting.open_journal()
        for _ in range(verdicts):
            time.sleep(draw.uniform(0, 2 * pause_s))
            began = time.perf_counter()
            sitting.judge("left")
            took.append(time.perf_counter() - began)
            began = time.perf_counter()
            os.write(beside, b"x" * LINE_BYTES)
            os.fdatasync(beside)
            plain.append(time.perf_counter() - began)
    return {"verdict": took, "plain": plain}


if __name__ == "__main__":
    sys.exit(main())
