"""One column in one pass and bounded memory: missing values, distinct ones, the most frequent, least and largest.

Distinct values and the counts of the most frequent are exact (`value_counts`). Where there is no disk for that, the
SMALLEST smallest hashes estimate how many there are (Bar-Yossef et al. 2002; standard error 1/sqrt(SMALLEST - 2),
2.2 %), and the count of a frequent value is at least what is said, and at most `uncounted` more (Misra & Gries 1982).
The texts of KEPT frequent values are held: one that comes in more than a 1/KEPT of the rows is always among them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.canonical_rows import type_name
from workbench.dataset_window import cell_of
from workbench.near_duplicates import hash_of
from workbench.value_counts import ValueCounts

SMALLEST = 2048
KEPT = 512
SHOWN, SHOWN_CHARACTERS = 5, 80
_HASHES = 1 << 63


class ColumnProfile:
    """What is known of a column so far."""

    def __init__(self, name: str, spill: Path | None = None) -> None:
        """`spill` is a new file for the hashes of a column of many values; without one they are estimated."""
        self.name = name
        self.values = 0
        """Those that are there."""
        self.nulls = 0
        """Values that are null; rows without the column are missing, and only whoever counts rows knows of them."""
        self.empty = 0
        """Texts without a character but white space."""
        self._kinds: dict[str, int] = {}
        self._values = ValueCounts(spill)
        self._smallest: list[int] = []
        self._among: set[int] = set()
        self._counts: dict[int, int] = {}
        self._texts: dict[int, str] = {}
        self._uncounted = 0
        self._least, self._largest, self._sum, self._numbers = math.inf, -math.inf, 0.0, 0

    def add(self, value: Any) -> None:
        """One value, as the file has it."""
        if value is None:
            self.nulls += 1
            return
        self.values += 1
        kind = type_name(value)
        self._kinds[kind] = self._kinds.get(kind, 0) + 1
        if isinstance(value, str) and not value.strip():
            self.empty += 1
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            self._least, self._largest = min(self._least, value), max(self._largest, value)
            self._sum += value
            self._numbers += 1
        text = cell_of(value) or ""
        key = hash_of(text.encode("utf-8", "surrogatepass"))
        self._values.add(key)
        self._add_smallest(key)
        self._add_count(key, text)

    def as_json(self, rows: int, check: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """What was found in `rows` rows; `check` is called now and then, and may raise."""
        counted = self._values.counted(list(self._counts), check)
        distinct = counted.distinct if counted else self._estimate()
        counts = counted.counts if counted else self._counts
        most = sorted(counts.items(), key=lambda item: (-item[1], self._texts[item[0]]))[:SHOWN]
        top = [[self._texts[key], count] for key, count in most if count > 1 or distinct <= SHOWN]
        uncounted = self._uncounted
        if counted and (len(counts) == distinct or (most and most[-1][1] >= counted.most_of_others)):
            uncounted = 0
        numbers = {"least": self._least, "largest": self._largest, "mean": self._sum / max(1, self._numbers)}
        return {
            "name": self.name,
            "kinds": dict(sorted(self._kinds.items(), key=lambda item: -item[1])),
            "nulls": self.nulls,
            "missing": rows - self.values - self.nulls,
            "empty": self.empty,
            "distinct": min(distinct, self.values),
            "distinct_is_exact": counted is not None,
            "distinct_refusal": self._values.refusal,
            "top": top,
            "top_uncounted": uncounted,
            **({"numbers": numbers} if self._numbers else {}),
        }

    def _add_smallest(self, key: int) -> None:
        if key in self._among:
            return
        if len(self._smallest) < SMALLEST:
            heapq.heappush(self._smallest, -key)
        elif key < -self._smallest[0]:
            self._among.discard(-heapq.heapreplace(self._smallest, -key))
        else:
            return
        self._among.add(key)

    def _estimate(self) -> int:
        return round((SMALLEST - 1) * _HASHES / -self._smallest[0])

    def _add_count(self, key: int, text: str) -> None:
        if key in self._counts:
            self._counts[key] += 1
        elif len(self._counts) < KEPT:
            self._counts[key] = 1
            self._texts[key] = text[:SHOWN_CHARACTERS] + ("…" if len(text) > SHOWN_CHARACTERS else "")
        else:
            self._uncounted += 1
            for other in [other for other, count in self._counts.items() if count == 1]:
                del self._counts[other], self._texts[other]
            for other in self._counts:
                self._counts[other] -= 1
