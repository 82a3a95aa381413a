"""The metrics of a finished run as a Parquet file beside metrics.jsonl, so that a long run opens at once.

    python -m workbench.compact_metrics RUN_DIR

Owns metrics.parquet: a row for each step that counts, a column for each metric, and beside it, in its own metadata,
which bytes of metrics.jsonl it was made of and what later lines of these would mean. Invariants: metrics.jsonl stays
and stays the truth; curves from both are equal to the last bit, values that are no numbers included; a Parquet file of
other bytes than are there now is not read; what was appended since is read behind it. Anybody may delete it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import orjson

from engine.run.folder import RunFolder
from engine.run.locks import hold, is_held
from workbench.curves import WORTH_COMPACTING_BYTES, CurveLog, Points
from workbench.duckdb_connection import connect, literal_path, quote_identifier
from workbench.growing_lines import GrowingLines

SCHEMA = 1
KEY = "workbench"
"""Of the metadata."""
_STEP, _ATTEMPT, _TIME = "step", "attempt", "time"
_METRIC = "metric:"
"""Before the names of metrics, which may be called step themselves."""


def compacted_path(folder: RunFolder) -> Path:
    """metrics.parquet of a run, whether it is there or not."""
    return folder.path / "metrics.parquet"


def compact(folder: RunFolder) -> bool:
    """Write the Parquet file of a run that has ended, unless there is one that holds; whether it was written."""
    lock = hold(folder.path / ".compact.lock")
    if lock is None:
        return False
    try:
        if is_held(folder.lock_path) or is_held(folder.follow_lock_path) or load(folder) is not None:
            return False
        lines, log = GrowingLines(folder.metrics_path), CurveLog()
        while (batch := lines.read()).lines or batch.more:
            log.take(batch.lines)
        if not log.steps or log.left_out:
            return False
        size = lines.offset
        found = os.stat(folder.metrics_path)
        facts = {
            "schema": SCHEMA, "bytes": size, "sha256": _sha256(folder.metrics_path, size),
            "mtime_ns": found.st_mtime_ns if found.st_size == size else 0,
            "attempts": {str(attempt): kept for attempt, kept in log.state().items()}, "metrics": list(log.metrics),
        }  # fmt: skip
        _write(compacted_path(folder), log, facts)
        return True
    finally:
        lock.release()


def load(folder: RunFolder) -> tuple[CurveLog, int] | None:
    """The curves of the Parquet file, and how many bytes of metrics.jsonl they hold; None where none does."""
    path = compacted_path(folder)
    if not path.is_file() or not folder.metrics_path.is_file():
        return None
    import duckdb

    connection = connect()
    try:
        try:
            facts = _facts(connection, path)
            if facts is None or not _holds(folder.metrics_path, facts):
                return None
            named = literal_path(path)
            columns = connection.execute("SELECT * FROM read_parquet(?)", [named]).fetchnumpy()
        except duckdb.Error:
            return None  # damaged, or of a newer program: the log itself says it all
        return _curves(columns, facts), int(facts["bytes"])
    finally:
        connection.close()


def compact_later(folder: RunFolder) -> None:
    """Start a process that compacts a finished run, with the least priority, where that is worth it and allowed."""
    try:
        worthwhile = os.stat(folder.metrics_path).st_size >= WORTH_COMPACTING_BYTES
        if not worthwhile or compacted_path(folder).exists() or not os.access(folder.path, os.W_OK):
            return
        command = [sys.executable, "-m", "workbench.compact_metrics", str(folder.path)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        _STARTED.append(subprocess.Popen(command, start_new_session=True, **quiet))  # type: ignore[call-overload]
    except OSError:
        return  # a convenience: without it the log is read


_STARTED: list[Any] = []


def _write(path: Path, log: CurveLog, facts: dict[str, Any]) -> None:
    import numpy as np

    steps = np.frombuffer(log.steps.tobytes(), np.int64)
    source: dict[str, Any] = {"steps": steps, "attempts": np.frombuffer(log.attempts.tobytes(), np.int64)}
    selected = [f"steps AS {_STEP}", f"attempts AS {_ATTEMPT}"]
    for name, points in {_TIME: log.times, **{_METRIC + name: one for name, one in log.metrics.items()}}.items():
        at = np.searchsorted(steps, np.frombuffer(points.steps.tobytes(), np.int64))
        values: Any = np.zeros(len(steps))
        kinds: Any = np.zeros(len(steps), np.int8)
        values[at] = np.frombuffer(points.values.tobytes(), np.float64)
        kinds[at] = 1 + np.isnan(values[at])
        # DuckDB takes a NaN of an array for no value at all, so what each cell is stands beside it.
        column = f"c{len(source)}"
        source |= {column: np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf), f"{column}k": kinds}
        what = f"CASE {column}k WHEN 0 THEN NULL WHEN 2 THEN 'nan'::DOUBLE ELSE {column} END"
        selected.append(f"{what} AS {quote_identifier(name)}")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    connection = connect()
    try:
        connection.register("found", source)
        told = orjson.dumps(facts).decode().replace("'", "''")
        target = str(aside).replace("'", "''")
        connection.execute(
            f"COPY (SELECT {', '.join(selected)} FROM found) TO '{target}' "
            f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{KEY}: '{told}'}})"
        )
    finally:
        connection.close()
    os.chmod(aside, 0o600)
    os.replace(aside, path)


def _facts(connection: Any, path: Path) -> dict[str, Any] | None:
    found = connection.execute(
        "SELECT value FROM parquet_kv_metadata(?) WHERE key = ?", [literal_path(path), KEY.encode()]
    ).fetchone()
    try:
        facts = orjson.loads(found[0]) if found else None
    except orjson.JSONDecodeError:
        return None
    return facts if isinstance(facts, dict) and facts.get("schema") == SCHEMA else None


def _holds(path: Path, facts: dict[str, Any]) -> bool:
    """Whether metrics.jsonl still begins with the bytes that the facts are of."""
    found = os.stat(path)
    if found.st_size < facts["bytes"]:
        return False
    if (found.st_size, found.st_mtime_ns) == (facts["bytes"], facts["mtime_ns"]):
        return True
    return bool(_sha256(path, facts["bytes"]) == facts["sha256"])


def _curves(columns: dict[str, Any], facts: dict[str, Any]) -> CurveLog:
    steps = columns[_STEP]
    of_all = _whole(steps)
    metrics = {name: _points(steps, of_all, columns.pop(_METRIC + name)) for name in facts["metrics"]}
    attempts = {int(attempt): int(kept) for attempt, kept in facts["attempts"].items()}
    times = _points(steps, of_all, columns[_TIME])
    return CurveLog.restored(metrics, times, of_all, _whole(columns[_ATTEMPT]), attempts)


def _points(steps: Any, of_all: array[int], column: Any) -> Points:
    """The values that are there; where there is one at every step the steps are `of_all`, itself."""
    import numpy as np

    values: array[float] = array("d")
    if isinstance(column, np.ma.MaskedArray):
        there = ~np.ma.getmaskarray(column)
        if not there.all():
            values.frombytes(_bytes_of(column.data[there], np.float64))
            return Points(_whole(steps[there]), values)
        column = column.data
    values.frombytes(_bytes_of(column, np.float64))
    return Points(of_all, values)


def _whole(column: Any) -> array[int]:
    import numpy as np

    found: array[int] = array("q")
    found.frombytes(_bytes_of(column, np.int64))
    return found


def _bytes_of(column: Any, kind: Any) -> memoryview:
    """What the numbers of a column are, without a copy where they lie together already."""
    import numpy as np

    return memoryview(np.ascontiguousarray(column, kind)).cast("B")


def _sha256(path: Path, size: int) -> str:
    digest, left = hashlib.sha256(), size
    with open(path, "rb") as stream:
        while left and (part := stream.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
    return digest.hexdigest()


if __name__ == "__main__":
    os.nice(19)
    compact(RunFolder(sys.argv[1]))
