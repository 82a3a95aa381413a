"""A comparison of runs as tables of text.

Owns the words and marks: * is the best of those that can be compared, ! a value that cannot be held against the first
run's, with the reason below. Every figure is `run_comparison`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from workbench.errors import NotFound, some_of
from workbench.run_comparison import ABSENT, Comparison, MetricRow
from workbench.terminal_output import Column
from workbench.value_axis import short_number

Table = tuple[list[Column], list[list[str]]]


def setting_table(found: Comparison) -> Table:
    """The settings that differ between runs whose settings are known, a column for each run by its number."""
    runs = [Column(str(number), shrinks=True) for number in range(1, len(found.runs) + 1)]
    known = [any(row.values[place] != ABSENT for row in found.settings) for place in range(len(found.runs))]
    rows = [
        [row.key, *row.values]
        for row in found.settings
        if len({value for value, there in zip(row.values, known, strict=True) if there}) > 1
    ]
    return [Column("setting"), *runs], rows


def metric_table(found: Comparison, metrics: Sequence[str] = ()) -> Table:
    """Last value and best one of each metric and run. `metrics` are names or patterns, else all.

    Raises NotFound where one means nothing.
    """
    for pattern in metrics:
        if not any(fnmatchcase(row.name, pattern) for row in found.metrics):
            raise NotFound(f"no metric {pattern!r}. There are: {some_of([row.name for row in found.metrics], 40)}")
    columns = [Column("metric", shrinks=True)]
    for number in range(1, len(found.runs) + 1):
        columns += [Column(f"{number} last", right=True), Column("best", right=True), Column("at", right=True)]
    rows = [
        [f"{row.name}{f', {row.unit}' if row.unit else ''}", *_cells(row)]
        for row in found.metrics
        if not metrics or any(fnmatchcase(row.name, pattern) for pattern in metrics)
    ]
    return columns, rows


def marks_told(found: Comparison) -> list[str]:
    """What the marks in the table mean, as far as there are any."""
    reasons = sorted({reason for row in found.metrics for reason in row.why_not if reason})
    told = ["* the best of those that can be compared"] if any(row.winners for row in found.metrics) else []
    return told + ([f"! not comparable with run 1: {', '.join(reasons)}"] if reasons else [])


def _cells(row: MetricRow) -> list[str]:
    cells = []
    for place, (value, reason) in enumerate(zip(row.values, row.why_not, strict=True)):
        if value is None:
            cells += ["-", "", ""]
            continue
        mark = "!" if reason else "*" if place in row.winners else ""
        best = "" if value.best is None else short_number(value.best) + mark
        at = "" if value.best_step is None else f"{value.best_step:,}"
        cells += [short_number(value.last) + (mark if value.best is None else ""), best, at]
    return cells
