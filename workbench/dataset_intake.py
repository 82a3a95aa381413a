"""Reading a data file once, from its first row to its last, to learn what a dataset made of it would be.

Owns the sample from which the shape is recognised, the conversion of a stream of raw rows, and the log of the rows that
are not used. Invariant: every row of the file is either counted as usable or counted under one reason.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from workbench.canonical_rows import CanonicalRow, RowRejected
from workbench.dataset_reading import FileKind, RawRejection, RawRow, ReadEvent, excerpt, place_word, read_rows
from workbench.dataset_shapes import Recognition, column_kinds, recognise
from workbench.errors import UnreadableData, UsageError
from workbench.row_conversion import to_canonical

MAX_REJECTIONS_KEPT = 10_000
"""All rejected rows are counted; so many are written out with their excerpt."""
_SAMPLE_ROWS = 256
_SAMPLE_BYTES = 16_000_000
_MOST_LEADING_FAULTS = 10_000
"""So many unreadable rows may stand before the sample is full; then the shape is told from what there is."""
Progress = Callable[[int], None]
"""Called with the number of rows read so far."""


@dataclass(frozen=True)
class Intake:
    """What one reading of a file found."""

    recognition: Recognition
    rows: int
    columns: dict[str, list[str]]
    rejected: dict[str, int]


def read_and_count(
    file: Path,
    kind: FileKind,
    name: str,
    mapping: Mapping[str, str] | None,
    rejected_path: Path,
    progress: Progress | None = None,
    recognition: Recognition | None = None,
) -> Intake:
    """Recognises the shape from the first rows, converts and counts all, writes the rejected ones.

    With a `recognition` the shape is known, and nothing is guessed.

    Raises UnreadableData where no row is usable, UsageError where the mapping does not fit the columns.
    """
    events = read_rows(file, kind)
    first = first_events(events)
    sample = [event.value for event in first if isinstance(event, RawRow)]
    log = _RejectionLog(rejected_path, place_word(kind))
    rows = 0
    try:
        if not sample:
            log.add_all(event for event in chain(first, events) if isinstance(event, RawRejection))
            raise UnreadableData(log.why_nothing_is_left(file, ""))
        recognition = recognition or _recognise(file, sample, mapping)
        for seen, event in enumerate(convert(chain(first, events), recognition, name), start=1):
            if isinstance(event, RawRejection):
                log.add(event)
            else:
                rows += 1
            if progress and seen % 1000 == 0:
                progress(seen)
    finally:
        log.close()
    if rows == 0:
        raise UnreadableData(log.why_nothing_is_left(file, recognition.why))
    return Intake(recognition, rows, column_kinds(sample), dict(log.counts.most_common()))


def convert(events: Iterable[ReadEvent], recognition: Recognition, name: str) -> Iterator[CanonicalRow | RawRejection]:
    """Canonical rows and rejections, in order. A row's id is NAME:NUMBER, its line or ordinal in the file."""
    for event in events:
        if isinstance(event, RawRejection):
            yield event
            continue
        try:
            yield to_canonical(event.value, recognition, f"{name}:{event.number}")
        except RowRejected as error:
            yield RawRejection(event.number, error.reason, error.detail, _excerpt_of(event.value))


def _excerpt_of(row: dict[str, Any]) -> str:
    try:
        return excerpt(orjson.dumps(row, default=str, option=orjson.OPT_NON_STR_KEYS))
    except TypeError:  # an integer of more than 64 bits
        return excerpt(repr(row).encode("utf-8", "backslashreplace"))


def _recognise(file: Path, sample: list[dict[str, Any]], mapping: Mapping[str, str] | None) -> Recognition:
    try:
        return recognise(sample, mapping)
    except (UnreadableData, UsageError) as error:
        raise type(error)(f"{file}: {error}") from error


def first_events(events: Iterator[ReadEvent]) -> list[ReadEvent]:
    """The rows from which the shape is told, and the unreadable ones among them."""
    first: list[ReadEvent] = []
    good = size = 0
    for event in events:
        first.append(event)
        if isinstance(event, RawRow):
            good += 1
            size += event.size
        if good >= _SAMPLE_ROWS or size >= _SAMPLE_BYTES or len(first) - good >= _MOST_LEADING_FAULTS:
            break
    return first


class _RejectionLog:
    """Counts rejected rows by reason and writes the first MAX_REJECTIONS_KEPT of them; makes no file for none."""

    def __init__(self, path: Path, place: str) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._path = path
        self._place = place
        self._file: Any = None

    def add(self, rejection: RawRejection) -> None:
        place = f"{self._place} {rejection.number}"
        self.counts[rejection.reason] += 1
        self._first.setdefault(rejection.reason, place + (f": {rejection.detail}" if rejection.detail else ""))
        if self.counts.total() > MAX_REJECTIONS_KEPT:
            return
        if self._file is None:
            self._file = open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: SIM115
        entry = {"schema": 1, "place": place, "reason": rejection.reason, "detail": rejection.detail}
        self._file.write(orjson.dumps({**entry, "excerpt": rejection.excerpt}) + b"\n")

    def add_all(self, rejections: Iterable[RawRejection]) -> None:
        for rejection in rejections:
            self.add(rejection)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def why_nothing_is_left(self, file: Path, shape_seen: str) -> str:
        """One sentence for a file without any usable row."""
        if not self.counts:
            return f"{file} is empty: it has no rows."
        reasons = "; ".join(
            f"{count} × {reason} (first: {self._first[reason]})" for reason, count in self.counts.most_common(3)
        )
        seen = f" It was read as: {shape_seen}" if shape_seen else ""
        return f"{file} has no usable row: {reasons}.{seen}"
