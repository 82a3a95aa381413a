"""kill -9 at random moments of scripted sittings: `python -m tests.benchmarks.judgment_kills --kills 1000`.

A sitting is a forked process that opens the journal, sees what stands, and judges pair after pair; it says each number
into a pipe when `append` has returned. After a random number of these, and a random moment more, it is killed; the next
goes on where the journal says that it stopped. The checker reads the journals' bytes, splits, parses and sums lines by
its own code and shares none with the store. Every verdict that was said must be there as it was said; none may be there
twice; and beyond them there may be at most the one that was under way at each kill. One line of JSON comes out; the
exit code is 1 where anything is wrong. Kills do not need a disk: on a tmpfs (`TMPDIR=/dev/shm`) it is minutes faster.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import random
import select
import signal
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from workbench.judgments import Journal, read_judgments

WHO = "alice"
LONGEST_MOMENT_S = 0.002
_WORD = 512
"""Bytes of each number that is said: a page of pipe holds eight, so no writer runs far ahead of who may kill it."""


@dataclass
class Found:
    """What was counted."""

    kills: int = 0
    said: int = 0
    """Verdicts that were acknowledged."""
    lines: int = 0
    unsaid: int = 0
    """Lines that were whole on the disk when their writer died before it could say so."""
    torn: int = 0
    """Lines that a kill left unfinished."""
    problems: list[str] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    """Kill, check, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--judgments", type=int, default=100_000)
    parser.add_argument("--sets", type=int, default=10, help="pair sets that the judgments are divided among")
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args(argv)
    seed = args.seed if args.seed is not None else random.randrange(2**32)
    draw, found, began = random.Random(seed), Found(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="judgment-kills-") as scratch:
        for number in range(args.sets):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            sittings(folder, args.kills // args.sets, args.judgments // args.sets, draw, found)
    print(json.dumps(vars(found) | {"seed": seed, "seconds": round(time.monotonic() - began, 1)}))
    return 1 if found.problems else 0


def sittings(folder: Path, kills: int, judgments: int, draw: random.Random, found: Found) -> None:
    """Sittings on one set until all is judged, `kills` of which are killed; then the check."""
    said: dict[int, str] = {}
    died = 0
    while True:
        left = judgments - len(said)
        due = draw.randrange(max(1, left // (kills - died))) if died < kills else None
        ended = _sit(folder, judgments, due, draw, said, found)
        if ended:
            break
        died += 1
    found.kills += died
    found.said += len(said)
    _check(folder, said, judgments, died, found)


def _sit(
    folder: Path, judgments: int, kill_after: int | None, draw: random.Random, said: dict[int, str], found: Found
) -> bool:
    """One sitting; whether it came to its end. It is killed when it has said so many, and a moment later."""
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 8 * _WORD)
    child = os.fork()
    if child == 0:
        os.close(reads)
        _judge(folder, judgments, writes, draw.randrange(2**32))
    os.close(writes)
    pending, heard, kill_at, alive = b"", 0, math.inf, True
    while True:
        # The pipe is emptied until the very moment, so that the kill meets a writer at work and not one that waits.
        if alive and not select.select([reads], [], [], max(0.0, min(kill_at - time.monotonic(), 60.0)))[0]:
            os.kill(child, signal.SIGKILL)
            alive = False
        data = os.read(reads, 65536)
        if not data:
            break
        pending += data
        whole = len(pending) // _WORD * _WORD
        for place in range(0, whole, _WORD):
            word = pending[place : place + _WORD]
            number = int(word[1:8])
            if number in said:  # a later sitting was asked again, so what was said had not been kept
                found.problems.append(f"pair {number}: said {said[number]}, and asked again")
            said.setdefault(number, word[:1].decode())
            heard += 1
        pending = pending[whole:]
        if kill_after is not None and heard > kill_after and kill_at == math.inf:
            kill_at = time.monotonic() + draw.uniform(0, LONGEST_MOMENT_S)
        if alive and time.monotonic() >= kill_at:
            os.kill(child, signal.SIGKILL)
            alive = False
    os.close(reads)
    return os.waitpid(child, 0)[1] == 0


def _judge(folder: Path, judgments: int, says: int, seed: int) -> None:
    draw, code = random.Random(seed), 1
    try:
        with Journal(folder, WHO) as journal:
            done = {one.pair for one in read_judgments(folder).first}
            for number in range(judgments):
                if f"{number:016x}" not in done:
                    verdict = draw.choice("ab")
                    journal.append(f"{number:016x}", verdict, origin="screen")  # type: ignore[arg-type]
                    os.write(says, f"{verdict}{number:07d}".encode().ljust(_WORD))
        code = 0
    finally:
        os._exit(code)


def _check(folder: Path, said: dict[int, str], judgments: int, kills: int, found: Found) -> None:
    stands: dict[int, str] = {}
    for path in sorted(folder.iterdir()):
        for row in path.read_bytes().split(b"\n"):
            line = _line(row)
            if not row:
                continue
            if line is None:
                found.torn += 1
                continue
            found.lines += 1
            number = int(str(line["pair"]), 16)
            if number in stands:
                found.problems.append(f"{path.name}: pair {number} was judged twice")
            stands[number] = str(line["verdict"])
    for number, verdict in said.items():
        if stands.get(number) != verdict:
            found.problems.append(f"pair {number}: said {verdict}, found {stands.get(number)}")
    found.unsaid += len(stands) - len(said)
    if len(stands) != judgments:
        found.problems.append(f"{len(stands)} of {judgments} pairs have a verdict")
    if len(stands) - len(said) > kills:
        found.problems.append(f"{len(stands) - len(said)} verdicts were never said, in {kills} kills")


def _line(row: bytes) -> dict[str, object] | None:
    """A whole line whose checksum is right: CRC-32 of the other fields, sorted, without spaces."""
    try:
        fields: dict[str, object] = json.loads(row)
        stated = fields.pop("sum")
    except (ValueError, KeyError, AttributeError):
        return None
    plain = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return fields if stated == f"{zlib.crc32(plain):08x}" else None


if __name__ == "__main__":
    sys.exit(main())
