"""Lengths of many texts: percentiles, a histogram by powers of two, the share above a limit. Exact; 8 bytes each."""

from __future__ import annotations

from array import array
from typing import Any

from workbench.statistics import quantile

PERCENTILES = (50, 90, 95, 99)


class Lengths:
    """The lengths of one part of every row."""

    def __init__(self) -> None:
        self._lengths = array("q")

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, length: int) -> None:
        """One more."""
        self._lengths.append(length)

    def as_json(self, limit: int = 0) -> dict[str, Any]:
        """p50 to p99, max, mean, how many lie in [low, high) for powers of two; with a `limit` the share above it."""
        import numpy as np

        if not self._lengths:
            return {"count": 0}
        ordered: Any = np.sort(np.frombuffer(self._lengths, np.int64))
        bits = np.ceil(np.log2(ordered + 1)).astype(int)
        counts = np.bincount(bits)
        histogram = [[1 << place >> 1, 1 << place, int(count)] for place, count in enumerate(counts) if count]
        found = {
            "count": len(ordered),
            **{f"p{share}": float(quantile(ordered, share / 100)) for share in PERCENTILES},
            "max": int(ordered[-1]),
            "mean": float(ordered.mean()),
            "histogram": histogram,
        }
        if limit:
            found |= {"limit": limit, "above_limit": float((ordered > limit).mean())}
        return found
