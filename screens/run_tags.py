"""Asking which tags a run is to have.

Owns the question alone; what can be a tag, and where it is kept, is `workbench.run_tags`'.
"""

from __future__ import annotations

from collections.abc import Callable

from screens.modals import AskText
from screens.station import Station
from workbench.errors import WorkbenchError
from workbench.run_list import Run
from workbench.run_tags import set_tags, tags_of, typed_tags


def ask_for_tags(station: Station, run: Run, done: Callable[[str], None]) -> None:
    """Ask for all tags of `run`, and call `done` with what came of it."""

    def wrong_with(text: str) -> str:
        try:
            typed_tags(text)
        except WorkbenchError as error:
            return str(error)
        return ""

    def take(text: str | None) -> None:
        if text is None:
            return
        try:
            tags = set_tags(run, typed_tags(text))
        except WorkbenchError as error:
            station.say(station.workbench_app.here(str(error)), "bad")
        else:
            done(f"{run.id}: {' '.join(f'#{tag}' for tag in tags) or 'no tags'}")

    question = f"Tags of {run.id}, with spaces between them; none takes all away."
    value = " ".join(tags_of(run.folder))
    station.app.push_screen(AskText(question, value=value, placeholder="keep   paper", check=wrong_with), take)
