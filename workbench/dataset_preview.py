"""What adding a file would make of it, told from its first rows before anything is added.

Owns the form's three texts (source, mapping, name), what is wrong with each, and the first rows in canonical form. It
reads the rows from which `add_dataset` recognises the shape, and no more, so a preview and the dataset agree. Nothing
is written; nothing is fetched from the Hub.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

from workbench.canonical_rows import RowRejected
from workbench.dataset_files import files_of_pattern
from workbench.dataset_intake import first_events
from workbench.dataset_reading import FileKind, RawRow, place_word, read_rows, recognise_file
from workbench.dataset_shapes import Recognition, column_kinds, recognise
from workbench.dataset_store import default_name
from workbench.dataset_window_cut import readable_here
from workbench.dataset_window_subject import RowReading, canonical_reading
from workbench.errors import UnreadableData, UsageError, WorkbenchError
from workbench.hub_dataset import parse_source
from workbench.row_conversion import to_canonical
from workbench.terminal_output import counted

SHOWN_ROWS = 5
_KIND_WORDS = {"jsonl": "JSON lines", "json": "JSON", "csv": "CSV", "parquet": "Parquet"}


@dataclass(frozen=True)
class PreviewedRow:
    """One of the first rows as it would be trained on."""

    place: str
    reading: RowReading


@dataclass(frozen=True)
class Preview:
    """What is seen of a source, and what is wrong with it."""

    source: str
    """As it would be added; empty while none is named."""
    default_name: str = ""
    file: str = ""
    """What the file is, in words: "JSON lines, 1.2 MB"."""
    source_problem: str = ""
    mapping_problem: str = ""
    recognition: Recognition | None = None
    columns: dict[str, list[str]] = field(default_factory=dict)
    """What each column of the first rows holds, in words."""
    rows: tuple[PreviewedRow, ...] = ()
    rejected: int = 0
    """Of the rows that were read."""
    read: int = 0
    """How many rows were read to tell all this."""
    estimated_rows: int = 0
    """Of the whole file, by its size; 0 where that cannot be told."""

    @property
    def can_be_added(self) -> bool:
        """Whether nothing that is known speaks against adding it."""
        return bool(self.source) and not self.source_problem and not self.mapping_problem

    @property
    def mapping_words(self) -> str:
        """Which column is what: "prompt <- question, completion <- answer"."""
        mapping = self.recognition.mapping if self.recognition else {}
        return ", ".join(f"{name} <- {column}" for name, column in mapping.items())


def preview(source: str, mapping: str = "") -> Preview:
    """Look at `source`; what is wrong is told in the preview, never raised."""
    source = source.strip()
    if not source:
        return Preview("")
    try:
        name = default_name(source)
    except UsageError:
        name = ""
    try:
        through_datasets = parse_source(source)
        if through_datasets:
            what = {"hub": "from the Hub", "saved": "saved by datasets", "arrow": "Arrow"}[through_datasets.kind]
            words = f"{what}: it is fetched when it is added, and its shape is told then"
            return _with_mapping_checked(Preview(source, name, words), mapping)
        several = files_of_pattern(source)
        path = several[0] if several else Path(os.path.abspath(os.path.expanduser(source)))
        kind = recognise_file(path)
        events = first_events(read_rows(readable_here(path) if kind.format == "parquet" else path, kind))
    except (WorkbenchError, OSError) as error:
        absolute = os.path.abspath(os.path.expanduser(source))
        return Preview(source, name, source_problem=str(error).replace(absolute, source))
    sample = [event for event in events if isinstance(event, RawRow)]
    found = Preview(
        source,
        name,
        _file_words(path, kind) + (f", the first of {counted(len(several), 'file')}" if several else ""),
        columns=column_kinds([row.value for row in sample]),
        rejected=len(events) - len(sample),
        read=len(events),
        estimated_rows=_estimated_rows(path, kind, sample),
    )
    if not sample:
        return replace(found, source_problem=f"none of the first {len(events):,} rows can be read.")
    return _recognised(found, sample, kind, mapping)


def parse_mapping(text: str) -> dict[str, str]:
    """`prompt=question completion="my answer"` as a mapping; UsageError where it is no such list."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"a quote is not closed in {text!r}.") from error
    found: dict[str, str] = {}
    for word in words:
        name, equals, column = word.rstrip(",").partition("=")
        if not equals or not name or not column:
            raise UsageError(f"{word!r}: write FIELD=COLUMN, as in prompt=question completion=answer.")
        found[name] = column
    return found


def mapping_text(recognition: Recognition) -> str:
    """A recognised mapping as it would be typed."""
    return " ".join(shlex.quote(f"{name}={column}") for name, column in recognition.mapping.items())


def completed_path(text: str) -> tuple[str, list[str]]:
    """(`text` as far as the file names under it agree, those names); for the Tab key."""
    beginning = text.rpartition("/")[2]
    prefix = text[: len(text) - len(beginning)]
    place = Path(os.path.expanduser(prefix)) if prefix else Path(".")
    try:
        entries = [entry for entry in os.scandir(place) if entry.name.startswith(beginning)]
    except OSError:
        return text, []
    names = sorted(
        entry.name + ("/" if entry.is_dir() else "")
        for entry in entries
        if beginning.startswith(".") or not entry.name.startswith(".")
    )
    if not names:
        return text, []
    first, last = names[0], names[-1]
    agreed = next((i for i, letter in enumerate(first) if last[i : i + 1] != letter), len(first))
    return prefix + first[:agreed], names


def _recognised(found: Preview, sample: list[RawRow], kind: FileKind, mapping: str) -> Preview:
    try:
        recognition = recognise([row.value for row in sample], parse_mapping(mapping))
    except (UsageError, UnreadableData) as error:
        # The form has no --map: the field is where a mapping is written.
        return replace(found, mapping_problem=str(error).replace("--map ", ""))
    rows: list[PreviewedRow] = []
    rejected = found.rejected
    for row in sample:
        place = f"{place_word(kind)} {row.number:,}"
        try:
            reading = canonical_reading(dict(to_canonical(row.value, recognition, place)))
        except RowRejected as error:
            rejected += 1
            reading = RowReading(reason=f"not used: {error}")
        if len(rows) < SHOWN_ROWS:
            rows.append(PreviewedRow(place, reading))
    found = replace(found, recognition=recognition, rows=tuple(rows), rejected=rejected)
    if rejected == found.read:
        return replace(found, mapping_problem=f"none of the first {found.read:,} rows can be used like this.")
    return found


def _with_mapping_checked(found: Preview, mapping: str) -> Preview:
    try:
        parse_mapping(mapping)
    except UsageError as error:
        return replace(found, mapping_problem=str(error))
    return found


def _file_words(path: Path, kind: FileKind) -> str:
    size = path.stat().st_size
    for unit, bytes_each in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_each:
            return f"{_kind_words(kind)}, {size / bytes_each:.1f} {unit}"
    return f"{_kind_words(kind)}, {size} bytes"


def _kind_words(kind: FileKind) -> str:
    words = "TSV" if kind.delimiter == "\t" else _KIND_WORDS[kind.format]
    return f"{words}, gzipped" if kind.gzipped else words


def _estimated_rows(path: Path, kind: FileKind, sample: list[RawRow]) -> int:
    if kind.gzipped or not sample:
        return 0
    if kind.format == "parquet":
        from workbench.dataset_window import open_window

        window = open_window(path, kind)
        try:
            return window.rows_so_far
        finally:
            window.close()
    return path.stat().st_size * len(sample) // max(1, sum(row.size for row in sample))
