"""Which runs are looked at together: those that a pattern finds, and those that differ by their seed alone.

Owns both rules. Invariants: a pattern is looked for in what a person knows a run by (its ID, its given name, and every
setting as `key=value`), whatever the case; runs are a group only where everything but the seed is equal, so a group's
mean is of one experiment; the mean is taken at the steps that all of a group have, with the standard error over runs.
"""

from __future__ import annotations

import math
import re
import statistics
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from workbench.curves import Points
from workbench.errors import UsageError
from workbench.run_comparison import RunFacts

SEED = "train.seed"
LONGEST_PATTERN = 400


@dataclass(frozen=True)
class GroupCurve:
    """A metric of several runs of one experiment."""

    mean: Points
    error: Points
    """Standard error of the mean over runs; empty where there is one run."""
    runs: int


def pattern_of(text: str) -> re.Pattern[str]:
    """What a person typed, as a pattern. Raises UsageError that says where it is none."""
    if len(text) > LONGEST_PATTERN:
        raise UsageError(f"a pattern of {len(text):,} characters: {LONGEST_PATTERN} are enough. Shorten it.")
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        at = "" if error.pos is None else f" at character {error.pos + 1}"
        raise UsageError(
            f"{text!r} is no regular expression: {error.msg}{at}. Put a backslash before a sign that is meant as it is."
        ) from error


def texts_of(run_id: str, name: str, settings: Mapping[str, str]) -> list[str]:
    """What a pattern is looked for in."""
    return [run_id, name, *(f"{key}={value}" for key, value in settings.items())]


def finds(pattern: re.Pattern[str], texts: Iterable[str]) -> bool:
    """Whether a pattern is found in any of them."""
    return any(pattern.search(text) for text in texts)


def seed_groups(facts: Sequence[RunFacts]) -> tuple[tuple[int, ...], ...]:
    """Places of the runs that belong together, each run in one group, in the order of their first runs.

    A run whose settings are not known is a group of its own.
    """
    groups: dict[object, list[int]] = {}
    for place, one in enumerate(facts):
        rest = tuple(sorted((key, value) for key, value in one.settings.items() if key != SEED))
        groups.setdefault(rest or place, []).append(place)
    return tuple(map(tuple, groups.values()))


def mean_curve(curves: Sequence[Points]) -> GroupCurve:
    """Mean and standard error over runs, at the steps at which every one has a finite value.

    A step at which some run has a value that is no finite number is no finite number in the mean: a gap that is seen.
    """
    tables = []
    for points in curves:
        count = len(points)
        tables.append(dict(zip(points.steps[:count], points.values[:count], strict=True)))
    steps = sorted(set.intersection(*map(set, tables))) if tables else []
    mean, error = array("d"), array("d")
    for step in steps:
        values = [table[step] for table in tables]
        finite = all(map(math.isfinite, values))
        mean.append(statistics.fmean(values) if finite else math.nan)
        error.append(statistics.stdev(values) / math.sqrt(len(values)) if finite and len(values) > 1 else math.nan)
    places = array("q", steps)
    return GroupCurve(
        Points(places, mean), Points(array("q", steps), error) if len(tables) > 1 else Points(), len(tables)
    )
