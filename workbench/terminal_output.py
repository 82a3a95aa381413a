"""What the command line writes: tables and sentences for people, JSON for programs, progress on stderr.

Owns the last step before a terminal. Invariants: stdout carries data, stderr progress and errors; every text passes
`engine.run.safe_text.safe` before a person sees it; `--json` is exact in a pipe or a file, and on a terminal it is the
same JSON with everything but printable ASCII escaped. There is no colour anywhere.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TextIO

from engine.run.safe_text import safe
from workbench.text_wrapping import cells, cut

NARROWEST, USUAL_WIDTH = 60, 80
GAP = "  "


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    heading: str
    right: bool = False
    """Numbers stand on the right."""
    shrinks: bool = False
    """May be cut with "…" where the table is too wide; names that are typed again never are."""


def write_json(value: object) -> None:
    """`value` as JSON on stdout; numbers that are not finite become null."""
    plain = without_nonfinite(value)
    if sys.stdout.isatty():
        text = json.dumps(plain, indent=2, allow_nan=False).replace("\x7f", "\\u007f")
    else:
        text = _exact_json(plain, indent=2)
    print(text)


def json_line(value: object) -> str:
    """`value` as one line of JSON, as exact (or as escaped) as `write_json`."""
    plain = without_nonfinite(value)
    if sys.stdout.isatty():
        return json.dumps(plain, allow_nan=False).replace("\x7f", "\\u007f")
    return _exact_json(plain, indent=None)


def say(text: str = "") -> None:
    """One line of data for a person, on stdout."""
    print(safe(text))


def note(text: str) -> None:
    """One line about what is going on, on stderr."""
    print(safe(text), file=sys.stderr, flush=True)


def write_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """An aligned table on stdout; `empty` is said on stderr where there are no rows.

    On a terminal it fits; in a pipe or a file nothing is cut.
    """
    cells = [list(row) for row in rows]
    if not cells:
        note(empty)
        return
    for line in table_lines(columns, cells, line_width() if sys.stdout.isatty() else sys.maxsize):
        print(line)


def write_fields(fields: Mapping[str, str]) -> None:
    """Aligned `name  value` lines on stdout."""
    for line in field_lines(fields, line_width()):
        print(line)


def field_lines(fields: Mapping[str, str], width: int = 0) -> list[str]:
    """Aligned `name  value` lines, safe for a terminal; a value of several lines is indented.

    With a `width`, long values go on in the next line between words; a path or hash is never broken.
    """
    widest = max((len(name) for name in fields), default=0)
    lines = []
    for name, value in fields.items():
        shown = [part for line in value.split("\n") for part in _wrapped(safe(line), width - widest - len(GAP))]
        lines.append(f"{safe(name):<{widest}}{GAP}{shown[0]}".rstrip())
        lines += [f"{'':<{widest}}{GAP}{line}".rstrip() for line in shown[1:]]
    return lines


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int = USUAL_WIDTH) -> list[str]:
    """The lines of an aligned table, no wider than `width` where the columns that may shrink allow it."""
    lines = [[column.heading for column in columns], *[[safe(cell) for cell in row] for row in rows]]
    widths = [max(cells(line[index]) for line in lines) for index in range(len(columns))]
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    while excess > 0:
        shrinking = [index for index, column in enumerate(columns) if column.shrinks and widths[index] > 8]
        if not shrinking:
            break
        widest = max(shrinking, key=lambda index: widths[index])
        widths[widest] -= 1
        excess -= 1
    return [
        GAP.join(_pad(cut(cell, widths[i]), widths[i], columns[i].right) for i, cell in enumerate(row)).rstrip()
        for row in lines
    ]


def line_width() -> int:
    """Columns of the terminal that stdout is, or 80."""
    if not sys.stdout.isatty():
        return USUAL_WIDTH
    return max(NARROWEST, shutil.get_terminal_size((USUAL_WIDTH, 24)).columns)


def number(value: float | int | None, digits: int = 3) -> str:
    """A number for a table: "-" where there is none, a plain decimal where it is of ordinary size."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.{digits}g}"


def counted(count: int, one: str, many: str = "") -> str:
    """A count with its noun: 1 row, 2 rows."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def local_time(written: str) -> str:
    """An ISO 8601 time in this machine's zone, to the minute; what is no time is left as it is."""
    try:
        return datetime.fromisoformat(written).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return written


def duration(seconds: float | None) -> str:
    """A time span as a person says it: 4.2s, 3m 20s, 2h 05m, 3d 04h."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours < 48 else f"{hours // 24}d {hours % 24:02d}h"


def time_left(seconds: float) -> str:
    """How long something will still take, as it is said everywhere: 4s left, 3m 20s left, 2h 05m left."""
    return f"{duration(seconds)} left" if seconds >= 10 else f"{max(0, round(seconds))}s left"


class Progress:
    """Progress of one piece of work on stderr: one line that renews itself on a terminal, a line now and then else."""

    def __init__(self, what: str, *, quiet: bool = False, every_s: float = 10.0, stream: TextIO | None = None) -> None:
        self._what = what
        self._quiet = quiet
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._every_s = 0.1 if self._live else every_s
        self._last = time.monotonic()
        self._drawn = False

    def update(self, done: float, total: float, what: str = "") -> None:
        """Show that `done` of `total` is done; most calls draw nothing."""
        now = time.monotonic()
        if self._quiet or now - self._last < self._every_s:
            return
        self._last = now
        share = f" {100 * done / total:3.0f} %" if total else f" {done:,.0f}"
        line = safe(f"{self._what}{share}{GAP}{what}".rstrip())
        if self._live:
            print("\r\x1b[K" + cut(line, line_width() - 1), end="", file=self._stream, flush=True)
            self._drawn = True
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Take the renewing line away."""
        if self._drawn:
            print("\r\x1b[K", end="", file=self._stream, flush=True)
            self._drawn = False


def _exact_json(plain: object, indent: int | None) -> str:
    """JSON as UTF-8 where the stream can carry it; a lone surrogate or another encoding makes it all ASCII."""
    text = json.dumps(plain, indent=indent, allow_nan=False, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(plain, indent=indent, allow_nan=False)
    return text


def without_nonfinite(value: Any) -> Any:
    """`value` with null for every number that JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nonfinite(item) for item in value]
    return value


def _wrapped(text: str, width: int) -> list[str]:
    if width < NARROWEST // 2 or len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [text]


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - cells(text))
    return space + text if right else text + space
