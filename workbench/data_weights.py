"""What a person writes after --data: names of datasets, each with its weight or without.

Owns the form NAME[:WEIGHT] and its errors. Invariants: either every source has a weight or none; no source is named
twice. What the weights do is the engine's (`engine.data.mixture`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from engine.run.config import DataConfig
from workbench.errors import UsageError

EXAMPLE = "--data A:0.7 --data B:0.3"


@dataclass(frozen=True)
class WeightedData:
    """The sources of a run."""

    names: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    """Of each name; empty where every row is taken once an epoch."""


def read_weighted(written: Sequence[str]) -> WeightedData:
    """What --data was given, once or several times. Raises UsageError with what to write."""
    pairs = [_read(one) for one in written]
    names = tuple(name for name, _ in pairs)
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise UsageError(
            f"--data {twice} is given twice. Name each source once; to see one more often than the others, give all "
            f"of them weights: {EXAMPLE}"
        )
    weights = tuple(weight for _, weight in pairs if weight is not None)
    if weights and len(weights) < len(names):
        without = ", ".join(name for name, weight in pairs if weight is None)
        raise UsageError(f"--data {without} has no weight, and others have. Give each one, or none any: {EXAMPLE}")
    if len(weights) == 1:
        raise UsageError(
            f"--data {written[0]}: a weight is a share of a mixture, and there is one source. Leave the weight out; "
            "train.epochs takes a part of the data"
        )
    return WeightedData(names, weights)


def split_written(text: str) -> tuple[str, ...]:
    """The sources in one line of text, parted by commas or spaces."""
    return tuple(re.findall(r"[^\s,]+", text))


def takes_whole(line: str) -> bool:
    """Whether a line that is being typed names more than one source, or a weight."""
    return len(split_written(line)) > 1 or ":" in line


def word_at_end(line: str) -> str:
    """The name that is being typed at the end of a line; empty behind a space."""
    return re.split(r"[\s,]", line)[-1].partition(":")[0]


def with_another(line: str, name: str) -> str:
    """A line with `name` behind it, in the place of the beginning of it that stands there, if any."""
    whole = split_written(line)
    begun = word_at_end(line)
    kept = whole[:-1] if whole and begun and name.startswith(begun) and ":" not in whole[-1] else whole
    return " ".join([*kept, name])


def as_written(data: DataConfig) -> tuple[str, ...]:
    """The sources of a run as one writes them after --data."""
    if len(data.weights) != len(data.names):
        return data.names
    return tuple(f"{name}:{_short(weight)}" for name, weight in zip(data.names, data.weights, strict=True))


def _read(written: str) -> tuple[str, float | None]:
    """(name, weight or None) of one NAME[:WEIGHT]."""
    name, colon, text = written.rpartition(":")
    if not colon:
        return written, None
    try:
        weight = float(text)
    except ValueError:
        name = ""
    if not name or ":" in name:
        raise UsageError(
            f"--data {written}: expected NAME or NAME:WEIGHT, as in {EXAMPLE}. A name holds no colon; what is not in "
            "the workspace yet is added first: workbench data add"
        )
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"--data {written}: the weight must be a number above 0, as in {EXAMPLE}")
    return name, weight


def _short(weight: float) -> str:
    """A weight so that it reads back as the same number."""
    return repr(weight).removesuffix(".0")
