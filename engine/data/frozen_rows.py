"""Frozen rows behind examples: what a row says beside what was tokenised of it.

Owns the way from an example back to its line. Invariant: nothing but places of lines is held in memory. Torch-free.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import orjson

from engine.data.reading import Row
from engine.errors import DataError


class FrozenRows(Sequence[Row]):
    """Rows of a file by the places of its examples; each is read when it is asked for."""

    def __init__(self, file: Path, numbers: Sequence[int]) -> None:
        """`numbers` are the rows of the examples, from 0, lines that are blank not counted. Raises DataError
        where the file cannot be read when a row is asked for."""
        self._file = file
        self._numbers = numbers

    @cached_property
    def _starts(self) -> Any:
        """Where each row's line begins, int64; the file is read through when a row is first asked for."""
        starts, place = [], 0
        try:
            with self._file.open("rb") as lines:
                for line in lines:
                    if line.strip():
                        starts.append(place)
                    place += len(line)
        except OSError as error:
            raise DataError(f"{self._file}: cannot be read ({error.strerror}): put it back") from error
        return np.asarray(starts, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with self._file.open("rb") as lines:
            lines.seek(int(self._starts[int(self._numbers[index])]))
            row: Row = orjson.loads(lines.readline())
        return row
