"""Writing preferences out in the form that other tools read: prompt, chosen, rejected (TRL's names).

Owns the two formats. Invariant: the target is written whole or not at all and never replaces a file; in Parquet, where
a column has one type, plain strings become turns if any row of the set has turns.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import orjson

from engine.run.durable_files import fsync_folder
from workbench.canonical_rows import assistant, user
from workbench.duckdb_connection import write_parquet
from workbench.errors import NameTaken, NotFound, UsageError, explain_os_errors
from workbench.preferences import SIDES, PreferenceSet, Side

ExportFormat = Literal["jsonl", "parquet"]
_TURNS = "STRUCT(role VARCHAR, content VARCHAR)[]"


def export_rows(preferences: PreferenceSet, side: Side | None = None) -> Iterator[dict[str, Any]]:
    """Rows with exactly prompt, chosen and rejected; of one side, or of train and then eval."""
    for one in SIDES if side is None else (side,):
        for row in preferences.rows(one):
            yield {"prompt": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]}


def export(
    preferences: PreferenceSet, target: str | os.PathLike[str], side: Side | None = None, format: str | None = None
) -> int:
    """Writes the rows to a new file and returns how many; the format is told from the ending unless given."""
    path = Path(os.path.abspath(target))
    kind = format or path.suffix.lower().removeprefix(".")
    if kind not in ("jsonl", "parquet"):
        raise UsageError(f"{path}: the format is told from the ending, .jsonl or .parquet, or given with --format.")
    if os.path.lexists(path):
        raise NameTaken(f"{path} exists; an export never replaces a file. Name another, or move it away.")
    if not path.parent.is_dir():
        raise NotFound(f"the folder {path.parent} does not exist; make it first.")
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with explain_os_errors(f"exporting to {path}", path.parent):
        try:
            rows = (
                _write_parquet(aside, preferences, side)
                if kind == "parquet"
                else _write_jsonl(aside, preferences, side)
            )
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


def _write_jsonl(path: Path, preferences: PreferenceSet, side: Side | None) -> int:
    count = 0
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for row in export_rows(preferences, side):
            file.write(orjson.dumps(row) + b"\n")
            count += 1
    return count


def _write_parquet(path: Path, preferences: PreferenceSet, side: Side | None) -> int:
    turns = any(isinstance(value, list) for row in export_rows(preferences, side) for value in row.values())
    columns = dict.fromkeys(("prompt", "chosen", "rejected"), _TURNS if turns else "VARCHAR")
    rows = export_rows(preferences, side)
    return write_parquet(path, map(_as_turns, rows) if turns else rows, columns)


def _as_turns(row: dict[str, Any]) -> dict[str, Any]:
    made = {"prompt": row["prompt"] if isinstance(row["prompt"], list) else [user(row["prompt"])]}
    for side in ("chosen", "rejected"):
        made[side] = row[side] if isinstance(row[side], list) else [assistant(row[side])]
    return made
