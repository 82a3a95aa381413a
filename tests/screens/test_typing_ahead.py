"""A burst of keys, as a slow link delivers it: the first opens a field, the others belong in it, none is a command."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from screens.app import WorkbenchApp
from screens.grid import Grid
from screens.row_list import RowList
from tests.screens.driving import burst, drive, sees, until
from workbench.workspace import Workspace


def filtered(app: WorkbenchApp) -> str | None:
    """What stands in the field of the filter; None where there is none."""
    return next((field.value for field in app.screen.query("#filter").results(Input)), None)


@pytest.mark.parametrize(("station", "subject"), [("datasets", ""), ("runs", ""), ("pairs", "")])
def test_a_filter_takes_the_whole_word(furnished: Workspace, station: str, subject: str) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        screen = app.screen
        await until(pilot, lambda: bool(screen.query_one(RowList).key), "a list")
        burst(app, "slash", "D", "t", "c", "v", "enter")
        await until(pilot, lambda: filtered(app) == "Dtcv" and isinstance(app.focused, RowList), "the filter, kept")
        assert app.screen is screen, "none of the letters was a command"
        assert screen.query_one(RowList).key == ""
        burst(app, "slash", "s", "backspace", "q")  # it has the word selected, as where one key comes after another
        await until(pilot, lambda: filtered(app) == "q", "another word")
        await pilot.press("escape")
        await until(pilot, lambda: bool(screen.query_one(RowList).key), "the whole list")

    drive(script, furnished, station=station, subject=subject)


def test_inspect_searches_for_it(furnished: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        screen = app.screen
        await until(pilot, lambda: screen.query_one(Grid).total > 0, "rows")
        burst(app, "slash", *"compare", "enter")
        await until(pilot, lambda: filtered(app) == "compare" and isinstance(app.focused, Grid), "the search")
        await pilot.press("escape")
        burst(app, "number_sign", "3", "enter")
        await until(pilot, lambda: app.screen is screen and screen.query_one(Grid).row_number == 2, "row 3")

    drive(script, furnished, station="inspect", subject="demonstrations")


@pytest.mark.parametrize("key", ["p", "d", "r"])
def test_a_station_that_is_opened_by_the_same_burst_filters_and_leaves_the_field_the_focus(
    furnished: Workspace, key: str
) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "gpus")
        burst(app, key, "slash", "a")
        await until(pilot, lambda: filtered(app) == "a")
        await until(pilot, lambda: bool(app.screen.query_one(RowList).key), "the list")
        await pilot.press("t")
        assert filtered(app) == "at"

    drive(script, furnished)


@pytest.mark.parametrize("keys", ["sql", "runs"])
def test_the_palette_goes_where_a_burst_says(furnished: Workspace, keys: str) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "gpus")
        burst(app, "colon", *keys, "enter")
        await until(pilot, lambda: getattr(app.screen, "NAME", "") == keys, keys)

    drive(script, furnished)


def test_a_list_of_the_palette_that_has_the_focus_takes_its_own_keys(furnished: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "gpus")
        await pilot.press("colon", *"runs")
        field = app.screen.query_one("#wanted", Input)
        await until(pilot, lambda: field.value == "runs")
        await pilot.press("tab")
        await until(pilot, lambda: isinstance(app.focused, RowList))
        await pilot.press("j", "k", "enter")
        assert field.value == "runs"
        await until(pilot, lambda: getattr(app.screen, "NAME", "") == "runs", "Enter opens the row")

    drive(script, furnished)


def test_a_field_that_is_typed_into_late_selects_at_its_next_focus_again(furnished: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "demonstrations")
        burst(app, "slash", "a", "b")
        await until(pilot, lambda: filtered(app) == "ab")
        await pilot.press("c")
        field = app.screen.query_one("#filter", Input)
        assert field.value == "abc"
        assert field.select_on_focus

    drive(script, furnished, station="datasets")
