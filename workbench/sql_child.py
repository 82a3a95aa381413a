"""The program that runs one typed query and ends: started by `workbench.sql_query`, never by a person.

Owns the order in which rights are given up and files opened. It reads one request from stdin, writes the rows that the
query needs of the loop into its own folder, gives up every other right, and only then opens DuckDB, whose settings are
locked before the query is parsed. The result lies in that folder, what is known of it goes to stdout as one JSON line.
Invariants: a query is a sub-select of one statement of ours, so that it can neither be two nor do anything but read;
where Landlock is absent this process never learns the path of an original (`sql_query` hands it copies).
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.duckdb_connection import longest_text
from workbench.sql_isolation import MEMORY_BYTES, forbid_files, limit_process, program_places

_EXACT = re.compile(
    r"(BOOLEAN|U?(TINY|SMALL|BIG)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL|VARCHAR|DATE|TIME|TIME_NS|TIMESTAMP|TIMESTAMP_NS|"
    r"TIMESTAMP WITH TIME ZONE|TIMESTAMPTZ_NS|UUID|BLOB|JSON|VARIANT|\"NULL\")(\(\d+,\s?\d+\))?((\[\])*)"
)
"""Types, and lists of them, that a Parquet file gives back as they were; the others are kept as their text."""
_NOT_EXACT = re.compile(
    r"\b(U?HUGEINT|BIGNUM|BIT|TIME WITH TIME ZONE|TIMESTAMP_S|TIMESTAMP_MS|INTERVAL|ENUM|UNION|TUPLE|TYPE|GEOMETRY)\b|"
    r"\[\d+\]"
)
_LEAST_OBJECT_BYTES, _MOST_OBJECT_BYTES = 1 << 16, 1 << 26
"""DuckDB allocates twice the longest object that it may meet, for each thread and file: so no more than a file has."""
_ROW_GROUP_ROWS = 8192
_LONG_BYTES = 16_000_000
"""A column of a row group that is smaller holds no text that is too long for the app."""
_SNIFFED_BYTES = 32_000_000
"""A file up to this size is read whole to learn the types of its columns, a larger one in its first 20,480 rows."""


@dataclass(frozen=True)
class Source:
    """A view, and where its rows are: paths that this process may read."""

    schema: str
    name: str
    paths: tuple[str, ...]
    format: str
    gzipped: bool = False
    delimiter: str = ""
    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    longest: int = 0
    """Bytes of the longest line of a file of rows that this program made."""
    short: bool = False


class Refused(Exception):
    """The query cannot be run; the message is for a person."""


def main() -> int:
    """Read a request, answer it, end."""
    request = json.loads(sys.stdin.buffer.readline() or b"null")
    if request is None:
        return 0  # nobody asked; a child that was kept ready
    folder = Path(request["folder"])
    sources = [Source(**source) for source in request["sources"]]
    limit_process(request["cpu_s"], request["file_bytes"])
    if request["landlock"]:
        forbid_files([*program_places(), *(Path(path) for one in sources for path in one.paths)], folder)
    try:
        answer = answer_of(request, sources, folder)
    except Refused as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # DuckDB's threads are of no use any more, and taking them down takes time


def answer_of(request: dict[str, Any], sources: Sequence[Source], folder: Path) -> dict[str, Any]:
    """Run the query of a request; what is known of its result."""
    import duckdb

    connection = confined(sources, folder, request["threads"])
    notes = make_views(connection, sources)
    connection.execute("SET lock_configuration = true")
    try:
        try:
            columns, count = _run(connection, request, folder)
        except duckdb.Error as error:
            if "JSON" not in str(error) and "CSV" not in str(error) and not notes:
                raise
            # A line somewhere cannot be read. The rest of the file can.
            notes = [_LENIENT, *make_views(connection, sources, lenient=True)]
            columns, count = _run(connection, request, folder)
    except duckdb.Error as error:
        raise Refused(explained(error, [note for note in notes if note != _LENIENT])) from error
    except MemoryError as error:
        raise Refused(_TOO_LARGE) from error
    stored = request["format"] == "parquet"
    return {
        "columns": [{"name": name, "type": kind, "text": stored and not exact(kind)} for name, kind in columns],
        "rows": count,
        "longest": _longest(connection, folder / request["file"]) if stored else 0,
        "notes": notes,
    }


def confined(sources: Sequence[Source], folder: Path, threads: int) -> Any:
    """DuckDB in memory that opens the files of `sources` and what lies in `folder`, and nothing else."""
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "python_enable_replacements": "false",
            "preserve_insertion_order": "true",
            "threads": str(threads),
            "memory_limit": f"{MEMORY_BYTES}B",
            "temp_directory": str(folder / "spill"),
        },
    )
    paths = ", ".join(_text(path) for source in sources for path in source.paths)
    connection.execute("SET enable_progress_bar = false")
    connection.execute(f"SET allowed_directories = [{_text(str(folder))}]")
    connection.execute(f"SET allowed_paths = [{paths}]")
    connection.execute("SET enable_external_access = false")
    return connection


def make_views(connection: Any, sources: Sequence[Source], *, lenient: bool = False) -> list[str]:
    """A view for each source; a sentence for each that cannot be read. `lenient` passes over lines that cannot."""
    import duckdb

    notes = []
    for schema in dict.fromkeys(source.schema for source in sources if source.schema != "main"):
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}")
    for source in sources:
        full = f"{_quoted(source.schema)}.{_quoted(source.name)}"
        try:
            connection.execute(f"CREATE OR REPLACE VIEW {full} AS {_selection(source, lenient)}")
            if source.short:
                connection.execute(f"CREATE OR REPLACE VIEW main.{_quoted(source.name)} AS FROM {full}")
        except duckdb.Error as error:
            notes.append(f"{source.schema}.{source.name} cannot be read: {first_line(error)}")
    return notes


def wrapped(query: str) -> str:
    """A query as the sub-select of a statement of ours; what comes after its last semicolon goes."""
    return f"SELECT * FROM (\n{query.strip().rstrip(';').rstrip()}\n)"


def exact(kind: str) -> bool:
    """Whether a Parquet file keeps values of this type as they are."""
    if _EXACT.fullmatch(kind):
        return True
    return kind.startswith(("STRUCT(", "MAP(")) and not _NOT_EXACT.search(kind)


def first_line(error: BaseException) -> str:
    """The first line of what DuckDB says."""
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__


def explained(error: BaseException, notes: Sequence[str]) -> str:
    """What is wrong with a query, for a person, with what to do where that is known."""
    said = " ".join(line.strip() for line in str(error).strip().splitlines()[:1])[:500] or type(error).__name__
    if "Out of Memory" in said or "OutOfMemory" in type(error).__name__:
        return _TOO_LARGE
    said = said.rstrip(".!") + "."
    if notes and "Catalog Error" in said:
        return " ".join(note.rstrip(" .") + "." for note in notes) + " Mend the file, then run the query again."
    if "lock" in said and "configuration" in said:
        said += " A query only reads; settings are fixed."
    elif "file system operations are disabled" in said:
        said += " A query reads views only; what there are lists: workbench sql --views"
    elif "syntax error" in said.lower() or "single statement" in said.lower():
        said += " One statement that reads is expected: SELECT, FROM, SUMMARIZE, DESCRIBE, SHOW or PIVOT."
    elif "Catalog Error" in said and "Table" in said:
        said += " What there is lists: workbench sql --views"
    return said


_TOO_LARGE = f"the query needs more than {MEMORY_BYTES / 1e9:.0f} GB of memory. Select less, or aggregate first."


_LENIENT = "a line of a file could not be read: such lines are left out, or are rows of NULL"


def _run(connection: Any, request: dict[str, Any], folder: Path) -> tuple[list[tuple[str, str]], int]:
    """(columns, rows) of the result, which is written."""
    columns = _columns_of(connection, request["query"])
    return columns, _write(connection, request, columns, folder / request["file"])


def _longest(connection: Any, file: Path) -> int:
    """Bytes of the longest text of a result; 0 where the file says that none can be long."""
    query = "SELECT coalesce(max(total_uncompressed_size), 0) FROM parquet_metadata($file)"
    if connection.execute(query, {"file": str(file)}).fetchall()[0][0] < _LONG_BYTES:
        return 0
    described = connection.execute("DESCRIBE SELECT * FROM read_parquet($file)", {"file": str(file)}).fetchall()
    query = f"SELECT {longest_text((name, kind) for name, kind, *_ in described)} FROM read_parquet($file)"
    return int(connection.execute(query, {"file": str(file)}).fetchall()[0][0] or 0)


def _columns_of(connection: Any, query: str) -> list[tuple[str, str]]:
    """(name, type) of the result's columns, each name once; Refused where the query is not one that reads."""
    import duckdb

    if not query.strip(" \t\r\n;"):
        raise Refused("the query is empty. For example: SELECT * FROM runs")
    statement = wrapped(query)
    try:
        statements = connection.extract_statements(statement)
        count = len(statements)
    except duckdb.Error:
        raise
    except Exception as error:  # the binding does not know every kind of statement
        raise Refused("this kind of statement is not for queries: expected one that reads, such as SELECT.") from error
    if count != 1:
        raise Refused(f"{count} statements were found: one that reads is expected. Run them one by one.")
    described = connection.execute(f"DESCRIBE {statement}").fetchall()
    columns: list[tuple[str, str]] = []
    taken: set[str] = set()
    for found, kind, *_ in described:
        name, number = found or "column", 1
        while name.lower() in taken:
            name, number = f"{found or 'column'}_{number}", number + 1
        taken.add(name.lower())
        columns.append((name, kind))
    return columns


def _write(connection: Any, request: dict[str, Any], columns: Sequence[tuple[str, str]], path: Path) -> int:
    """Write the result; how many rows it has."""
    form = request["format"]
    places = [f"c{place}" for place in range(len(columns))]
    if form == "parquet":
        selected = [
            _quoted(place) if exact(kind) else f"CAST({_quoted(place)} AS VARCHAR)"
            for place, (_, kind) in zip(places, columns, strict=True)
        ]
        options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP_ROWS}"
    elif form == "json":
        selected = [
            f"CASE WHEN isfinite({place}) THEN {place} END" if kind in ("FLOAT", "DOUBLE") else place
            for place, (_, kind) in zip(places, columns, strict=True)
        ]
        options = "FORMAT json"
    else:
        selected = places
        options = "FORMAT csv, HEADER"
    listed = ", ".join(f"{cell} AS {_quoted(name)}" for cell, (name, _) in zip(selected, columns, strict=True))
    limit = f" LIMIT {int(request['limit'])}" if request["limit"] else ""
    aliases = ", ".join(places)
    inner = f"SELECT * FROM ({wrapped(request['query'])}) AS result({aliases}){limit}"
    copied = connection.execute(f"COPY (SELECT {listed} FROM ({inner})) TO {_text(str(path))} ({options})").fetchall()
    return int(copied[0][0])


def _selection(source: Source, lenient: bool = False) -> str:
    """The SELECT of a view."""
    files = "[" + ", ".join(_text(path) for path in source.paths) + "]"
    if source.types:
        columns = ", ".join(f"{_text(n)}: {_text(k)}" for n, k in zip(source.names, source.types, strict=True))
        longest = max(_LEAST_OBJECT_BYTES, source.longest)
        options = f"columns = {{{columns}}}, maximum_object_size = {longest}"
        read = f"read_json({files}, format = 'newline_delimited', {options})"
        if source.name != "metrics":
            return f"SELECT * FROM {read}"
        each = "unnest(map_keys(metrics)) AS name, unnest(map_values(metrics))::DOUBLE AS value"
        return f"SELECT run, step, attempt, unix_s, {each} FROM {read}"
    if source.format == "parquet":
        return f"SELECT * FROM read_parquet({files})"
    size = sum(os.path.getsize(path) for path in source.paths)
    sampled = -1 if size <= _SNIFFED_BYTES else 20_480
    longest = _MOST_OBJECT_BYTES if source.gzipped else min(_MOST_OBJECT_BYTES, size + _LEAST_OBJECT_BYTES)
    packed = ", compression = 'gzip'" if source.gzipped else ""
    packed += ", ignore_errors = true" if lenient else ""
    if source.format == "csv":
        split = f", delim = {_text(source.delimiter)}" if source.delimiter else ""
        return (
            f"SELECT * FROM read_csv({files}, header = true, quote = '\"', escape = '\"', null_padding = true, "
            f"strict_mode = false, parallel = false, sample_size = {sampled}{split}{packed})"
        )
    form = "newline_delimited" if source.format == "jsonl" else "auto"
    read = (
        f"read_json({files}, format = '{form}', sample_size = {sampled}, maximum_object_size = {longest}, "
        "map_inference_threshold = -1, convert_strings_to_integers = false, filename = true"
        f"{packed})"
    )
    if source.schema == "prefs":
        return f"SELECT regexp_extract(filename, '(train|eval)\\.jsonl$', 1) AS side, * EXCLUDE (filename) FROM {read}"
    return f"SELECT * FROM {read.replace(', filename = true', '')}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


if __name__ == "__main__":
    sys.exit(main())
