"""A window on the rows of a data file of any size: so many rows from a place, one row whole, the rows that hold a text.

Owns what every kind of window promises. Cells are texts of at most CELL_CHARACTERS, None for NULL; rows are counted
from 0 in the order of the file; the file is never in memory. A file that vanished, changed or is damaged while it is
open is an error that says what to do. Reads may come from any thread. Refuses to know how rows are drawn, and what the
columns mean. How each kind of file is read stands in `dataset_window_parquet`, `_jsonl` and `_converted`.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from workbench.dataset_reading import FileKind
from workbench.errors import SourceChanged, UnreadableData

if TYPE_CHECKING:
    from workbench.row_query import RowQuery

BLOCK_ROWS = 256
"""So many rows are read at once for a grid."""
CELL_CHARACTERS = 4096
"""So much of a cell is read for a grid; `row` reads more."""
TEXT_CHARACTERS = 1_000_000
"""So much of one text is read for a whole row; how long it is, is said behind that."""
STATED = 40
"""What is said takes fewer characters than this."""
LONGEST_CELL = 16_000_000
"""Bytes. A Parquet file with a longer text is not decoded in this process, which has 250 MB."""
Cells = tuple[str | None, ...]
"""One row of a grid; None is NULL, which is not the empty text."""


@dataclass(frozen=True)
class WindowColumn:
    """One column of a window."""

    name: str
    """Text from strangers."""
    type: str
    """DuckDB's name of the type, or what the first rows hold, in words."""

    @property
    def is_number(self) -> bool:
        """Whether its cells are numbers."""
        return self.type.split("(")[0] in _NUMBERS


_NUMBERS = (
    *(
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "HUGEINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "UHUGEINT",
    ),
    *("FLOAT", "DOUBLE", "DECIMAL", "a number"),
)


@dataclass(frozen=True)
class Hits:
    """Some of the rows that hold a text."""

    numbers: MutableSequence[int]
    """In ascending order, unless they were to be sorted; may be empty where a part of the file holds none."""
    scanned: int
    """Rows looked at so far."""


class RowWindow(ABC):
    """The rows of one file."""

    path: Path
    columns: tuple[WindowColumn, ...]

    @property
    @abstractmethod
    def rows_so_far(self) -> int:
        """How many rows can be read now; all of them once `complete`."""

    @property
    def complete(self) -> bool:
        """Whether the number of rows is known; until then it grows by itself."""
        return True

    @property
    def note(self) -> str:
        """What a person should know of how the file was read; may be empty."""
        return ""

    @abstractmethod
    def rows(self, start: int, count: int) -> list[Cells]:
        """The cells of at most `count` rows from row `start`."""

    def whole_rows(self, start: int, count: int) -> Iterable[Cells]:
        """As `rows`, for conditions on cells: these are whole where the file is read a row at a time."""
        return self.rows(start, count)

    def rows_at(self, numbers: Sequence[int]) -> list[Cells]:
        """The cells of these rows, in this order."""
        return [cells for number in numbers for cells in self.rows(number, 1)]

    @abstractmethod
    def row(self, number: int) -> dict[str, Any]:
        """One whole row as the file has it, texts up to TEXT_CHARACTERS."""

    @abstractmethod
    def matching(self, text: str, should_stop: Callable[[], bool] = lambda: False) -> Generator[Hits, None, None]:
        """The rows of which some cell contains `text`, whatever its case, as they are found."""

    def rows_of(self, query: RowQuery, should_stop: Callable[[], bool] = lambda: False) -> Generator[Hits, None, None]:
        """The rows of a query, as they are found; sorted ones all at once."""
        from workbench.row_query import read_through

        return read_through(self, query, should_stop)

    def place(self, number: int) -> str:
        """Where a row stands, for a person: "row 3", or the line of the file."""
        return f"row {number + 1:,}"

    def speed_up(self) -> bool:
        """Begin to make reading faster in the background, where that is worth it: whether it is. No row changes."""
        return False

    def find(self, number: int, ordinal: int) -> int:
        """The row that is `number` (a line or ordinal, from 1) in the file and `ordinal` (from 0) of the readable ones.

        -1 while it is not read yet, or where there is no such row.
        """
        return ordinal if ordinal < self.rows_so_far else -1

    @abstractmethod
    def close(self) -> None:
        """End whatever goes on in the background."""


def open_window(path: Path, kind: FileKind) -> RowWindow:
    """A window on `path`; UnreadableData where it cannot be read."""
    if kind.format == "parquet":
        from workbench.dataset_window_parquet import ParquetWindow
        from workbench.file_trial import try_file

        if try_file(path) > LONGEST_CELL:
            from workbench.dataset_window_cut import cut_window

            return cut_window(path)
        return ParquetWindow(path)
    if kind.format == "jsonl" and not kind.gzipped:
        from workbench.dataset_window_jsonl import JsonLinesWindow

        return JsonLinesWindow(path)
    from workbench.dataset_window_converted import ConvertedWindow

    return ConvertedWindow(path, kind)


@dataclass(frozen=True)
class FileIdentity:
    """What shows that an open file is still the same one."""

    path: Path
    bytes: int
    mtime_ns: int
    inode: int

    def key(self, what: str) -> str:
        """A name for what is made of this very file and kept in the person's cache; `what` says how it is made."""
        written = f"{what} {os.path.abspath(self.path)} {self.bytes} {self.mtime_ns} {self.inode}"
        return hashlib.sha256(written.encode("utf-8", "surrogateescape")).hexdigest()[:40]

    def require(self) -> None:
        """Raises where the file is gone, or is not the one that was opened."""
        found = identity_of(self.path)
        if found != self:
            raise SourceChanged(
                f"{self.path} changed while it was open ({self.bytes:,} bytes then, {found.bytes:,} now). "
                "What is shown is from before; leave this screen and open it again."
            )


def identity_of(path: Path) -> FileIdentity:
    """The identity of the file as it is now; UnreadableData where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        raise UnreadableData(f"{path} is not there (any more). Put it back, then open it again.") from error
    except OSError as error:
        raise UnreadableData(f"{path} cannot be read: {error.strerror}. Mend that, then open it again.") from error
    return FileIdentity(path, found.st_size, found.st_mtime_ns, found.st_ino)


def cell_of(value: Any) -> str | None:
    """A value as a grid shows it, whole; None for NULL."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # an integer of more than 64 bits
        return str(value)


def bounded(value: Any, limit: int = TEXT_CHARACTERS) -> Any:
    """`value` with every text in it cut to `limit` characters; a cut one says how long it was."""
    if isinstance(value, str):
        return value if len(value) <= limit + STATED else f"{value[:limit]}… ({len(value):,} characters)"
    if isinstance(value, list):
        return [bounded(item, limit) for item in value]
    if isinstance(value, dict):
        return {key: bounded(item, limit) for key, item in value.items()}
    return value


def is_cut(value: Any) -> bool:
    """Whether some text in a row of `RowWindow.row` is only a beginning."""
    if isinstance(value, dict):
        return any(map(is_cut, value.values()))
    if isinstance(value, list):
        return any(map(is_cut, value))
    return isinstance(value, str) and len(value) > TEXT_CHARACTERS


def holds(value: Any, wanted: str) -> bool:
    """Whether a cell contains `wanted`, which is in lower case."""
    text = cell_of(value)
    return text is not None and wanted in text.lower()
