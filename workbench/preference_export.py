"""Writing preferences and battles out in the forms that other tools read.

Owns the files. Invariant: a target is written whole or not at all and never replaces anything; in Parquet, where a
column has one type, plain strings become turns if any row of the set has turns. `preference_formats` has the forms.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from engine.run.durable_files import fsync_folder
from workbench.duckdb_connection import write_parquet
from workbench.errors import NameTaken, NotFound, UsageError, explain_os_errors
from workbench.preference_formats import Form, as_turns, rows_in
from workbench.preferences import SIDES, PreferenceSet, Side

ExportFormat = Literal["jsonl", "parquet", "datasets", "kto", "openai"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
_ENDINGS: dict[str, ExportFormat] = {".jsonl": "jsonl", ".parquet": "parquet"}
_TURNS = "STRUCT(role VARCHAR, content VARCHAR)[]"
_SPLITS = {"train": "train", "eval": "test"}
"""What the sides are called in a saved dataset, as TRL's examples do."""


def export_rows(preferences: PreferenceSet, side: Side | None = None, form: Form = "trl") -> Iterator[dict[str, Any]]:
    """Rows in a form; of one side, or of train and then eval."""
    for one in SIDES if side is None else (side,):
        yield from rows_in(form, preferences.rows(one))


def export(
    preferences: PreferenceSet, target: str | os.PathLike[str], side: Side | None = None, format: str | None = None
) -> int:
    """Writes the rows to a new file (a folder for "datasets") and returns how many rows.

    The format is told from the ending unless given. "datasets" is a folder for `datasets.load_from_disk`, with the
    splits train and test; kto and openai are JSON lines.
    """
    path = Path(os.path.abspath(target))
    kind = format or _ENDINGS.get(path.suffix.lower(), "")
    if kind not in FORMATS:
        raise UsageError(f"{path}: the format is told from the ending, .jsonl or .parquet, or given with --format.")
    if kind == "datasets":
        return _save_dataset(preferences, path, side)
    if kind == "parquet":
        return write_new(path, lambda aside: _write_parquet(aside, preferences, side))
    form: Form = "kto" if kind == "kto" else "openai" if kind == "openai" else "trl"
    return write_new(path, lambda aside: write_lines(aside, export_rows(preferences, side, form)))


def write_new(path: Path, write: Callable[[Path], int]) -> int:
    """A new file at `path`, whole or not at all; what `write` returns when it has written it beside its place."""
    _require_free(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with explain_os_errors(f"exporting to {path}", path.parent):
        try:
            rows = write(aside)
            descriptor = os.open(aside, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.link(aside, path)  # unlike a rename, this never replaces what came there in the meantime
            fsync_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)
    return rows


def write_lines(path: Path, rows: Iterable[dict[str, Any]], *, as_array: bool = False) -> int:
    """Rows as JSON lines, or as one JSON array, in a new private file; how many."""
    count = 0
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(b"[\n" if as_array else b"")
        for row in rows:
            file.write((b",\n" if count and as_array else b"") + orjson.dumps(row) + (b"" if as_array else b"\n"))
            count += 1
        file.write(b"\n]\n" if as_array else b"")
    return count


def _require_free(path: Path) -> None:
    if os.path.lexists(path):
        raise NameTaken(f"{path} exists; an export never replaces a file. Name another, or move it away.")
    if not path.parent.is_dir():
        raise NotFound(f"the folder {path.parent} does not exist; make it first.")


def _write_parquet(path: Path, preferences: PreferenceSet, side: Side | None) -> int:
    rows = export_rows(preferences, side)
    turns = any(isinstance(value, list) for row in export_rows(preferences, side) for value in row.values())
    columns = dict.fromkeys(("prompt", "chosen", "rejected"), _TURNS if turns else "VARCHAR")
    return write_parquet(path, map(as_turns, rows) if turns else rows, columns)


def _save_dataset(preferences: PreferenceSet, path: Path, side: Side | None) -> int:
    from workbench.saved_dataset import save_dataset

    _require_free(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with explain_os_errors(f"exporting to {path}", path.parent):
        try:
            aside.mkdir(mode=0o700)
            sides = [one for one in SIDES if side in (None, one) and preferences.info.counts[one]]
            rows = {one: _write_parquet(aside / f"{one}.parquet", preferences, one) for one in sides}
            save_dataset({_SPLITS[one]: aside / f"{one}.parquet" for one in sides}, aside / "saved")
            os.rename(aside / "saved", path)
            fsync_folder(path.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return sum(rows.values())
