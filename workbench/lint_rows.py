"""The rows that lint looks at: every row of a dataset or of one side of a preference set, usable or not.

Owns the numbering that all findings share. An index counts every row, an ordinal only those that can be read (it is the
row of the grid); the number is the line or row a person finds in the file. The file is proved to be the recorded one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from workbench.canonical_rows import CanonicalRow, RowRejected
from workbench.dataset_reading import RawRejection, read_rows
from workbench.dataset_store import Dataset, open_dataset
from workbench.preferences import Side, open_preference_set
from workbench.row_conversion import to_canonical
from workbench.workspace import Workspace


@dataclass(frozen=True)
class SourceRow:
    """One row of the file."""

    index: int
    """From 0, unreadable rows counted."""
    ordinal: int
    """From 0 among the readable rows; -1 for an unreadable one."""
    number: int
    """Its line or ordinal in the file, from 1."""
    raw: dict[str, Any] | None
    """As the file has it; None for an unreadable one."""
    row: CanonicalRow | None
    """As it is trained on; None where it cannot be used."""
    reason: str = ""
    """Why it cannot be used; from a small fixed vocabulary."""
    detail: str = ""


@dataclass(frozen=True)
class RowSource:
    """A dataset, or one side of a preference set."""

    name: str
    """As a person reads it: "hh", "v1 (eval)"."""
    shape: str
    rows: int
    """Usable and not."""
    sha256: str
    """Of the file."""
    read: Callable[[], Iterator[SourceRow]]
    dataset: Dataset | None
    """None for a preference set."""


def row_source(workspace: Workspace, name: str, side: Side | None = None) -> RowSource:
    """The dataset called `name`, or that side (train where none is named) of a preference set."""
    if name in workspace.names("prefs"):
        return _side(workspace, name, side or "train")
    dataset = open_dataset(workspace, name)
    total = dataset.info.rows + sum(dataset.info.rejected.values())
    return RowSource(name, dataset.shape, total, dataset.info.source.sha256, lambda: _rows_of_dataset(dataset), dataset)


def against_sources(workspace: Workspace, name: str) -> list[RowSource]:
    """All rows of a dataset, or both sides of a preference set, to compare another with."""
    if name in workspace.names("prefs"):
        return [_side(workspace, name, side) for side in ("train", "eval")]
    return [row_source(workspace, name)]


def _side(workspace: Workspace, name: str, side: Side) -> RowSource:
    made = open_preference_set(workspace, name)

    def rows() -> Iterator[SourceRow]:
        for index, row in enumerate(made.rows(side)):
            yield SourceRow(index, index, index + 1, cast(dict[str, Any], row), row)

    sha256 = made.info.files[f"{side}.jsonl"]
    return RowSource(f"{name} ({side})", "preference", made.info.counts.get(side, 0), sha256, rows, None)


def _rows_of_dataset(dataset: Dataset) -> Iterator[SourceRow]:
    ordinal = -1
    recognition = dataset.info.recognition
    for index, event in enumerate(read_rows(dataset.source_path(), dataset.info.source.file_kind)):
        if isinstance(event, RawRejection):
            yield SourceRow(index, -1, event.number, None, None, event.reason, event.detail)
            continue
        ordinal += 1
        try:
            row = to_canonical(event.value, recognition, f"{dataset.name}:{event.number}")
        except RowRejected as error:
            yield SourceRow(index, ordinal, event.number, event.value, None, error.reason, error.detail)
        else:
            yield SourceRow(index, ordinal, event.number, event.value, row)
