"""The line that says which rows of a dataset are shown, and in which order: read, and turned into row numbers.

Owns the form of the line and its meaning:

    wheel                                     some cell contains it, whatever its case
    tokens > 100 and source = forum           conditions on columns, all of which must hold
    prompt has "rear wheel" and label is null sort -tokens

Operators are = != < <= > >= has, `is null` and `is not null`; a name or a value with blanks stands in quotes. What is
no condition is a text to look for. Invariants: the answer is numbers of rows, found once, so that a page of a sorted
file is read by its numbers and never by ORDER BY and OFFSET; numbers are compared as numbers where the column holds
numbers. Refuses to know how rows are drawn.
"""

from __future__ import annotations

import operator
import re
from array import array
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.dataset_window import Cells, Hits, RowWindow, WindowColumn

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_PART = re.compile(r"\s+and\s+(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", re.IGNORECASE)
"""Between conditions: an "and" outside quotes."""
_SORT = re.compile(r"(?:^|\s)sort\s+(-?)(\"[^\"]+\"|\S+)\s*$", re.IGNORECASE)
_NULL = re.compile(r"(.+?)\s+is\s+(not\s+)?null$", re.IGNORECASE)
_CONDITION = re.compile(r"(\"[^\"]+\"|.+?)\s*(!=|<=|>=|=|<|>|\shas\s)\s*(.+)$", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,3})?")
_READ_ROWS = 4096


@dataclass(frozen=True)
class Condition:
    """What must hold of one column."""

    column: int
    operator: str
    """One of _OPERATORS, "has", "null" or "not null"."""
    value: str = ""

    @property
    def is_number(self) -> bool:
        """Whether the value is written as a number."""
        return bool(_NUMBER.fullmatch(self.value))


@dataclass(frozen=True)
class RowQuery:
    """Which rows, in which order."""

    conditions: tuple[Condition, ...] = ()
    text: str = ""
    """What some cell must contain; empty for nothing."""
    sort: int | None = None
    """The column to sort by; None for the order of the file."""
    descending: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is a text to look for and nothing else."""
        return not self.conditions and self.sort is None


def parse_row_query(line: str, columns: Sequence[WindowColumn]) -> RowQuery:
    """What a line means; there is no line without a meaning: what names no column is a text to look for."""
    places = {column.name: place for place, column in enumerate(columns)}
    sort, descending = None, False
    found = _SORT.search(line)
    if found and _unquoted(found[2]) in places:
        sort, descending = places[_unquoted(found[2])], bool(found[1])
        line = line[: found.start()]
    conditions, texts = [], []
    for part in _PART.split(line.strip()) if line.strip() else []:
        condition = _condition(part.strip(), places)
        if condition:
            conditions.append(condition)
        else:
            texts.append(part)
    if texts and not conditions and sort is None:
        return RowQuery(text=line.strip())
    return RowQuery(tuple(conditions), _unquoted(" and ".join(texts).strip()), sort, descending)


def rows_of_query(
    window: RowWindow, line: str, should_stop: Callable[[], bool] = lambda: False
) -> Generator[Hits, None, None]:
    """The numbers of the rows that `line` means, as they are found; sorted ones all at once."""
    query = parse_row_query(line, window.columns)
    if query.is_plain:
        return window.matching(query.text, should_stop)
    return window.rows_of(query, should_stop)


def next_of(found_in: Generator[Hits, None, None], over: Callable[[], bool]) -> Hits | None:
    """In a thread: the next hits, None after the last; a search that is over by then is ended where it runs."""
    found = next(found_in, None)
    if over():
        found_in.close()
    return found


def read_through(window: RowWindow, query: RowQuery, should_stop: Callable[[], bool]) -> Generator[Hits, None, None]:
    """The rows of a query by reading all of them: for files that DuckDB does not read where they lie."""
    start, kept = 0, array("q")
    keys: list[tuple[bool, Any]] = []
    while not should_stop():
        complete = window.complete
        end = min(start + _READ_ROWS, window.rows_so_far)
        numbers = array("q")
        for place, cells in enumerate(window.whole_rows(start, end - start)):
            if _holds(cells, query, window.columns):
                numbers.append(start + place)
                if query.sort is not None:
                    keys.append(_key(cells[query.sort], window.columns[query.sort]))
        start = end
        kept.extend(numbers)
        if query.sort is None:
            yield Hits(numbers, start)
        if start >= window.rows_so_far and complete:
            break
    if query.sort is not None:
        order = sorted(range(len(kept)), key=lambda at: keys[at][1], reverse=query.descending)
        present = [kept[at] for at in order if not keys[at][0]]
        yield Hits(array("q", [*present, *(kept[at] for at in range(len(kept)) if keys[at][0])]), start)


def hits_in_words(count: int, line: str, columns: Sequence[WindowColumn]) -> str:
    """How many rows a line has found."""
    plain = parse_row_query(line, columns).is_plain
    one, many = ("row contains", "rows contain") if plain else ("row with", "rows with")
    return f'{count:,} {one if count == 1 else many} "{line}"'


def sorted_by(line: str, column: str) -> str:
    """`line` sorted by a column; the other way round where it is already, then not at all."""
    name = f'"{column}"' if re.search(r'[\s"]', column) else column
    found = _SORT.search(line)
    rest = line[: found.start()].rstrip() if found else line.rstrip()
    if found and _unquoted(found[2]) == column:
        return rest if found[1] else f"{rest} sort -{name}".lstrip()
    return f"{rest} sort {name}".lstrip()


def _condition(part: str, places: dict[str, int]) -> Condition | None:
    found = _NULL.fullmatch(part)
    if found and _unquoted(found[1]) in places:
        return Condition(places[_unquoted(found[1])], "not null" if found[2] else "null")
    found = _CONDITION.fullmatch(part)
    if found and _unquoted(found[1].strip()) in places:
        return Condition(places[_unquoted(found[1].strip())], found[2].strip().lower(), _unquoted(found[3].strip()))
    return None


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _holds(cells: Cells, query: RowQuery, columns: Sequence[WindowColumn]) -> bool:
    wanted = query.text.lower()
    if wanted and not any(cell and wanted in cell.lower() for cell in cells):
        return False
    return all(_is_met(cells[one.column], one, columns[one.column]) for one in query.conditions)


def _is_met(cell: str | None, one: Condition, column: WindowColumn) -> bool:
    if one.operator in ("null", "not null"):
        return (cell is None) == (one.operator == "null")
    if cell is None:
        return False
    if one.operator == "has":
        return one.value.lower() in cell.lower()
    if column.is_number and one.is_number:
        return _NUMBER.fullmatch(cell) is not None and _OPERATORS[one.operator](float(cell), float(one.value))
    return _OPERATORS[one.operator](cell, one.value)


def _key(cell: str | None, column: WindowColumn) -> tuple[bool, Any]:
    """(whether it is missing, what it is sorted by)."""
    if column.is_number:
        return (False, float(cell)) if cell and _NUMBER.fullmatch(cell) else (True, 0.0)
    return (cell is None, cell or "")
