"""Several annotators with kills: is a pair ever before, or judged by, more people than its overlap?

    python -m tests.benchmarks.annotators --annotators 8 --kills 200 --pairs 2000 --overlap 2

Each annotator is a forked process that chooses by `claims` and writes by `judgments`, undoing one verdict in twenty.
It says in a common log when a pair came before its eyes and when it went. The checker below reads that log and the
journals' bytes by its own code, shares none with the store, and replays the log: at every moment the people who look at
a pair or have judged it must be at most the overlap. A process is stopped, logged as gone and only then killed, so that
a claim is never taken for shorter than it was. One line of JSON comes out; the exit code is 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from engine.run.locks import excludes
from workbench.claims import Claims
from workbench.judgments import Journal, Showing, read_judgments

UNDO_ONE_IN = 20


@dataclass
class Found:
    """What the checker counted."""

    kills: int = 0
    lines: int = 0
    pairs_full: int = 0
    """Pairs that exactly as many people judged as should."""
    most_at_once: int = 0
    """The most people who looked at one pair, or had judged it, at any moment."""
    problems: list[str] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    """Run the campaign and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--annotators", type=int, default=8)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--overlap", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args(argv)
    seed = args.seed if args.seed is not None else random.randrange(2**32)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="annotators-") as scratch:
        found = campaign(Path(scratch), args.annotators, args.kills, args.pairs, args.overlap, random.Random(seed))
    print(json.dumps(vars(found) | {"seed": seed, "seconds": round(time.monotonic() - began, 1)}))
    return 1 if found.problems else 0


def campaign(folder: Path, people: int, kills: int, pairs: int, overlap: int, draw: random.Random) -> Found:
    """Annotators who are killed at random moments and come back, until all is judged; then the check."""
    (folder / "judgments").mkdir()
    (folder / "claims").mkdir(mode=0o700)
    excludes(folder / "claims")  # once, before the forks: it asks a process of its own
    log = folder / "shown.log"
    said = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    living: dict[int, int] = {}
    found = Found()
    waiting = list(range(people))
    while waiting or living:
        for who in waiting:
            living[_start(folder, who, pairs, overlap, log, draw.randrange(2**32))] = who
        waiting = []
        time.sleep(draw.uniform(0.0, 0.02))
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG) if living else (0, 0)
            if not ended:
                break
            who = living.pop(ended)
            if status:
                found.problems.append(f"p{who} ended with status {status}")
        if living and found.kills < kills:
            victim = draw.choice(list(living))
            os.kill(victim, signal.SIGSTOP)
            if not os.WIFSTOPPED(os.waitpid(victim, os.WUNTRACED)[1]):
                living.pop(victim)  # it was at its end
                continue
            os.write(said, f"gone p{living[victim]} -\n".encode())
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            waiting.append(living.pop(victim))
            found.kills += 1
    os.close(said)
    _check(folder, log, pairs, overlap, min(people, overlap), found)
    return found


def _start(folder: Path, who: int, pairs: int, overlap: int, log: Path, seed: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        _annotate(folder, f"p{who}", [f"{number:016x}" for number in range(pairs)], overlap, log, random.Random(seed))
        code = 0
    finally:
        os._exit(code)


def _annotate(folder: Path, name: str, pairs: list[str], overlap: int, log: Path, draw: random.Random) -> None:
    """One sitting: look at a pair, say so, judge it, say so, let it go; until nothing is left for this person."""
    said = os.open(log, os.O_WRONLY | os.O_APPEND)
    claims = Claims(folder, name, overlap)
    with Journal(folder / "judgments", name) as journal:
        mine = {one.pair for one in read_judgments(folder / "judgments").first if one.annotator == name}
        patience = 200
        while patience:
            pair = claims.choose(one for one in pairs if one not in mine and not claims.is_full(one))
            if not pair:
                # Somebody else may be looking at the last ones, and may die.
                patience = patience - 1 if any(one not in mine and not claims.is_full(one) for one in pairs) else 0
                time.sleep(0.005)
                continue
            os.write(said, f"sees {name} {pair}\n".encode())
            journal.append(pair, draw.choice(("a", "b")), origin="screen")
            os.write(said, f"judged {name} {pair}\n".encode())
            if draw.randrange(UNDO_ONE_IN):
                mine.add(pair)
            else:
                os.write(said, f"undoing {name} {pair}\n".encode())
                journal.undo(Showing(pair, name), origin="screen")
                os.write(said, f"undone {name} {pair}\n".encode())
    claims.close()


def _check(folder: Path, log: Path, pairs: int, overlap: int, expected: int, found: Found) -> None:
    judged_by = _judged(folder, found)
    for number in range(pairs):
        people = judged_by.get(f"{number:016x}", set())
        if len(people) > overlap:
            found.problems.append(f"pair {number} was judged by {sorted(people)}")
        found.pairs_full += len(people) == expected
    if found.pairs_full != pairs:
        found.problems.append(f"only {found.pairs_full} of {pairs} pairs were judged by {expected}")
    _replay(log, overlap, found)


def _judged(folder: Path, found: Found) -> dict[str, set[str]]:
    """Pair → people whose last line on it is a verdict, from the bytes; one journal has its lines in order."""
    last: dict[tuple[str, str], str] = {}
    seen: set[str] = set()
    for path in sorted((folder / "judgments").iterdir()):
        for row in path.read_bytes().split(b"\n"):
            if not row.startswith(b"{") or not row.endswith(b"}"):
                continue
            line = json.loads(row)
            if line["id"] in seen:
                found.problems.append(f"{path.name}: {line['id']} is there twice")
            seen.add(line["id"])
            found.lines += 1
            last[line["annotator"], line["pair"]] = line["verdict"]
    judged: dict[str, set[str]] = {}
    for (who, pair), verdict in last.items():
        if verdict != "undone":
            judged.setdefault(pair, set()).add(who)
    return judged


def _replay(log: Path, overlap: int, found: Found) -> None:
    """At every moment: who looks at a pair, or has judged it."""
    sees: dict[str, str] = {}
    holds: dict[str, set[str]] = {}
    judged: dict[str, set[str]] = {}
    undoing: dict[str, str] = {}
    for number, row in enumerate(log.read_text().splitlines(), start=1):
        what, who, pair = row.split()
        before = undoing.pop(who, "")
        if what == "undoing":
            undoing[who] = pair
            continue
        if what == "gone" and before:
            judged[before].discard(who)  # killed while taking it back: the line may or may not be there
        if before := sees.pop(who, ""):
            holds[before].discard(who)
        if what in ("sees", "undone"):  # a verdict that was taken back leaves its pair before one's eyes
            sees[who] = pair
            holds.setdefault(pair, set()).add(who)
        if what == "judged":
            judged.setdefault(pair, set()).add(who)
        elif what == "undone":
            judged[pair].discard(who)
        people = holds.get(pair, set()) | judged.get(pair, set())
        found.most_at_once = max(found.most_at_once, len(people))
        if len(people) > overlap:
            found.problems.append(f"{log.name}:{number}: pair {pair} is with {sorted(people)}")


if __name__ == "__main__":
    sys.exit(main())
