"""A modal is closed once, however many keys of one burst would close it."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from screens.app import BELOW, WorkbenchApp
from screens.modals import AskText, Modal, Reading
from tests.screens.driving import drive
from workbench.workspace import Workspace


@pytest.mark.parametrize("made", [lambda: AskText("a comment"), lambda: Reading([])], ids=["dialog", "page"])
def test_a_second_key_of_one_burst_takes_no_screen_below(workspace: Workspace, made: object) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        below = app.screen
        modal = made()  # type: ignore[operator]
        assert isinstance(modal, Modal)
        await app.push_screen(modal)
        modal.dismiss(None)
        modal.dismiss(None)
        await pilot.pause()
        assert app.screen is below
        assert len(app.screen_stack) == BELOW + 1

    drive(script, workspace)
