"""A frame of text that renews itself on a terminal, with as few bytes as will do.

Owns what is sent: only the cells that differ from the frame before. Invariants: nothing is drawn oftener than asked
for; the terminal is given back as it was, however this ends; no byte is sent while nothing changes. Refuses to know
what a frame says.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from workbench.plot_rows import PlotRow, changed_spans
from workbench.text_wrapping import cells

OFTEN_S, RARELY_S = 0.25, 1.0
"""Between frames; the second for slow links."""
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[2J", "\x1b[?25h\x1b[?1049l"


def can_renew(stream: TextIO) -> bool:
    """Whether `stream` is a terminal on which a frame can be renewed."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


def changes(before: Sequence[str], now: Sequence[str], width: int) -> str:
    """What brings a terminal that shows the lines `before` to `now`; empty where they are equal."""
    parts = []
    for y, line in enumerate(now):
        old = before[y] if y < len(before) else ""
        if old == line:
            continue
        if cells(old) != len(old) or cells(line) != len(line):
            parts.append(f"\x1b[{y + 1};1H{line}\x1b[K")
            continue
        longest = max(len(old), len(line))
        rows = [PlotRow(text.ljust(longest), bytes(longest)) for text in (old, line)]
        for x, count in changed_spans(rows[0], rows[1], width):
            parts.append(f"\x1b[{y + 1};{x + 1}H{rows[1].text[x : x + count]}")
    parts += [f"\x1b[{y + 1};1H\x1b[K" for y in range(len(now), len(before))]
    return "".join(parts)


def renew(
    frame: Callable[[int, int], Sequence[str]],
    over: Callable[[], bool],
    stream: TextIO,
    *,
    every_s: float = OFTEN_S,
    size: Callable[[], tuple[int, int]] | None = None,
) -> None:
    """Show `frame(width, height)` and renew it until `over()`; a terminal that changes its size is drawn anew."""
    sized = size or _size
    shown: Sequence[str] = ()
    before = (0, 0)
    with _terminal(stream):
        while True:
            last = over()
            began = time.monotonic()
            now = sized()
            if now != before:
                shown, before = (), now
                stream.write("\x1b[2J")
            lines = frame(*now)
            stream.write(changes(shown, lines, now[0]))
            stream.flush()
            shown = lines
            if last:
                return
            time.sleep(max(0.0, every_s - (time.monotonic() - began)))


@contextmanager
def _terminal(stream: TextIO) -> Iterator[None]:
    stream.write(_ENTER)
    try:
        yield
    finally:
        stream.write(_LEAVE)
        stream.flush()


def _size() -> tuple[int, int]:
    found = shutil.get_terminal_size((80, 24))
    return found.columns, found.lines
