"""Several runs on one screen: from the marks on Runs and from a pattern, their legend, table and baseline."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from screens.curves_several import SeveralCurves
from screens.plot_widget import Plot
from screens.row_list import RowList
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from tests.workbench.test_several_runs import ONE, OTHER, TWO, write_run
from workbench.run_list import find_run
from workbench.run_tags import tags_of
from workbench.workspace import Workspace, init

ALL = f"{ONE},{TWO},{OTHER}"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = init(tmp_path / "ws")
    write_run(found, ONE, seed=1)
    write_run(found, TWO, seed=2)
    write_run(found, OTHER, seed=1, lr=3e-5, eval_sha="f" * 64)
    return found


@pytest.mark.parametrize("size", [SIZE, (120, 30), WIDE])
def test_three_runs_two_of_them_seeds(workspace: Workspace, size: tuple[int, int]) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "margins, nats")
        await sees(pilot, "as the mean of 2 seeds · baseline")
        await check_golden("several", pilot)
        await pilot.press("m")
        await sees(pilot, "settings that differ")
        await check_golden("several-table", pilot)

    drive(script, workspace, size=size, station="several", subject=ALL)


def test_in_ascii_letters_tell_the_runs_apart(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "margins, nats")
        assert text_of(app).isascii()
        panel = next(plot.text for plot in app.screen.query(Plot) if plot.text.startswith(" margins"))
        drawn = "\n".join(panel.splitlines()[1:-1])
        assert drawn.count("a") >= 4
        assert drawn.count("c") >= 4

    drive(script, workspace, station="several", subject=ALL, ascii_only=True)


def test_marked_on_runs_they_are_shown_together_and_back_leads_there(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, OTHER)
        await pilot.press("space", "j", "space")
        await sees(pilot, "2 marked; o shows them in the same panels")
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, SeveralCurves))
        await sees(pilot, "2 in the same panels")
        await pilot.press("escape")
        await sees(pilot, "done *")
        await pilot.press("number_sign", *"keep, #p/q", "enter")
        await sees(pilot, "'p/q' can be no tag")
        await pilot.press("backspace", "backspace", "enter")
        await sees(pilot, "#keep #p")
        under_the_cursor = app.screen.query_one("#list", RowList).key
        assert tags_of(find_run(workspace, under_the_cursor).folder) == ("keep", "p")

    drive(script, workspace, station="runs")


def test_a_pattern_from_curves_and_the_baseline(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "rewards/margins")
        await pilot.press("o")
        await sees(pilot, f"Which runs beside {TWO}?")
        await pilot.press("(", "enter")
        await sees(pilot, "no regular expression")
        await pilot.press("backspace", *"two|other", "enter")
        await sees(pilot, "2 in the same panels")
        await until(pilot, lambda: f"✓ {TWO} · baseline" in text_of(app))
        await pilot.press("b")
        await until(pilot, lambda: f"✓ {OTHER} · baseline" in text_of(app))
        await pilot.press("g", "x", "plus", "left")
        await sees(pilot, "tokens 10.0k")
        await pilot.press("escape", "escape")
        await sees(pilot, "✓ done")

    drive(script, workspace, station="curves", subject=TWO)


def test_a_pattern_that_finds_nothing_and_a_run_that_is_not_there(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "no run is found; o looks for others")
        app.open("several", "gone")
        await sees(pilot, "no run 'gone'")
        await pilot.press("m", "b", "escape")
        await sees(pilot, "no run is found")

    drive(script, workspace, station="several", subject="/nothing-like-it")
