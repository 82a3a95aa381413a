"""One column in one pass and bounded memory: missing values, distinct ones, the most frequent, least and largest.

Distinct values are counted exactly up to EXACT; beyond that the SMALLEST smallest hashes estimate them (Bar-Yossef et
al. 2002; standard error 1/sqrt(SMALLEST - 2), 2.2 %). The most frequent are exact while there are no more than KEPT
different values; beyond that each count is at least what is said, and at most `uncounted` more (Misra & Gries 1982).
"""

from __future__ import annotations

import heapq
import math
from typing import Any

from workbench.canonical_rows import type_name
from workbench.dataset_window import cell_of
from workbench.near_duplicates import hash_of

EXACT, SMALLEST = 4096, 2048
KEPT = 512
SHOWN, SHOWN_CHARACTERS = 5, 80
_HASHES = 1 << 63


class ColumnProfile:
    """What is known of a column so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values = 0
        """Those that are there."""
        self.nulls = 0
        """Values that are null; rows without the column are missing, and only whoever counts rows knows of them."""
        self.empty = 0
        """Texts without a character but white space."""
        self._kinds: dict[str, int] = {}
        self._seen: set[int] | None = set()
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
        self._add_distinct(key)
        self._add_count(key, text)

    def as_json(self, rows: int) -> dict[str, Any]:
        """What was found in `rows` rows."""
        exact = self._seen is not None
        distinct = len(self._seen) if self._seen is not None else self._estimate()
        most = sorted(self._counts.items(), key=lambda item: (-item[1], self._texts[item[0]]))[:SHOWN]
        top = [[self._texts[key], count] for key, count in most if count > 1 or distinct <= SHOWN]
        numbers = {"least": self._least, "largest": self._largest, "mean": self._sum / max(1, self._numbers)}
        return {
            "name": self.name,
            "kinds": dict(sorted(self._kinds.items(), key=lambda item: -item[1])),
            "nulls": self.nulls,
            "missing": rows - self.values - self.nulls,
            "empty": self.empty,
            "distinct": min(distinct, self.values),
            "distinct_is_exact": exact,
            "top": top,
            "top_uncounted": self._uncounted,
            **({"numbers": numbers} if self._numbers else {}),
        }

    def _add_distinct(self, key: int) -> None:
        if self._seen is not None:
            self._seen.add(key)
            if len(self._seen) > EXACT:
                self._smallest = [-key for key in heapq.nsmallest(SMALLEST, self._seen)]
                heapq.heapify(self._smallest)
                self._among = {-key for key in self._smallest}
                self._seen = None
        elif key < -self._smallest[0] and key not in self._among:
            self._among.discard(-heapq.heapreplace(self._smallest, -key))
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
