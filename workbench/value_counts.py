"""How many different values a column holds, and how often some of them come, exactly: by hashes that spill to a file.

Up to EXACT different values are counted in memory. Beyond that 8 bytes of every further value go to a file, and are
counted at the end in passes: one for each PASS_VALUES hashes, which takes those of one remainder, sorts them and counts
runs. So memory is bounded whatever the number of rows, and the disk is asked for 8 bytes a value. Values are told by
63 bits of a hash: among ten million, two different ones meet with a chance of 5e-6. Where the file cannot be written,
or would take the last of the disk, there is no exact answer, and that is said. Refuses to know what a value is.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.cache_room import LEAST_FREE_BYTES, free_bytes

EXACT = 4096
PASS_VALUES = 1 << 21
_HELD = 1 << 13
"""Hashes of a column that wait in memory to be written."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Counted:
    """What a column holds."""

    distinct: int
    counts: dict[int, int]
    """How often the values that were asked for come."""
    most_of_others: int
    """How often the most frequent of all other values comes."""


class ValueCounts:
    """The values of one column, added by their hashes."""

    def __init__(self, file: Path | None) -> None:
        """`file` is a new one, made when it is needed; None where nothing may be written."""
        self._file = file
        self._first: dict[int, int] = {}
        self._held = array("q")
        self._spilled = 0
        self.refusal = ""
        """Why there will be no exact answer; empty while there will be one."""

    def add(self, key: int) -> None:
        """One more value."""
        if key in self._first:
            self._first[key] += 1
        elif len(self._first) < EXACT:
            self._first[key] = 1
        elif not self.refusal:
            self._held.append(key)
            if len(self._held) >= _HELD:
                self._spill()

    def counted(self, wanted: Sequence[int], check: Callable[[], None] = lambda: None) -> Counted | None:
        """The exact answer, with the counts of those `wanted`; None where there is none. `check` may raise."""
        import numpy as np

        if self.refusal:
            return None
        asked: Any = np.sort(np.array(wanted, np.int64))
        passes = 1 + (self._spilled + len(self._held)) // PASS_VALUES
        distinct = most = 0
        counts: dict[int, int] = {}
        for one in range(passes):
            keys, times = self._of_pass(one, passes, check)
            distinct += len(keys)
            is_asked = np.isin(keys, asked, assume_unique=True)
            counts.update(zip(keys[is_asked].tolist(), times[is_asked].tolist(), strict=True))
            others = times[~is_asked]
            most = max(most, int(others.max()) if len(others) else 0)
        return Counted(distinct, counts, most)

    def _of_pass(self, one: int, passes: int, check: Callable[[], None]) -> tuple[Any, Any]:
        """(different hashes, how often each comes) of those of one remainder."""
        import numpy as np

        first = [(key, count) for key, count in self._first.items() if key % passes == one]
        parts = [np.array([key for key, _ in first], np.int64)]
        for chunk in self._chunks():
            check()
            parts.append(chunk[chunk % passes == one] if passes > 1 else chunk)
        keys, times = np.unique(np.concatenate(parts), return_counts=True)
        check()
        if first:
            times[np.searchsorted(keys, parts[0])] += np.array([count - 1 for _, count in first])
        return keys, times

    def _chunks(self) -> Iterator[Any]:
        import numpy as np

        if self._spilled:
            assert self._file is not None
            with open(self._file, "rb") as file:
                while len(found := np.fromfile(file, np.int64, _CHUNK)):
                    yield found
        yield np.array(self._held, np.int64)

    def _spill(self) -> None:
        if self._file is None:
            self.refusal = "nowhere to count"
        elif free_bytes() < LEAST_FREE_BYTES:
            self.refusal = "no disk to count"
        else:
            try:
                with open(self._file, "ab") as file:
                    self._held.tofile(file)
                self._spilled += len(self._held)
            except OSError:
                self.refusal = "no disk to count"
        self._held = array("q")
        if self.refusal and self._file is not None:
            self._file.unlink(missing_ok=True)
