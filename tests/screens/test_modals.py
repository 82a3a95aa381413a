"""A modal is closed once, however many keys of one burst would close it, and with it what lies above."""

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


def test_a_page_that_the_same_burst_opened_goes_with_the_question_below_it(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        below, answers = app.screen, []
        asked = AskText("a comment")
        await app.push_screen(asked, answers.append)
        await app.push_screen(Reading([]))
        asked.dismiss("good")
        asked.dismiss("twice")
        await pilot.pause()
        assert app.screen is below
        assert answers == ["good"]

    drive(script, workspace)
