"""Queries about the loop: what the views hold, every type of DuckDB, and the end of a runaway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

from engine.run.folder import RunFolder
from engine.run.metrics_log import MetricsWriter, read_metrics
from tests.screens.furnished_workspace import DATASETS, PAIRS, PREFERENCES, RUN_DONE, furnish
from workbench import sql_query
from workbench.child_programs import child_environment
from workbench.cli import main
from workbench.dataset_store import add_dataset, open_dataset
from workbench.dataset_window_parquet import ParquetWindow
from workbench.errors import UnreadableData
from workbench.pair_sets import open_pairs
from workbench.sql_query import QueryEnded, queries_cache, run_query
from workbench.sql_views import named_in, sql_views
from workbench.workspace import Workspace, init

RUNAWAY = "SELECT list_reduce(range(50000000), lambda a, b: (a + b) % 1000003) AS x"
"""Which DuckDB's own interrupt ends 17 s late."""
VALUES = {
    "BOOLEAN": "true", "TINYINT": "(-128)::TINYINT", "BIGINT": "9007199254740993::BIGINT",
    "HUGEINT": "170141183460469231731687303715884105727::HUGEINT",
    "UHUGEINT": "340282366920938463463374607431768211455::UHUGEINT", "UBIGINT": "18446744073709551615::UBIGINT",
    "BIGNUM": "123456789012345678901234567890123456789012345::BIGNUM", "FLOAT": "1.5::FLOAT",
    "DOUBLE": "'nan'::DOUBLE", "DECIMAL(38,10)": "12345678901234567890.1234567891::DECIMAL(38,10)",
    "BLOB": "'\\xAA\\x00b'::BLOB", "BIT": "'0101'::BIT", "DATE": "DATE 'infinity'",
    "TIME": "TIME '01:02:03.123456'", "TIME_NS": "'01:02:03.123456789'::TIME_NS",
    "TIME WITH TIME ZONE": "'11:30:00.123456-02:00'::TIMETZ", "TIMESTAMP": "TIMESTAMP '1992-09-20 11:30:00.123456'",
    "TIMESTAMP_S": "'1992-09-20 11:30:00'::TIMESTAMP_S", "TIMESTAMP_MS": "'1992-09-20 11:30:00.1'::TIMESTAMP_MS",
    "TIMESTAMP_NS": "'1992-09-20 11:30:00.123456789'::TIMESTAMP_NS",
    "TIMESTAMP WITH TIME ZONE": "'1992-09-20 11:30:00.123456+02:00'::TIMESTAMPTZ",
    "TIMESTAMPTZ_NS": "'1992-09-20 11:30:00.123456789+02:00'::TIMESTAMPTZ_NS",
    "INTERVAL": "INTERVAL '1 year 2 days 3.000001 seconds'",
    "UUID": "'00000000-0000-0000-0000-000000000001'::UUID", "ENUM('a', 'b')": "'a'::ENUM('a', 'b')",
    "INTEGER[]": "[1, NULL, 3]", "DOUBLE[]": "[1.5, 'nan'::DOUBLE]", "INTEGER[3]": "array_value(1, 2, 3)",
    "STRUCT(a INTEGER, b HUGEINT)": "{'a': 1, 'b': 5::HUGEINT}", "MAP(INTEGER, VARCHAR)": "MAP {1: 'x'}",
    "UNION(num INTEGER)": "union_value(num := 2)", "JSON": "'{\"a\": [1]}'::JSON", "VARIANT": "{'a': [1]}::VARIANT",
    "TUPLE(INTEGER, VARCHAR)": "row(1, 'x')", "GEOMETRY": "'POINT (1 2)'::GEOMETRY", '"NULL"': "NULL",
    "VARCHAR": "'x\u202ey\U0001f600'",
}  # fmt: skip
"""Every type of DuckDB 2.0, and a value that a careless passage would change."""


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return furnish(tmp_path_factory.mktemp("furnished"))


def _found(workspace: Workspace, query: str) -> list[dict[str, object]]:
    with run_query(workspace, query, form="json") as result:
        return [json.loads(line) for line in result.path.read_text("utf-8").splitlines()]


def test_everything_of_the_loop_is_a_view(furnished: Workspace) -> None:
    """Counted in one query, and each by what this program itself says of it."""
    views, problems = sql_views(furnished)
    assert problems == ()
    names = {view.name for view in views}
    assert names >= {"datasets", "pair_sets", "judgments", "preference_sets", "runs", "metrics", "samples"}
    assert names >= {*(f"datasets.{name}" for name in DATASETS), f"pairs.{PAIRS}", f"prefs.{PREFERENCES}"}
    parts = [f"SELECT '{view.name}' AS name, count(*) AS n FROM {view.quoted}" for view in views]
    counts = {row["name"]: row["n"] for row in _found(furnished, "\nUNION ALL ".join(parts))}
    run = RunFolder(furnished.runs / RUN_DONE)
    lines = read_metrics(run.metrics_path)
    assert counts["metrics"] == 2 * sum(len(line.metrics) for line in lines)
    assert counts["runs"] == 2
    assert counts["datasets"] == len(DATASETS)
    assert counts["pair_sets"] == 2
    fold = open_pairs(furnished, PAIRS).judgments()
    assert counts["judgments"] == sum(used for _, used in fold.journals.values()) + 2
    for name in DATASETS:
        assert counts[f"datasets.{name}"] == open_dataset(furnished, name).info.rows
    assert counts[f"pairs.{PAIRS}"] == open_pairs(furnished, PAIRS).info.rows


def test_a_view_has_the_columns_that_are_listed(furnished: Workspace) -> None:
    views = sql_views(furnished)[0]
    found = _found(furnished, "SELECT schema, name, column_names FROM (SHOW ALL TABLES) WHERE database = 'memory'")
    columns = {(row["schema"], row["name"]): row["column_names"] for row in found}
    for view in views:
        assert columns[view.schema, view.last_part] == list(view.columns), view.name
        if view.short:
            assert columns["main", view.last_part] == list(view.columns)


def test_a_name_of_the_loop_is_not_hidden_by_a_dataset(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text('{"prompt": "a"}\n')
    add_dataset(workspace, file, "runs")
    views = {view.name: view for view in sql_views(workspace)[0]}
    assert not views["datasets.runs"].short
    assert {view.name for view in named_in("FROM datasets.RUNS", tuple(views.values()))} == {
        "datasets", "runs", "datasets.runs",
    }  # fmt: skip


def test_only_the_attempt_that_counts_is_in_metrics(workspace: Workspace, furnished: Workspace) -> None:
    from workbench.sql_views import _metric_rows

    run = workspace.runs / RUN_DONE
    RunFolder.create(run, (furnished.runs / RUN_DONE / "run.toml").read_text())
    first = MetricsWriter(run / "metrics.jsonl", 1)
    for step in range(1, 5):
        first.write(step, {"loss": float(step)})
    first.close()
    second = MetricsWriter(run / "metrics.jsonl", 2)
    second.resumed_from(2)
    second.write(3, {"loss": float("nan")})
    second.close()
    rows = list(_metric_rows(workspace))
    assert [(row["step"], row["attempt"], row["metrics"]["loss"]) for row in rows] == [
        (1, 1, "1.0"), (2, 1, "2.0"), (3, 2, "nan"),
    ]  # fmt: skip


def test_every_type_through_the_grid_and_as_json(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    query = "SELECT " + ", ".join(f'{value} AS "c{n}"' for n, value in enumerate(VALUES.values()))
    expected = duckdb.connect().execute(f"SELECT COLUMNS(*)::VARCHAR FROM ({query})").fetchall()[0]
    with run_query(workspace, query) as result:
        assert [column.type for column in result.columns] == list(VALUES)
        window = ParquetWindow(result.path)
        for name, cell, wanted in zip(VALUES, window.rows(0, 1)[0], expected, strict=True):
            nested = name.endswith("[]") or name.startswith(("STRUCT", "MAP", "VARIANT", "JSON", "TUPLE", "INTEGER["))
            assert cell == wanted or (nested and cell), (name, cell, wanted)
        assert len(window.row(0)) == len(VALUES)
        window.close()
    assert main(["--workspace", str(workspace.root), "sql", query, "--json"]) == 0
    text = capsys.readouterr().out
    said = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [column["type"] for column in said["columns"]] == list(VALUES)
    row = said["rows"][0]
    assert row["c2"] == 9007199254740993
    assert row["c3"] == 2**127 - 1
    assert row["c8"] is None
    assert row["c26"] == [1.5, None]
    assert row["c29"] == {"1": "x"}
    assert row["c36"] == "x\u202ey\U0001f600"


def test_a_runaway_ends_when_nobody_wants_it(workspace: Workspace) -> None:
    child = sql_query.start_child()
    begun = time.monotonic()
    with pytest.raises(QueryEnded, match="cancelled"):
        run_query(workspace, RUNAWAY, child=child, should_stop=lambda: time.monotonic() - begun > 0.8)
    assert child.poll() == -signal.SIGKILL
    assert not queries_cache().exists() or not list(queries_cache().iterdir())
    with pytest.raises(QueryEnded, match="longer than 0 s"):
        run_query(workspace, RUNAWAY, time_limit_s=0.3)


def test_ctrl_c_ends_the_command_and_its_query(workspace: Workspace) -> None:
    command = subprocess.Popen(
        [sys.executable, "-P", "-m", "workbench", "--workspace", str(workspace.root), "sql", RUNAWAY],
        env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
        if not children.exists():
            pytest.skip("this kernel does not tell the children of a process")
        end = time.monotonic() + 60
        while not (found := children.read_text().split()) and time.monotonic() < end:
            time.sleep(0.02)
        query = int(found[0])
        time.sleep(0.5)
        os.kill(command.pid, signal.SIGINT)
        assert command.wait(60) == 130
        with pytest.raises(ProcessLookupError):
            os.kill(query, 0)
    finally:
        command.kill()
        command.communicate()


def test_results_are_limited_saved_and_written(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sql(*arguments: str) -> int:
        return main(["--workspace", str(workspace.root), "sql", *arguments])

    rows = "SELECT 'p' || range AS prompt, NULL AS gone, '' AS \"c,\" FROM range(5)"
    assert sql(rows, "--rows", "2", "--save", "first") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["prompt  gone  c,", "p0      ∅", "p1      ∅"]
    assert "the first 2 rows" in shown.err
    assert sql("--saved", "first", "--to", "made") == 0
    assert open_dataset(workspace, "made").info.rows == 5
    assert open_dataset(workspace, "made").info.source.origin.startswith("sql: SELECT 'p'")
    file = tmp_path / "out.csv"
    assert sql("FROM made", "--out", str(file)) == 0
    assert file.read_text().splitlines()[:2] == ['prompt,gone,"c,"', 'p0,,""']
    assert sql("FROM made", "--out", str(file)) == 1
    assert "nothing is overwritten" in capsys.readouterr().err
    assert sql("FROM made", "--to", "made") == 1
    assert sql("SELECT 1", "--out", str(tmp_path / "out.txt")) == 2
    assert sql() == 2


def test_what_was_shown_before_can_be_asked_about(workspace: Workspace) -> None:
    sums = "SELECT sum(n)::INT AS s FROM last"
    with (
        run_query(workspace, "SELECT range AS n FROM range(7)") as before,
        run_query(workspace, sums, form="json", last=before.path) as result,
    ):
        assert json.loads(result.path.read_text()) == {"s": 21}


def test_a_file_that_is_gone_or_damaged_is_named(tmp_path: Path) -> None:
    workspace = init(tmp_path / "ws")
    file = tmp_path / "odd [name]*.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    add_dataset(workspace, file, "odd")
    file.write_text('{"prompt": "a"}\n{"prompt": \n{"prompt": "c"}\n')
    with run_query(workspace, "SELECT count(prompt) AS n FROM odd", form="json") as result:
        assert json.loads(result.path.read_text()) == {"n": 2}
        assert "could not be read" in result.notes[0]
    file.unlink()
    with pytest.raises(UnreadableData, match="datasets.odd: .* is not there"):
        run_query(workspace, "FROM odd")


def test_a_cancelled_copy_ends(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(QueryEnded):
        sql_query._copy(tmp_path / "a", tmp_path / "b", stop.is_set)
