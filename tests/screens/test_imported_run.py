"""A run of another program on the screens: it is shown like any other, says whose it is, and is never resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from tests.screens.driving import WIDE, drive, sees, text_of
from workbench.run_import import import_run
from workbench.workspace import Workspace, init

FILES = Path(__file__).parents[1] / "workbench" / "foreign_logs"


@pytest.fixture
def imported(tmp_path: Path) -> Workspace:
    workspace = init(tmp_path / "ws")
    import_run(workspace, FILES / "trainer_state_6.json", name="theirs")
    return workspace


def test_runs_and_curves_show_it(imported: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "imported")
        assert "trainer_state_6.json" in text_of(app)
        await pilot.press("R")
        await sees(pilot, "cannot be")
        await pilot.press("enter")
        await sees(pilot, "rewards/margins")
        await sees(pilot, "▼ imported")
        assert "ref " not in text_of(app)
        assert not app.screen.check_action("resume", ())

    drive(script, imported, station="runs", size=WIDE)
