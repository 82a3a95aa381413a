"""Several files as one: the files that a pattern names, joined as JSON lines in the order of their names.

Owns what a pattern names and the joining. JSON lines are joined byte by byte, so that a bad line stays one with its
reason; of other kinds every row must be readable, because its line is lost on the way. Nothing is removed or renamed.
"""

from __future__ import annotations

import glob
import gzip
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from workbench.dataset_reading import FileKind, RawRejection, place_word, read_rows, recognise_file
from workbench.dataset_source import sha256_of
from workbench.errors import UnreadableData

_MARKS = frozenset("*?[")
_CHUNK_BYTES = 1 << 20


def files_of_pattern(text: str) -> list[Path] | None:
    """The files that a pattern (*, ?, [abc], **) names, sorted; None where `text` is no pattern, or a file's name."""
    path = os.path.abspath(os.path.expanduser(text))
    if not _MARKS.intersection(text) or os.path.exists(path):
        return None
    found = sorted(Path(one) for one in glob.glob(path, recursive=True) if os.path.isfile(one))
    if not found:
        raise UnreadableData(f"{text}: no file has such a name. Check the pattern; * is anything but a slash.")
    return found


def join_files(files: list[Path], target: Path) -> dict[str, str]:
    """Writes the rows of all files to the new JSON-lines file `target`; returns name and sha256 of each.

    Raises UnreadableData where one of them is no data file, or a row that is no JSON line cannot be read.
    """
    details = {}
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as joined:
        for number, file in enumerate(files, start=1):
            kind = recognise_file(file)
            if kind.format == "jsonl":
                _copy_lines(file, kind, joined)
            else:
                joined.writelines(_rows(file, kind))
            details[f"file {number}"] = f"{file} {sha256_of(file)}"
    return details


def row_as_json(row: dict[str, Any]) -> bytes:
    """A row of any file as a JSON line; dates and the like become text, numbers of more than 64 bits stay numbers."""
    try:
        return orjson.dumps(row, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # an integer of more than 64 bits
        return json.dumps(row, default=str, ensure_ascii=False).encode("utf-8") + b"\n"


def _rows(file: Path, kind: FileKind) -> Iterator[bytes]:
    for event in read_rows(file, kind):
        if isinstance(event, RawRejection):
            raise UnreadableData(
                f"{file}, {place_word(kind)} {event.number:,}: {event.reason}. Mend it, or add this file by itself: "
                "then the row is left out and told."
            )
        yield row_as_json(event.value)


def _copy_lines(file: Path, kind: FileKind, joined: BinaryIO) -> None:
    with _opened(file, kind) as lines:
        if lines.peek(3)[:3] == b"\xef\xbb\xbf":
            lines.read(3)
        shutil.copyfileobj(lines, joined, _CHUNK_BYTES)
    joined.write(b"\n")  # where the last line has none; an empty line is no row


@contextmanager
def _opened(file: Path, kind: FileKind) -> Iterator[Any]:
    try:
        with gzip.open(file) if kind.gzipped else open(file, "rb") as lines:
            yield lines
    except (EOFError, gzip.BadGzipFile) as error:
        raise UnreadableData(f"{file} is damaged or ends early: {error}. Fetch the file again.") from error
