"""Reading frozen examples: JSON lines to examples, row by row, with a count of all that is lost or changed.

Owns the loop over a file and its counts. Invariant: nothing is dropped, cut or split silently: each reason, each
example that lost its end and each treatment of a conversation is counted. What a row means is known to the functions
that are handed in; they are pure, so rows may be read in any order and by any process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson

from engine.data.chat import ChatTokenizer, Prompt
from engine.data.chat_messages import has_content, words_of_message
from engine.errors import DataError

EMPTY = "empty completion"
REFUSED = "refused by the chat template"

Row = dict[str, Any]
Example = TypeVar("Example")


@dataclass(frozen=True)
class RowExamples(Generic[Example]):
    """What one row gives: usually one example; none where it is dropped, several where it is split."""

    examples: tuple[Example, ...] = ()
    dropped: tuple[str, ...] = ()
    """A reason for each example that is lost."""
    truncated: int = 0
    """How many of `examples` lost their end at max_length."""
    treatment: str = ""
    """How a conversation or a long text was made into examples; empty where there was nothing to choose."""

    @classmethod
    def nothing(cls, reason: str) -> RowExamples[Example]:
        """A row that is dropped."""
        return cls(dropped=(reason,))


@dataclass
class ReadingCounts:
    """What reading a file lost and changed."""

    dropped: Counter[str] = field(default_factory=Counter)
    """Examples that were dropped, by reason."""
    truncated: int = 0
    """Examples that lost their end at max_length and are used all the same."""
    treatments: Counter[str] = field(default_factory=Counter)
    """Rows by how they were made into examples."""
    refusal: str = ""
    """The first refusal of the chat template, with its line."""

    def add(self, row: RowExamples[Any]) -> None:
        """Count one row."""
        self.dropped.update(row.dropped)
        self.truncated += row.truncated
        if row.treatment:
            self.treatments[row.treatment] += 1

    def add_line(self, row: RowExamples[Any], line: int, refusal: str) -> None:
        """Count one row of a file, which the chat template refused for a reason or did not."""
        if refusal:
            self.refusal = self.refusal or f"; the first at line {line}: {refusal}"
        self.add(row)

    def as_json(self) -> dict[str, Any]:
        """For a file; `from_json` is the inverse."""
        # Not asdict: it counts the pairs of a Counter instead of copying them.
        return {
            "dropped": dict(self.dropped),
            "truncated": self.truncated,
            "treatments": dict(self.treatments),
            "refusal": self.refusal,
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> ReadingCounts:
        """What `as_json` gave. Raises KeyError where something is missing."""
        return cls(
            Counter(written["dropped"]), written["truncated"], Counter(written["treatments"]), written["refusal"]
        )


class BrokenRow(Exception):
    """A row without the fields that its kind has: the file is of another kind, so reading stops."""


ReadRow = Callable[[Row, str], RowExamples[Example]]
"""(row, name) -> its examples; raises DataError where the template refuses it, BrokenRow where it has other fields."""


def stream(file: Path, read: ReadRow[Example], counts: ReadingCounts) -> Iterator[Example]:
    """Every example of a file, in order, counted as it goes. Raises DataError naming the line that is broken."""
    for row in stream_rows(file, read, counts):
        yield from row.examples


def stream_rows(file: Path, read: ReadRow[Example], counts: ReadingCounts) -> Iterator[RowExamples[Example]]:
    """What each row of a file gives, in order, counted as it goes. Raises DataError naming the line that is broken."""
    for number, line in numbered_lines(file):
        result, refusal = row_of_line(file, number, line, read)
        counts.add_line(result, number, refusal)
        yield result


def row_of_line(file: Path, number: int, line: bytes, read: ReadRow[Example]) -> tuple[RowExamples[Example], str]:
    """What one line gives, and why the chat template refused it, or nothing. Raises DataError where it is broken."""
    row = _row(file, number, line)
    try:
        return read(row, str(row.get("id", number))), ""
    except BrokenRow as error:
        raise DataError(f"{file}, line {number}: {error}") from error
    except DataError as error:
        return RowExamples.nothing(REFUSED), str(error)


def reader_of(
    tokenizer: ChatTokenizer, read: Callable[..., RowExamples[Example]], max_length: int, settings: Mapping[str, Any]
) -> ReadRow[Example]:
    """`read` with its arguments; what it asks of one row again and again is worked out once."""

    def read_row(row: Row, name: str) -> RowExamples[Example]:
        with tokenizer.renderings.of_one_row():
            return read(row, name, tokenizer=tokenizer, max_length=max_length, **settings)

    return read_row


def read_all(
    file: Path, read: ReadRow[Example], max_length: int, *, required: bool = True
) -> tuple[list[Example], ReadingCounts]:
    """All examples of a file. Raises DataError where none is usable, unless `required` is False."""
    counts = ReadingCounts()
    examples = list(stream(file, read, counts))
    if required and not examples:
        raise DataError(f"{file}: {no_usable_row(counts, max_length)}")
    return examples, counts


def no_usable_row(counts: ReadingCounts, max_length: int) -> str:
    """Why a file gave no example."""
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.dropped.most_common()) or "the file is empty"
    hint = f"; data.max_length is {max_length}" if any(r.startswith("too long") for r in counts.dropped) else ""
    return f"0 usable rows ({reasons}{hint}{counts.refusal})"


def json_rows(file: Path) -> Iterator[tuple[int, Row]]:
    """(line number, row) of a JSON-lines file. Raises DataError naming the line."""
    for number, line in numbered_lines(file):
        yield number, _row(file, number, line)


def numbered_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, content) of each line that is not blank. Raises DataError where the file cannot be read."""
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}): check that the file is there") from error


def _row(file: Path, number: int, line: bytes) -> Row:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(
            f"{file}, line {number}: not JSON ({error}): these examples are frozen and must not be edited; "
            "make the set again"
        ) from error
    if not isinstance(row, dict):
        found = type(row).__name__
        raise DataError(f"{file}, line {number}: a {found}: expected an object of named fields")
    return row


def talk(row: Row, key: str) -> Prompt:
    """A field that holds messages or a text. Raises BrokenRow."""
    if key not in row:
        raise BrokenRow(f'no "{key}": the fields are {", ".join(row) or "none"}')
    value = row[key]
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise BrokenRow(f'"{key}" is a {type(value).__name__}: expected a text or a list of {{role, content}}')
    for message in value:
        if not (isinstance(message, dict) and "role" in message and has_content(message)):
            raise BrokenRow(f'"{key}" holds something that is not {{role, content}} with a text as its content')
    return value


def messages_of(row: Row) -> Sequence[Any]:
    """The field "messages". Raises BrokenRow."""
    messages = talk(row, "messages")
    if isinstance(messages, str):
        raise BrokenRow('"messages" is a text: expected a list of {role, content}')
    return messages


def text_of(row: Row, key: str) -> str:
    """A field that holds a text. Raises BrokenRow."""
    if not isinstance(row[key], str):
        raise BrokenRow(f'"{key}" is a {type(row[key]).__name__}: expected a text')
    text: str = row[key]
    return text


def number_of(row: Row, key: str, default: float | None) -> float | None:
    """A field that holds a number or nothing. Raises BrokenRow."""
    value = row.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BrokenRow(f'"{key}" is {value!r}: expected a number')
    return float(value)


def words_of(answer: Prompt) -> str:
    """What an answer says and which functions it calls, without the white space around it."""
    return (answer if isinstance(answer, str) else "".join(map(words_of_message, answer))).strip()
