"""Which runs are looked at together: those that a pattern finds, and those that differ by their seed alone.

Owns both rules. Invariants: a pattern is looked for in what a person knows a run by (its ID, its given name, its tags
as `tag=word`, and every setting as `key=value`), whatever the case; runs are a group only where everything but the seed
is equal, so a group's mean is of one experiment; the mean is taken at the steps that all of a group have, with the
standard error over runs.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    import numpy as np

    # Copies: a view of a growing array would keep the thread that reads the file from appending to it.
    tables = [
        (np.frombuffer(points.steps[:count], np.int64), np.frombuffer(points.values[:count], np.float64))
        for points, count in [(points, len(points)) for points in curves]
    ]
    if not tables:
        return GroupCurve(Points(), Points(), 0)
    shared = tables[0][0]
    for steps, _ in tables[1:]:
        shared = shared if np.array_equal(shared, steps) else np.intersect1d(shared, steps, assume_unique=True)
    values = np.stack([some[np.searchsorted(steps, shared)] for steps, some in tables])
    with np.errstate(all="ignore"):
        finite = np.isfinite(values).all(axis=0)
        mean = np.where(finite, values.mean(axis=0), np.nan)
        if len(tables) == 1:
            return GroupCurve(_points(shared, mean), Points(), 1)
        error = np.where(finite, values.std(axis=0, ddof=1) / math.sqrt(len(tables)), np.nan)
    return GroupCurve(_points(shared, mean), _points(shared, error), len(tables))


def _points(steps: Any, values: Any) -> Points:
    return Points(array("q", steps.tobytes()), array("d", values.tobytes()))
