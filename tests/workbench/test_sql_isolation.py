"""What a typed query can do: read what it is given, and nothing else, however the query is written."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.screens.furnished_workspace import PAIRS, PREFERENCES, furnish
from workbench import sql_query
from workbench.child_programs import child_environment
from workbench.errors import UsageError
from workbench.sql_isolation import has_landlock
from workbench.sql_query import queries_cache, run_query
from workbench.sql_views import sql_views
from workbench.workspace import Workspace

needs_landlock = pytest.mark.skipif(not has_landlock(), reason="this kernel has no Landlock that forbids truncation")
CONFINED = """
import json, sys
from pathlib import Path
from workbench.sql_child import Source, confined, make_views
from workbench.sql_isolation import forbid_files, limit_process, program_places
asked = json.loads(sys.stdin.read())
folder = Path(asked["folder"])
limit_process(60, 1 << 30)
if asked["landlock"]:
    forbid_files([*program_places(), *map(Path, asked["readable"])], folder)
sources = [Source("main", f"v{n}", (path,), "parquet") for n, path in enumerate(asked["views"])]
if asked["settings"]:
    connection = confined(sources, folder, 1)
    make_views(connection, sources)
    connection.execute("SET lock_configuration = true")
else:
    import duckdb
    connection = duckdb.connect()
said = {}
for statement in asked["statements"]:
    try:
        said[statement] = repr(connection.execute(statement).fetchall())[:200]
    except Exception as error:
        said[statement] = f"refused: {type(error).__name__}: {error}"
print(json.dumps(said))
"""


def _confined(folder: Path, statements: list[str], **options: Any) -> dict[str, str]:
    """What comes of statements that are run as they are, without the sub-select, in a process without rights."""
    folder.mkdir(exist_ok=True)
    asked = {"folder": str(folder), "statements": statements, "readable": [], "views": [], "settings": True}
    done = subprocess.run(
        [sys.executable, "-P", "-c", CONFINED],
        input=json.dumps({**asked, "landlock": has_landlock(), **options}),
        capture_output=True, text=True, env=child_environment(), check=True,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _sums(files: list[Path]) -> dict[Path, str]:
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return furnish(tmp_path_factory.mktemp("furnished"))


@pytest.fixture(scope="module")
def originals(furnished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A journal, a Parquet file, JSON lines, a cache and a database, all of which a query may read."""
    workspace, tmp_path = furnished, tmp_path_factory.mktemp("originals")
    journal = next((workspace.pairs / PAIRS / "judgments").glob("*.jsonl"))
    cache = tmp_path / "cache.parquet"
    connection = duckdb.connect(str(tmp_path / "attached.duckdb"))
    connection.execute("CREATE TABLE d AS SELECT range AS n FROM range(10)")
    connection.execute(f"COPY d TO '{cache}' (FORMAT parquet)")
    connection.close()
    frozen = workspace.prefs / PREFERENCES / "train.jsonl"
    return [journal, workspace.pairs / PAIRS / "pairs.parquet", frozen, cache, tmp_path / "attached.duckdb"]


def _writes(files: list[Path]) -> list[str]:
    found = []
    for file in files:
        for form in ("csv", "parquet", "json"):
            found.append(f"COPY (SELECT 1 AS x) TO '{file}' (FORMAT {form}, USE_TMP_FILE false)")
        found.append(f"COPY (SELECT 1 AS x) TO '{file}' (FORMAT csv, USE_TMP_FILE true)")
    return found


@needs_landlock
@pytest.mark.parametrize("settings", [True, False])
def test_nothing_is_overwritten_without_the_wrapper(originals: list[Path], tmp_path: Path, settings: bool) -> None:
    """By Landlock alone, too, with DuckDB's own settings at their most permissive."""
    before = _sums(originals)
    database = originals[-1]
    statements = [*_writes(originals), f"ATTACH '{database}' AS d", "INSERT INTO d.d VALUES (1)",
                  f"COPY (SELECT 1) TO '{tmp_path}/new.csv'", f"EXPORT DATABASE '{tmp_path}/export'",
                  f"ATTACH '{tmp_path}/other.duckdb'"]  # fmt: skip
    views = [str(file) for file in originals if file.suffix == ".parquet"]
    said = _confined(
        tmp_path / "own", statements, readable=[str(file) for file in originals], views=views, settings=settings
    )
    assert _sums(originals) == before
    refused = {statement for statement, words in said.items() if words.startswith("refused")}
    assert refused >= set(statements) - {f"ATTACH '{database}' AS d"}, said
    assert not list(tmp_path.glob("new.csv*"))
    assert not (tmp_path / "other.duckdb").exists()


def test_without_landlock_a_query_never_learns_the_path_of_an_original(
    furnished: Workspace, originals: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_query, "has_landlock", lambda: False)
    own = tmp_path / "own"
    own.mkdir()
    views = sql_views(furnished)[0]
    sources = sql_query._sources(furnished, "show all tables", views, own, None, lambda: False)
    paths = [Path(path) for source in sources for path in source.paths]
    assert len(paths) >= len(views)
    assert all(path.is_relative_to(own) for path in paths)
    with run_query(furnished, "SELECT count(*) AS n FROM answers", form="json") as result:
        assert json.loads(result.path.read_text()) == {"n": 40}
    before = _sums(originals)
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(originals[1].read_bytes())
    said = _confined(own, _writes(originals), views=[str(copy)], landlock=False)
    assert _sums(originals) == before
    assert all("file system operations are disabled" in words for words in said.values())


def test_the_settings_hold(originals: list[Path], tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "link").symlink_to("/etc/passwd")
    reads = ["/etc/passwd", f"{own}/../attached.duckdb", f"{own}/link", "/proc/self/environ"]
    statements = [
        *(f"SELECT * FROM read_text('{path}')" for path in reads),
        "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM glob('/etc/*')", "FROM '/etc/passwd'",
        "SELECT * FROM read_text('http://localhost:1/')", f"ATTACH '{originals[-1]}'",
        f"EXPORT DATABASE '{tmp_path}/x'", "INSTALL fts", "LOAD fts", "CONNECT 'quack:localhost'",
        "SET memory_limit = '90GB'", "RESET allowed_paths", "SET enable_external_access = true",
        "PRAGMA threads = 9", "SELECT getenv('HOME')", "SELECT * FROM statements",
    ]  # fmt: skip
    said = _confined(own, [*statements, "SELECT count(*) FROM v0"], readable=[str(originals[1])],
                     views=[str(originals[1])])  # fmt: skip
    assert said.pop("SELECT count(*) FROM v0") == "[(40,)]"
    assert [statement for statement, words in said.items() if not words.startswith("refused")] == []


STATEMENTS = (
    "COPY answers TO 'x.csv'", "DROP VIEW answers", "DELETE FROM answers RETURNING *", "CREATE TABLE t AS SELECT 1",
    "EXPLAIN ANALYZE DELETE FROM answers", "SELECT 1; SELECT 2", "SELECT 1) ; DROP TABLE d; SELECT (1",
    "WITH a AS (INSERT INTO answers SELECT 1 RETURNING *) SELECT * FROM a", "SET threads = 1", "PRAGMA version",
    "SELECT 1) UNION ALL SELECT * FROM read_text('/etc/passwd') --", "CONNECT 'x'", "", " ; ",
    "CALL pragma_version()) --",
)  # fmt: skip


def test_a_query_is_one_statement_that_reads() -> None:
    """The check of `sql_child` in a process of its own connection: nothing is run before it has passed."""
    from workbench.sql_child import Refused, _columns_of

    connection = duckdb.connect(config={"enable_external_access": "false"})
    connection.execute("CREATE VIEW answers AS SELECT 1 AS a, 'x' AS b")
    for statement in STATEMENTS:
        with pytest.raises((Refused, duckdb.Error)):
            _columns_of(connection, statement)
    for statement in (
        "SELECT 1;", "FROM answers", "SUMMARIZE answers", "DESCRIBE answers", "SHOW TABLES", "PIVOT answers ON b",
        "SELECT 1 -- a comment", "WITH q AS (SELECT 1) FROM q", "VALUES (1)",
    ):  # fmt: skip
        assert _columns_of(connection, statement), statement
    twice = _columns_of(connection, 'SELECT 1 AS a, 2 AS a, 3 AS "A"')
    assert len({name.lower() for name, _ in twice}) == 3


def test_a_refusal_says_what_to_do_and_leaves_nothing(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="workbench sql --views"):
        run_query(workspace, "FROM nope")
    assert not queries_cache().exists() or not list(queries_cache().iterdir())


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc here")
def test_secrets_of_the_environment_are_not_the_querys(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    child = sql_query.start_child()
    try:
        assert b"hf_canary" not in Path(f"/proc/{child.pid}/environ").read_bytes()
    finally:
        sql_query.end_child(child)
