"""Running a typed query: a child process for each one, killed the moment nobody wants its answer.

Owns the child's life and the private folder in which its result lies. Invariants: a query never runs in this process;
the child is ended by SIGKILL, which no query can put off, on Ctrl+C, on a time limit, and when this process ends; the
folder goes with the result. What the child may do is `sql_isolation`'s and `sql_child`'s.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from engine.run.user_cache import user_cache_folder
from workbench.child_programs import child_environment
from workbench.errors import UnreadableData, UsageError, WorkbenchError
from workbench.sql_child import Source
from workbench.sql_isolation import has_landlock
from workbench.sql_views import LAST, SqlView, named_in, sql_views, write_rows
from workbench.workspace import Workspace

ResultFormat = Literal["parquet", "json", "csv"]
TIME_LIMIT_S = 600
THREADS = 2
LONGEST_QUERY = 200_000
"""Characters."""
_FILE_BYTES = 64_000_000_000
_LOOK_EVERY_S = 0.02
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONPATH", "VIRTUAL_ENV", "OMP_WAIT_POLICY")
"""A query's process sees no other variable: tokens and keys are in some."""
_UNWANTED_S = 86_400


class QueryEnded(WorkbenchError):
    """The query was ended before it had an answer."""


@dataclass(frozen=True)
class ResultColumn:
    """One column of a result."""

    name: str
    """Unique in its result, whatever its case."""
    type: str
    """DuckDB's name."""
    text: bool
    """Whether the file holds it as text, because Parquet cannot hold its type."""


@dataclass
class SqlResult:
    """What a query found. Its file goes with `close`."""

    query: str
    path: Path
    """The rows, in the format that was asked for."""
    columns: tuple[ResultColumn, ...]
    rows: int
    cut: bool
    """Whether the limit was reached, so that there may be more."""
    seconds: float
    notes: tuple[str, ...] = ()
    longest: int = 0
    """Bytes of its longest text, where it has one of more than 16 MB or may have; else 0."""
    _folder: Path | None = field(default=None, repr=False)

    def close(self) -> None:
        """Remove the file."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_child() -> subprocess.Popen[bytes]:
    """A child that waits for one query; starting it ahead saves its start when the query comes."""
    environment = child_environment()
    kept = {name: environment[name] for name in _KEPT_VARIABLES if name in environment}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "workbench.sql_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=kept,
        start_new_session=True,  # Ctrl+C of the terminal is for this process, which then ends the child
    )


def end_child(child: subprocess.Popen[bytes]) -> None:
    """End a child at once, whatever it does."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.close()


def run_query(
    workspace: Workspace,
    query: str,
    *,
    form: ResultFormat = "parquet",
    limit: int = 0,
    time_limit_s: float = TIME_LIMIT_S,
    last: Path | None = None,
    child: subprocess.Popen[bytes] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SqlResult:
    """The result of one query that reads. `limit` 0 is all rows; `last` is a Parquet file that the query may name.

    Raises UsageError where the query is wrong, QueryEnded where it was stopped or took longer than its limit.
    """
    if len(query) > LONGEST_QUERY:
        raise UsageError(f"the query has {len(query):,} characters; at most {LONGEST_QUERY:,} are read.")
    started = time.monotonic()
    child = child or start_child()
    folder: Path | None = None
    try:
        folder = _new_folder()
        views, problems = sql_views(workspace)
        sources = _sources(workspace, query, views, folder, last, should_stop)
        name = f"result.{'jsonl' if form == 'json' else form}"
        request = {
            "query": query, "format": form, "limit": limit, "folder": str(folder), "file": name,
            "threads": THREADS, "cpu_s": int(time_limit_s * THREADS) + 10, "file_bytes": _FILE_BYTES,
            "landlock": has_landlock(), "sources": [asdict(source) for source in sources],
        }  # fmt: skip
        answer = _ask(child, request, started + time_limit_s, time_limit_s, should_stop)
        columns = tuple(ResultColumn(**column) for column in answer["columns"])
        rows = int(answer["rows"])
        cut = bool(limit) and rows >= limit
        seconds = time.monotonic() - started
        return SqlResult(
            query,
            folder / name,
            columns,
            rows,
            cut,
            seconds,
            (*problems, *answer["notes"]),
            int(answer["longest"]),
            folder,
        )
    except BaseException:
        if folder is not None:
            end_child(child)
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        end_child(child)


def queries_cache() -> Path:
    """Where results lie while they are looked at: $XDG_CACHE_HOME/workbench/sql; safe to delete."""
    return user_cache_folder() / "sql"


def _new_folder() -> Path:
    place = queries_cache()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in place.iterdir():  # of a process that was killed
            with suppress(OSError):
                if time.time() - old.stat().st_mtime > _UNWANTED_S:
                    shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix="query-", dir=place)).resolve()
    except OSError as error:
        raise WorkbenchError(
            f"{place} cannot be written ({error.strerror}), and a result is kept there while it is looked at. "
            "Set XDG_CACHE_HOME to a folder that can."
        ) from error


def _sources(
    workspace: Workspace,
    query: str,
    views: tuple[SqlView, ...],
    folder: Path,
    last: Path | None,
    should_stop: Callable[[], bool],
) -> list[Source]:
    """What the child may open: rows made here, and the files of datasets, or copies of them."""
    found = []
    for place, view in enumerate(named_in(query, views)):
        if should_stop():
            raise QueryEnded("the query was cancelled.")
        if view.rows is not None:
            made = folder / f"{view.name}.jsonl"
            longest = write_rows(view, workspace, made)
            names = view.columns if view.name != "metrics" else ("run", "step", "attempt", "unix_s", "metrics")
            found.append(
                Source(view.schema, view.last_part, (str(made),), "jsonl", False, "", names, view.types, longest)
            )
            continue
        assert view.kind is not None
        files = [file for file in view.files if _there(file, view)]
        paths = tuple(_reachable(file, folder / f"copy-{place}", should_stop) for file in files)
        kind = view.kind
        found.append(
            Source(view.schema, view.last_part, paths, kind.format, kind.gzipped, kind.delimiter, short=view.short)
        )
    if last is not None and LAST in query.lower():
        found.append(Source("main", LAST, (_reachable(last, folder / "copy-last", should_stop),), "parquet"))
    return found


def _there(file: Path, view: SqlView) -> bool:
    if file.is_file():
        return True
    raise UnreadableData(f"{view.name}: {file} is not there (any more). Put it back, then run the query again.")


def _reachable(file: Path, into: Path, should_stop: Callable[[], bool]) -> str:
    """The path by which the child reads a file: its own where the kernel keeps it whole, else that of a copy."""
    file = file.resolve()
    # DuckDB takes these for patterns.
    if has_landlock() and not any(letter in str(file) for letter in "*?[]{}"):
        return str(file)
    copy = into / "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in file.name)
    into.mkdir(mode=0o700, exist_ok=True)
    _copy(file, copy, should_stop)
    return str(copy)


def _copy(file: Path, to: Path, should_stop: Callable[[], bool]) -> None:
    """Copy bytes in the kernel, which shares blocks where the file system can."""
    with open(file, "rb") as source, open(to, "xb") as target:
        while True:
            if should_stop():
                raise QueryEnded("the query was cancelled.")
            chunk = source.read(1 << 24)
            if not chunk:
                return
            target.write(chunk)


def _ask(
    child: subprocess.Popen[bytes],
    request: dict[str, Any],
    end: float,
    time_limit_s: float,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Send a request and wait for the answer, for a wish to stop, or for the end of time."""
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
    waiting = select.poll()  # select() refuses descriptors above 1023
    waiting.register(child.stdout, select.POLLIN | select.POLLHUP)
    said = b""
    while True:
        if should_stop():
            raise QueryEnded("the query was cancelled.")
        if time.monotonic() > end:
            raise QueryEnded(f"the query took longer than {time_limit_s:,.0f} s. --time-limit gives it more.")
        if not waiting.poll(_LOOK_EVERY_S * 1000):
            continue
        chunk = os.read(child.stdout.fileno(), 1 << 16)
        if chunk:
            said += chunk
        if not chunk or said.endswith(b"\n"):
            break
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError as error:
        raise WorkbenchError(_how_it_ended(child)) from error
    if "error" in answer:
        raise UsageError(str(answer["error"]))
    return answer


def _how_it_ended(child: subprocess.Popen[bytes]) -> str:
    """Why a child said nothing."""
    code = child.wait()
    assert child.stderr is not None
    words = child.stderr.read(100_000).decode("utf-8", "replace").strip().splitlines()
    if code in (-signal.SIGKILL, -signal.SIGXCPU, -signal.SIGABRT):
        return f"the query's process was ended by {signal.Signals(-code).name}: too much memory or time. Select less."
    if code == -signal.SIGXFSZ:
        return "the result is larger than 64 GB. Select less."
    if code < 0:
        return f"the query's process was ended by {signal.Signals(-code).name}: a file that it reads may be damaged."
    return f"the query's process ended with code {code}: {words[-1][:500] if words else 'it said nothing'}"
