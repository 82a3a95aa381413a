"""What tests go over all stations with: what each is about, and when it has come to rest."""

from __future__ import annotations

from textual.pilot import Pilot

from screens.app import WorkbenchApp
from tests.screens.driving import until
from tests.screens.furnished_workspace import PAIRS, PREFERENCES, RUN_DONE

SUBJECTS = {
    "datasets": "answers", "inspect": "demonstrations", "lint": "preferences-raw", "profile": "chats",
    "pairs": PAIRS, "annotators": PAIRS, "label": PAIRS, "launch": PREFERENCES,
    "runs": RUN_DONE, "curves": RUN_DONE, "several": f"{RUN_DONE}/", "compare": RUN_DONE,
}  # fmt: skip
"""What each station is about in these tests, where it is about something."""


def station_of(app: WorkbenchApp) -> str:
    return getattr(app.screen, "NAME", "")


async def idle(app: WorkbenchApp, pilot: Pilot[int]) -> None:
    """Wait until the present station has read what it reads and no task of it goes on."""
    await until(pilot, lambda: bool(app.screen.query("#message")), "composed")
    await until(pilot, lambda: app.screen._job is None, "no task")
    await pilot.pause(0.05)
