"""The label screen's figures on a pseudo-terminal, beside what Textual itself takes, key by key in turns.

    python tests/benchmarks/label.py [--rounds 5] [--keys 40] [--size 80x24] [--no-peer]

Answers have about 2,000 tokens of Markdown (8,000 characters). Owns the measuring: from the key to the last byte that
the terminal received, medians over the rounds. A verdict's time holds the synced line of the journal; such a line, by
itself in the same folder, is timed between the keys. What is aimed at is the screen's own part: its figure less that
of a blank app, whose key changes one Static, measured in turns with it. Two Markdown widgets with the same answers are
the peer. Nothing is asserted: a busy machine makes every figure worse, so its load is printed with them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.blank_app import BLANK_APP, BLANK_READY  # noqa: E402
from tests.screens.pty_terminal import PAGE_DOWN, PtyTerminal, app_command  # noqa: E402
from workbench.label_form import form_of  # noqa: E402
from workbench.pair_sets import CandidatePair, create_pairs  # noqa: E402
from workbench.workspace import Workspace, init  # noqa: E402

SIZES = ((80, 24), (160, 48))
TARGETS = {"p50": 10.0, "p99": 30.0, "kB": 2.5}
PAIRS = 400
CHARACTERS = 8000
QUIET_S = 0.3
PEER_QUIET_S = 1.0
"""Markdown widgets are drawn in several frames."""
IDLE_S = 5.0
WORDS = [
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
    "then",
    "look",
    "along",
    "the",
    "rim",
    "for",
    "the",
    "dip",
]
_PEER = """
import json, os, sys; os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
from textual.app import App
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Markdown, Static
pairs = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
class Peer(App):
    CSS = "VerticalScroll { width: 1fr; }"
    def compose(self):
        yield Static("peer ready")
        yield Horizontal(VerticalScroll(Markdown(pairs[0]["a"])), VerticalScroll(Markdown(pairs[0]["b"])))
    async def on_key(self, event):
        pairs.append(pairs.pop(0))
        for widget, side in zip(self.query(Markdown), "ab"):
            await widget.update(pairs[0][side])
Peer().run()
"""
OURS, BLANK, SYNCED = "a verdict", "a blank app", "its synced line alone"
LINE = b'{"a line as long as that of a verdict": "' + b"x" * 300 + b'"}\n'
LEAST_BYTES = 200
"""What is shorter is a hint, and no answer to a verdict."""


@dataclass
class Taken:
    """What some keys took."""

    times_ms: list[float]
    sizes: list[int]
    cpu_ms: float = 0.0
    """Of the processor, a key: what a busy machine changes least."""

    def at(self, share: float) -> float:
        """A quantile of the times: the smallest that so many are not above."""
        ordered = sorted(self.times_ms)
        return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def answer(seed: int) -> str:
    """Markdown of about 2,000 tokens: paragraphs, a list, code, emphasis."""
    text, place = "", seed
    while len(text) < CHARACTERS:
        words = [WORDS[(place * place + n * seed + n) % len(WORDS)] for n in range(40)]
        kind = place % 5
        line = " ".join(words)
        if kind == 1:
            text += "".join(f"- {' '.join(words[n : n + 8])}\n" for n in range(0, 40, 8)) + "\n"
        elif kind == 2:
            text += f"```python\nfor {words[0]} in range({place}):\n    {words[1]}({words[2]})\n```\n\n"
        elif kind == 3:
            text += f"## {words[0]} {words[1]}\n\n{line}.\n\n"
        else:
            text += f"{line}, **{words[3]} {words[4]}** and `{words[5]}`.\n\n"
        place += 1
    return text.strip()


def make(folder: Path) -> tuple[Workspace, Path]:
    """A workspace with the pairs, and the same pairs as lines for the peer."""
    pairs = [
        CandidatePair(f"What should I check first on wheel {n}?", answer(n * 7 + 1), answer(n * 7 + 5))
        for n in range(PAIRS)
    ]
    workspace = init(folder / "ws")
    create_pairs(workspace, "long", pairs, {"made": "here"}, form=form_of("5"))
    lines = folder / "pairs.jsonl"
    lines.write_text("".join(json.dumps({"a": pair.a, "b": pair.b}) + "\n" for pair in pairs), "utf-8")
    return workspace, lines


def press(terminal: PtyTerminal, keys: Sequence[str], quiet_s: float = QUIET_S, least: int = LEAST_BYTES) -> Taken:
    """Each key when everything was quiet; it is over when something came and then nothing for `quiet_s`."""
    taken, cpu_before = Taken([], []), cpu_s(terminal)
    for key in keys:
        before, at = terminal.count, terminal.send(key)
        last = terminal.answer(quiet_s)
        if terminal.count - before > least:
            taken.times_ms.append(1000 * (last - at))
            taken.sizes.append(terminal.count - before)
    taken.cpu_ms = 1000 * (cpu_s(terminal) - cpu_before) / len(keys)
    return taken


def in_turns(terminal: PtyTerminal, blank: PtyTerminal, keys: Sequence[str], folder: Path) -> dict[str, Taken]:
    """Each key to the label screen and to the blank app, and a synced line; now the one first, now the other."""
    found = {OURS: Taken([], []), BLANK: Taken([], []), SYNCED: Taken([], [])}
    descriptor = os.open(folder / "synced", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number, key in enumerate(keys):
        both = [(OURS, terminal, LEAST_BYTES), (BLANK, blank, 0)]
        for name, one, least in both[:: 1 if number % 2 else -1]:
            took = press(one, [key], least=least)
            found[name].times_ms += took.times_ms
            found[name].sizes += took.sizes
            found[name].cpu_ms += took.cpu_ms / len(keys)
        at = time.perf_counter()
        os.write(descriptor, LINE)
        os.fdatasync(descriptor)
        found[SYNCED].times_ms.append(1000 * (time.perf_counter() - at))
        found[SYNCED].sizes.append(len(LINE))
    os.close(descriptor)
    return found


def cpu_s(terminal: PtyTerminal) -> float:
    """What the program has used of the processor, all its threads, in steps of 10 ms."""
    fields = Path(f"/proc/{terminal.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ours(workspace: Workspace, size: tuple[int, int], keys: int) -> dict[str, Taken | int]:
    """Verdicts, pages, the difference on and off, and what is sent at rest."""
    command = app_command(workspace.root, "--station", "label", "--subject", "long")
    with (
        PtyTerminal(command, size=size) as terminal,
        PtyTerminal(BLANK_APP, size=size) as blank,
    ):
        terminal.sees("wheel")
        blank.sees(BLANK_READY)
        terminal.settle(1.0)
        blank.settle(1.0)
        verdicts = [str(n % 5 + 1) for n in range(keys)]
        found: dict[str, Taken | int] = {**in_turns(terminal, blank, verdicts, workspace.root)}
        found["a page on"] = press(terminal, [PAGE_DOWN] * 4)
        found["a verdict after pages"] = press(terminal, ["1"])
        found["undo"] = press(terminal, ["u"] * 6)
        found["the difference"] = press(terminal, ["d"] * 8)
        found["idle"] = terminal.read(IDLE_S)
        return found


def peer(lines: Path, size: tuple[int, int], keys: int) -> dict[str, Taken | int]:
    """Another pair in two Markdown widgets."""
    with PtyTerminal([sys.executable, "-c", _PEER, str(lines)], size=size) as terminal:
        terminal.sees("peer ready", 180)
        terminal.settle(1.5)
        return {"two Markdown widgets": press(terminal, ["n"] * keys, PEER_QUIET_S), "idle": terminal.read(IDLE_S)}


def report(size: tuple[int, int], rounds: Sequence[dict[str, Taken | int]]) -> Iterator[str]:
    """A line for each kind of key, medians over the rounds; and the label screen's own part."""
    place = f"{size[0]}x{size[1]:<5}"
    for name in rounds[0]:
        takes = [one[name] for one in rounds]
        if name == "idle":
            sent = max(one for one in takes if isinstance(one, int))
            yield f"{place}{f'at rest, {IDLE_S:.0f} s':<24}{sent:>8} bytes"
            continue
        measured = [one for one in takes if isinstance(one, Taken) and one.times_ms]
        p50, p99 = (statistics.median(one.at(share) for one in measured) for share in (0.5, 0.99))
        kilobytes = statistics.median(statistics.median(one.sizes) for one in measured) / 1000
        most = max(max(one.sizes) for one in measured) / 1000
        keys, cpu = sum(len(one.times_ms) for one in measured), statistics.median(one.cpu_ms for one in measured)
        yield (
            f"{place}{name:<24}{p50:>8.1f} ms{p99:>8.1f} ms{cpu:>8.1f} ms{kilobytes:>8.2f} kB"
            f"{most:>8.2f} kB{keys:>6} keys"
        )
    if OURS in rounds[0]:
        yield place + own_part(size, rounds)


def own_part(size: tuple[int, int], rounds: Sequence[dict[str, Taken | int]]) -> str:
    """What the label screen takes more than a blank app, against what is aimed at."""
    figures: dict[str, float] = {}
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        differences = []
        for one in rounds:
            mine, blank = one[OURS], one[BLANK]
            assert isinstance(mine, Taken)
            assert isinstance(blank, Taken)
            differences.append(mine.at(share) - blank.at(share))
            figures["kB"] = max(figures.get("kB", 0.0), statistics.median(mine.sizes) / 1000)
        figures[name] = statistics.median(differences)
    missed = [name for name, most in TARGETS.items() if figures[name] > most and (name != "kB" or size[0] == 80)]
    met = f"MISSED {' '.join(missed)}" if missed else "met"
    return f"{'less the blank app':<24}{figures['p50']:>8.1f} ms{figures['p99']:>8.1f} ms  {met}"


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys", type=int, default=40, help="verdicts a round")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--size", choices=["80x24", "160x48"], help="of the terminal (both)")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="workbench-label-"))
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{os.cpu_count()} cores, load {load}; medians of {args.rounds} rounds; targets {TARGETS}")
    print(f"{'':<8}{'':<24}{'p50':>11}{'p99':>11}{'cpu':>11}{'median':>11}{'most':>11}")
    try:
        for size in [one for one in SIZES if args.size in (None, f"{one[0]}x{one[1]}")]:
            mine, theirs = [], []
            for number in range(args.rounds):
                place = folder / f"{size[0]}-{number}"
                place.mkdir()
                workspace, lines = make(place)
                mine.append(ours(workspace, size, args.keys))
                if not args.no_peer:
                    theirs.append(peer(lines, size, max(5, args.keys // 4)))
            for line in [*report(size, mine), *(report(size, theirs) if theirs else ())]:
                print(line, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
