"""Which examples of a run came from which of its datasets.

Owns the division: a frozen file holds the rows of one source after those of another, so a source is a stretch of
examples and nothing is written beside a row. Torch-free.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from engine.data.example_store import StoredExamples


def stretches(rows_each: Sequence[int], examples: StoredExamples[object]) -> list[range]:
    """The indices of the examples from each source, of which the file has `rows_each` rows.

    `examples` are in the order of the file; dropped rows leave none and split rows several.
    """
    found: Any = np.searchsorted(examples.rows(), list(accumulate(rows_each)))
    ends = found.tolist()
    return [range(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]


def spread(parts: Sequence[range], limit: int) -> list[int]:
    """At most `limit` indices, the first of each part, in proportion to the parts and as far as it goes one of each.

    Of a small limit the parts with most examples have theirs.
    """
    whole = sum(map(len, parts))
    if whole <= limit:
        return [index for part in parts for index in part]
    counts = [min(len(part), max(1, limit * len(part) // whole)) for part in parts]
    by_size = sorted(range(len(parts)), key=lambda i: (-len(parts[i]), i))
    place = 0
    while sum(counts) < limit:
        i = by_size[place % len(parts)]
        counts[i] += counts[i] < len(parts[i])
        place += 1
    for i in reversed(by_size):
        counts[i] -= min(counts[i], max(0, sum(counts) - limit))
    return [index for part, count in zip(parts, counts, strict=True) for index in part[:count]]
