"""What is kept of queries: those saved under a name, the history, and results as datasets or files.

Owns queries/NAME.sql of a workspace, which any editor can read, and queries/history.jsonl. Invariants: a saved query is
replaced in one step; a result is written whole or not at all, and over nothing. A workspace that cannot be written
keeps no history, and nothing fails because of that.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

import orjson

from engine.run.durable_files import write_atomically
from workbench.dataset_store import Dataset, add_dataset
from workbench.errors import NameTaken, NotFound, UsageError, WorkbenchError, explain_os_errors, some_of
from workbench.sql_query import ResultFormat, SqlResult
from workbench.workspace import Workspace, check_name, now

KEPT_QUERIES = 500
FORMATS: dict[str, ResultFormat] = {".csv": "csv", ".jsonl": "json", ".parquet": "parquet"}
_HISTORY_BYTES = 4_000_000


def saved_queries(workspace: Workspace) -> dict[str, str]:
    """Every saved query by its name."""
    found = {}
    for path in sorted(_folder(workspace).glob("*.sql")):
        with suppress(OSError):
            found[path.stem] = path.read_text("utf-8", "replace")
    return found


def read_saved(workspace: Workspace, name: str) -> str:
    """The query that was saved under a name; NotFound names those there are."""
    check_name(name, "query")
    try:
        return (_folder(workspace) / f"{name}.sql").read_text("utf-8", "replace")
    except FileNotFoundError as error:
        there = some_of(list(saved_queries(workspace)))
        raise NotFound(f"no query is saved as {name} in {workspace.root}. There are: {there}.") from error


def save_query(workspace: Workspace, name: str, query: str) -> None:
    """Save a query under a name, in the place of one that has it."""
    workspace.require_writable()
    check_name(name, "query")
    with explain_os_errors("saving a query", workspace.root):
        _folder(workspace).mkdir(mode=0o700, exist_ok=True)
        write_atomically(_folder(workspace) / f"{name}.sql", (query.strip() + "\n").encode("utf-8", "replace"))


def read_history(workspace: Workspace) -> list[str]:
    """The queries that were run, the oldest first, each once where it was run last."""
    try:
        with open(_folder(workspace) / "history.jsonl", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _HISTORY_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []
    found: dict[str, None] = {}
    for line in lines:
        with suppress(orjson.JSONDecodeError, TypeError, KeyError):
            query = str(orjson.loads(line)["query"])
            found.pop(query, None)
            found[query] = None
    return list(found)[-KEPT_QUERIES:]


def note_in_history(workspace: Workspace, query: str) -> None:
    """Keep a query in the history, where the workspace can be written."""
    if workspace.read_only_reason:
        return
    path = _folder(workspace) / "history.jsonl"
    with suppress(OSError, TypeError):
        line = orjson.dumps({"schema": 1, "time": now(), "query": query}) + b"\n"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def save_as_dataset(workspace: Workspace, result: SqlResult, name: str) -> Dataset:
    """Make a result, which is Parquet, a dataset of its own; its origin is the query."""
    if not result.rows:
        raise WorkbenchError("the result has no rows, and a dataset needs one. Change the query.")
    return add_dataset(workspace, result.path, name, copy=True, origin="sql: " + " ".join(result.query.split())[:2000])


def result_format(path: Path) -> ResultFormat:
    """The format that a file's name asks for; UsageError where it asks for none."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError as error:
        raise UsageError(f"{path}: a result is written as .csv, .jsonl or .parquet; name the file so.") from error


def deliver(result: SqlResult, path: Path) -> None:
    """Put a result's file where a person wants it: whole, and over nothing."""
    path = Path(os.path.abspath(os.path.expanduser(path)))
    if os.path.lexists(path):
        raise NameTaken(f"{path} is there already, and nothing is overwritten. Choose another name.")
    passage = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        shutil.copyfile(result.path, passage)
        os.link(passage, path)  # unlike a rename, over nothing
    except FileExistsError as error:
        raise NameTaken(f"{path} came to be in the meantime, and nothing is overwritten.") from error
    finally:
        passage.unlink(missing_ok=True)


def _folder(workspace: Workspace) -> Path:
    return workspace.root / "queries"
