"""The SQL screen: a query, its answer in the grid, what can be made of it, and its end."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from screens.app import WorkbenchApp
from screens.grid import Grid
from screens.row_view import RowView
from screens.sql import Sql
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from tests.screens.furnished_workspace import furnish
from workbench.dataset_store import open_dataset
from workbench.sql_query import queries_cache, run_query
from workbench.sql_saved import read_saved
from workbench.workspace import Workspace

RUNAWAY = "SELECT list_reduce(range(50000000), lambda a, b: (a + b) % 1000003)"


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers lie in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return furnish(tmp_path_factory.mktemp("furnished"))


def _screen(app: WorkbenchApp) -> Sql:
    assert isinstance(app.screen, Sql)
    return app.screen


async def _asks(app: WorkbenchApp, pilot: Any, query: str) -> None:
    before = _screen(app)._answer
    _screen(app)._editor.put(query)
    await pilot.press("enter")
    await until(pilot, lambda: _screen(app)._answer is not before, f"an answer to {query}")


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_a_query_and_its_answer(
    workspace: Workspace, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def in_a_quarter(*arguments: Any, **options: Any) -> Any:
        return replace(run_query(*arguments, **options), seconds=0.25)

    monkeypatch.setattr("screens.sql.run_query", in_a_quarter)

    async def script(app: WorkbenchApp, pilot: Any) -> None:
        await sees(pilot, "16 views")
        await check_golden("sql", pilot)
        _screen(app)._editor.put("")
        await pilot.press(*"select id, sta", "tab", *" from ru", "tab")
        assert _screen(app)._editor.text == "select id, sta from runs"
        _screen(app)._editor.put("SELECT id, state, step, {'best': best_value} AS nested FROM runs ORDER BY id")
        await pilot.press("enter")
        await sees(pilot, "2 rows · 4 columns · 0.25 s")
        await until(pilot, lambda: app.focused is app.screen.query_one(Grid))
        await check_golden("sql-answer", pilot)
        await pilot.press("enter")
        await until(pilot, lambda: '"best": 0.25' in app.screen.query_one(RowView).text)
        await pilot.press("n", "escape", "e")
        assert app.screen.query_one(Grid).row_number == 1
        _screen(app)._editor.put("FROM nope")
        await pilot.press("enter")
        await sees(pilot, "Table with name nope does not exist")
        await check_golden("sql-refused", pilot)
        await pilot.press("ctrl+r", *"ORDER", "enter")
        assert _screen(app)._editor.text.startswith("SELECT id, state, step")

    drive(script, workspace, size=size, station="sql")
    assert not list(queries_cache().iterdir()), "what was shown is removed with the screen"


def test_typing_replaces_the_query_that_is_proposed_and_an_arrow_keeps_it(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Any) -> None:
        await sees(pilot, "16 views")
        await pilot.press("right", *" LIMIT 3")
        assert _screen(app)._editor.text == "FROM answers LIMIT 3"

    drive(script, workspace, station="sql", subject="answers")

    async def other(app: WorkbenchApp, pilot: Any) -> None:
        await sees(pilot, "16 views")
        await pilot.press(*"SELECT 1")
        assert _screen(app)._editor.text == "SELECT 1"

    drive(other, workspace, station="sql", subject="answers")


@pytest.mark.slow
def test_what_is_made_of_an_answer(workspace: Workspace, tmp_path: Path) -> None:
    async def script(app: WorkbenchApp, pilot: Any) -> None:
        await sees(pilot, "16 views")
        assert _screen(app)._editor.text == "FROM answers"
        await _asks(app, pilot, "SELECT prompt, a AS completion, random() AS r FROM answers")
        await pilot.press("s", *"asked", "enter")
        await until(pilot, lambda: "asked" in workspace.names("datasets"))
        await sees(pilot, "17 views")
        await pilot.press("w", *str(tmp_path / "out.csv"), "enter")
        await until(pilot, lambda: (tmp_path / "out.csv").exists())
        await until(pilot, lambda: _screen(app)._job is None)
        await pilot.press("w", *str(tmp_path / "out.csv"), "enter")
        await sees(pilot, "of that name is there already")
        await pilot.press("escape", "e", "ctrl+o", *"random", "enter")
        await until(pilot, lambda: "random" in text_of(app))

    drive(script, workspace, station="sql", subject="answers")
    kept = [row["tags"]["r"] for row in open_dataset(workspace, "asked").rows()]
    written = [line.rsplit(",", 1)[1] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    assert [float(one) for one in kept] == [float(one) for one in written], "both are the answer that was shown"
    assert "random()" in read_saved(workspace, "random")


@pytest.mark.parametrize("key", [pytest.param("escape", marks=pytest.mark.slow), "ctrl+c"])
def test_a_runaway_is_ended_by_a_key(workspace: Workspace, key: str) -> None:
    async def script(app: WorkbenchApp, pilot: Any) -> None:
        await until(pilot, lambda: _screen(app)._spare is not None)
        child = _screen(app)._spare
        assert child is not None
        _screen(app)._editor.put(RUNAWAY)
        await pilot.press("enter")
        await until(pilot, lambda: _screen(app)._spare is None)
        await sees(pilot, "esc cancels")
        await pilot.press(key)
        await sees(pilot, "cancelled: the query")
        assert child.poll() is not None
        with pytest.raises(ProcessLookupError):
            os.kill(child.pid, 0)

    assert drive(script, workspace, station="sql").crash is None


@pytest.mark.slow
def test_leaving_in_the_middle_ends_the_query(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Any) -> None:
        await until(pilot, lambda: _screen(app)._spare is not None)
        _screen(app)._editor.put(RUNAWAY)
        await pilot.press("enter")
        await sees(pilot, "esc cancels")
        app.exit(0)

    assert drive(script, workspace, station="sql").crash is None
    assert not queries_cache().exists() or not list(queries_cache().iterdir())
