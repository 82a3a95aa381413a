"""Reading a data file row by row: JSON lines, JSON, CSV, TSV, Parquet, and gzip of the text ones.

Owns what kind of file it is (its content decides; a name that says otherwise is an error, not a guess) and where each
row stands in it. One bad row is a rejection with its line; a file that is bad as a whole is an UnreadableData. Memory
stays bounded by the longest row, except for a JSON array, which is loaded whole up to MAX_JSON_ARRAY_BYTES.
Refuses to know what the columns mean.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson

from workbench import duckdb_connection
from workbench.errors import UnreadableData

Format = Literal["jsonl", "json", "csv", "parquet"]
MAX_ROW_BYTES = 256_000_000
"""A longer line, CSV cell or row is rejected, not loaded."""
MAX_JSON_ARRAY_BYTES = 1_000_000_000
"""A JSON array (after gunzip) larger than this is refused, because it can only be loaded whole."""
_EXCERPT_CHARACTERS = 240
_HEAD_BYTES = 65_536

_FORMAT_OF_SUFFIX: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive (or an .xlsx, .docx or .npz file)"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; decompress it first (zstd -d)"),
    (b"BZh", "a bzip2 file; decompress it first (bunzip2)"),
    (b"\xfd7zXZ", "an xz file; decompress it first (unxz)"),
    (b"ARROW1", "an Arrow file; name it .arrow"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"GGUF", "a GGUF model"),
    (b"\x80\x04", "a Python pickle, which is never loaded"),
    (b"\xff\xfe", "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8"),
)


@dataclass(frozen=True)
class FileKind:
    """What a data file is, and how it is read; two reads with one FileKind give the same rows."""

    format: Format
    gzipped: bool = False
    delimiter: str = ""
    """CSV only."""


@dataclass(frozen=True)
class RawRow:
    """One row as the file has it."""

    number: int
    """The line (1-based) on which the row starts, for JSON lines and CSV; else the ordinal of the row, from 1."""
    value: dict[str, Any]
    size: int
    """Bytes in the file, about; to bound a sample."""


@dataclass(frozen=True)
class RawRejection:
    """One row that could not be read."""

    number: int
    reason: str
    detail: str
    excerpt: str
    """The beginning of what stands there; text from strangers, valid Unicode."""


ReadEvent = RawRow | RawRejection


def place_word(kind: FileKind) -> str:
    """What RawRow.number counts: "line" or "row"."""
    return "line" if kind.format in ("jsonl", "csv") else "row"


def recognise_file(path: Path) -> FileKind:
    """What kind of data file `path` is, by its content; UnreadableData where it is none, or its name says another."""
    head = _head_of(path)
    gzipped = head.startswith(b"\x1f\x8b")
    if gzipped:
        with _gzip_errors(path), gzip.open(path) as file:
            head = file.read(_HEAD_BYTES)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    named = _FORMAT_OF_SUFFIX.get(next((s for s in reversed(suffixes) if s not in (".gz", ".gzip")), ""))
    inside = " after gunzip" if gzipped else ""
    if not gzipped and head and suffixes and suffixes[-1] in (".gz", ".gzip"):
        raise UnreadableData(f"{path} is named {suffixes[-1]} but its content is not gzip. Rename it to what it is.")
    if head.startswith(b"PAR1"):
        if gzipped:
            raise UnreadableData(f"{path} is a gzipped Parquet file; gunzip it first (Parquet is compressed inside).")
        if named not in (None, "parquet"):
            raise UnreadableData(f"{path} is named {suffixes[-1]} but its content is Parquet. Rename it to .parquet.")
        return FileKind("parquet")
    for magic, kind in _OTHER_KINDS:
        if head.startswith(magic):
            raise UnreadableData(f"{path} is not a data file: its content{inside} is {kind}.")
    if named == "parquet":
        raise UnreadableData(f"{path} is named .parquet but its content is not Parquet{inside}.")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise UnreadableData(f"{path} is empty{inside}: it has no rows.")
    if b"\0" in head and text[:1] not in b"{[":  # among JSON rows, a NUL spoils its own row only
        raise UnreadableData(f"{path} is not a text file (it holds NUL bytes{inside}), nor Parquet.")
    return replace(_recognise_text(path, text, named, suffixes), gzipped=gzipped)


def _head_of(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise UnreadableData(
                f"{path} is a folder, not a dataset saved by `datasets` (it has no dataset_info.json or "
                "dataset_dict.json). Name a file."
            )
        if path.exists() and not path.is_file():
            raise UnreadableData(f"{path} is a device or a pipe; save its content to a file first.")
        with open(path, "rb") as file:
            return file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise UnreadableData(f"{path} does not exist.") from error
    except OSError as error:
        raise UnreadableData(f"{path} cannot be read: {error.strerror}.") from error


def _recognise_text(path: Path, text: bytes, named: Format | None, suffixes: list[str]) -> FileKind:
    if named == "csv" and text[:1] in b"{[" and _first_line_is_json(text):
        raise UnreadableData(f"{path} is named {suffixes[-1]} but its content is JSON. Rename it to .jsonl or .json.")
    if named == "csv" or (named is None and text[:1] not in b"{["):
        if named is None and ".txt" in suffixes:
            raise UnreadableData(f'{path} is plain text. Make it JSON lines: one {{"text": …}} a line, named .jsonl.')
        delimiter = "\t" if ".tsv" in suffixes else _guess_delimiter(text)
        if named is None and delimiter == "":
            raise UnreadableData(
                f"{path} is none of JSON lines, JSON, CSV, TSV, Parquet or gzip of them, by its content. "
                "Give it the ending of what it is (.jsonl, .json, .csv, .tsv, .parquet)."
            )
        return FileKind("csv", delimiter=delimiter or ",")
    lines_of_json = named == "jsonl" and text.partition(b"\n")[2].strip() and _first_line_is_json(text)
    if text[:1] == b"[" and not lines_of_json:
        return FileKind("json")
    if named == "json" and not _first_line_is_json(text):
        return FileKind("json")
    return FileKind("jsonl")


def _first_line_is_json(text: bytes) -> bool:
    first, newline, _ = text.partition(b"\n")
    if not newline and len(text) >= _HEAD_BYTES - 16:
        return True  # one very long line: read it as JSON lines
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return True


def _guess_delimiter(text: bytes) -> str:
    header = text.splitlines()[0].decode("utf-8", "replace")
    counts = {mark: header.count(mark) for mark in (",", "\t", ";", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] else ""


def read_rows(path: Path, kind: FileKind) -> Iterator[ReadEvent]:
    """Every row of the file in order, or the reason why that row cannot be read."""
    if kind.format == "parquet":
        yield from _read_parquet(path)
        return
    with _gzip_errors(path), _open_bytes(path, kind) as file:
        if kind.format == "csv":
            yield from _read_csv(path, file, kind.delimiter)
        elif kind.format == "json":
            yield from _read_json(path, file)
        else:
            yield from _read_json_lines(file)


@contextmanager
def _gzip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except EOFError as error:
        raise UnreadableData(
            f"{path} ends early: the gzip stream is cut off, so rows are missing. Fetch the file again."
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableData(f"{path} is damaged: {error}. Fetch the file again.") from error


@contextmanager
def _open_bytes(path: Path, kind: FileKind) -> Iterator[BinaryIO]:
    with open(path, "rb") as raw:
        if kind.gzipped:
            with gzip.GzipFile(fileobj=raw) as unzipped:
                yield io.BufferedReader(unzipped, 1 << 20)
        else:
            yield raw


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """(line number, line with its newline); None for a line that is longer than MAX_ROW_BYTES. A BOM is taken off."""
    number = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) > MAX_ROW_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(1 << 20)
            yield number, None
        else:
            yield number, line


def excerpt(content: bytes) -> str:
    """The beginning of raw content as valid text; bytes that are not UTF-8 are written as \\xNN."""
    text = content[: 4 * _EXCERPT_CHARACTERS].decode("utf-8", "backslashreplace")
    return text[:_EXCERPT_CHARACTERS] + ("…" if len(text) > _EXCERPT_CHARACTERS else "")


def _too_long(number: int) -> RawRejection:
    return RawRejection(number, f"longer than {MAX_ROW_BYTES // 1_000_000} MB", "", "")


def _read_json_lines(file: BinaryIO) -> Iterator[ReadEvent]:
    for number, line in _lines(file):
        if line is None:
            yield _too_long(number)
            continue
        if not line.strip():
            continue
        yield _parse_json_line(number, line)


def _parse_json_line(number: int, line: bytes) -> ReadEvent:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as bad:
            return RawRejection(number, "invalid UTF-8", f"byte {bad.start + 1} of the line", excerpt(line))
        reason = "invalid JSON" if line.endswith(b"\n") else "torn last line"
        return RawRejection(number, reason, str(error)[:200], excerpt(line.rstrip(b"\r\n")))
    if not isinstance(value, dict):
        return RawRejection(number, "not an object", "", excerpt(line.rstrip(b"\r\n")))
    return RawRow(number, value, len(line))


def _read_json(path: Path, file: BinaryIO) -> Iterator[ReadEvent]:
    content = file.read(MAX_JSON_ARRAY_BYTES + 1)
    if len(content) > MAX_JSON_ARRAY_BYTES:
        raise UnreadableData(
            f"{path} is one JSON value of more than {MAX_JSON_ARRAY_BYTES // 1_000_000} MB, to be loaded whole. "
            "Make it JSON lines: jq -c '.[]' FILE > FILE.jsonl"
        )
    size = len(content)
    try:
        rows = _rows_of_json(path, orjson.loads(content.removeprefix(b"\xef\xbb\xbf")))
    except orjson.JSONDecodeError as error:
        raise UnreadableData(
            f"{path}, line {error.lineno}, column {error.colno}: the JSON is broken here ({error.msg}), and in one "
            "JSON value nothing after that can be read. Fetch or repair the file; JSON lines would lose but one line."
        ) from error
    del content
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield RawRow(number, row, size // max(1, len(rows)))
        else:
            yield RawRejection(number, "not an object", "", excerpt(orjson.dumps(row)))


def _rows_of_json(path: Path, value: Any) -> list[Any]:
    if isinstance(value, list):
        rows = value
    else:
        lists = [item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], dict)]
        rows = lists[0] if len(value) == 1 and lists else [value]
    if not rows:
        raise UnreadableData(f"{path} is empty: its JSON array has no rows.")
    return rows


def _read_csv(path: Path, file: BinaryIO, delimiter: str) -> Iterator[ReadEvent]:
    """CSV by Python's reader: quoted newlines are kept, and each row is known by the line on which it starts.

    Bytes that are not UTF-8 travel as lone surrogates, so that the row they stand in can be told.
    """
    csv.field_size_limit(MAX_ROW_BYTES)
    too_long: list[int] = []
    reader = csv.reader(_csv_lines(file, too_long), delimiter=delimiter, strict=True)
    header = _csv_header(path, reader)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _csv_rejection(start, reader.line_num, str(error))
            continue
        if too_long:
            too_long.clear()
            yield _too_long(start)
        elif cells:
            yield _csv_row(start, cells, header)


def _csv_lines(file: BinaryIO, too_long: list[int]) -> Iterator[str]:
    for number, line in _lines(file):
        if line is None:
            too_long.append(number)
        yield (line or b"\n").decode("utf-8", "surrogateescape")


def _csv_header(path: Path, reader: Any) -> list[str]:
    try:
        header = next((cells for cells in reader if cells), None)
    except csv.Error as error:
        raise UnreadableData(f"{path}, line {reader.line_num}: the header cannot be read as CSV ({error}).") from error
    if header is None:
        raise UnreadableData(f"{path} is empty: it has no rows.")
    if any(not name.isprintable() and _has_surrogates(name) for name in header):
        raise UnreadableData(f"{path}, line {reader.line_num}: the header is not UTF-8. Convert the file with iconv.")
    header = [name or f"column{number}" for number, name in enumerate(header, start=1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UnreadableData(f"{path}, line {reader.line_num}: two columns are named {twice[0]!r}. Rename one of them.")
    return header


def _csv_rejection(start: int, end: int, error: str) -> RawRejection:
    if "unexpected end" in error:
        return RawRejection(start, "a quote is never closed", f"lines {start} to {end} are inside it", "")
    if "larger than field limit" in error:
        return _too_long(start)
    return RawRejection(start, "broken CSV", error, "")


def _csv_row(start: int, cells: list[str], header: list[str]) -> ReadEvent:
    if any(map(_has_surrogates, cells)):
        return RawRejection(start, "invalid UTF-8", "", excerpt(_as_bytes(cells)))
    if len(cells) != len(header):
        reason = "more cells than columns" if len(cells) > len(header) else "fewer cells than columns"
        return RawRejection(start, reason, f"{len(cells)} instead of {len(header)}", excerpt(_as_bytes(cells)))
    return RawRow(start, dict(zip(header, cells, strict=True)), sum(map(len, cells)))


def _as_bytes(cells: list[str]) -> bytes:
    return " | ".join(cell[:_EXCERPT_CHARACTERS] for cell in cells[:20]).encode("utf-8", "surrogateescape")


def _has_surrogates(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _read_parquet(path: Path) -> Iterator[ReadEvent]:
    import duckdb

    from workbench.file_trial import tried

    number = 0
    try:
        for number, row in enumerate(tried(path, duckdb_connection.read_parquet(path)), start=1):
            yield RawRow(number, row, sum(len(cell) if isinstance(cell, str) else 64 for cell in row.values()))
    except duckdb.Error as error:
        where = f" after row {number}" if number else ""
        raise UnreadableData(f"{path} cannot be read as Parquet{where}: {str(error).splitlines()[0]}") from error
    if number == 0:
        raise UnreadableData(f"{path} is empty: it has no rows.")
