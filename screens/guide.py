"""The guide: a small panel on every screen that says what to do here and which key leads on.

Owns the panel and the key that goes to the step's station. Which step it is, and its words, are
`workbench.guide_steps`'.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast
from weakref import WeakSet

from textual.app import ComposeResult
from textual.containers import Vertical

from screens.line import Line
from screens.station import KNOWN_ERRORS
from workbench.guide_steps import GuideStep, find_step
from workbench.text_wrapping import wrap
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from screens.app import WorkbenchApp

LOOK_EVERY_S = 1.0
LINES = 4
KEY = "ctrl+n"


class Guide:
    """What has been seen so far, for all panels of the app."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.seen: set[str] = set()
        """Stations that were shown and left: what is still being looked at is not behind the person."""
        self._at = ""
        self._panels: WeakSet[GuidePanel] = WeakSet()
        self.step: GuideStep | None = None

    def panel(self) -> GuidePanel:
        """A panel for one screen."""
        made = GuidePanel(self)
        self._panels.add(made)
        return made

    def looks_at(self, station: str) -> None:
        """A station is shown."""
        if self._at and station != self._at:
            self.seen.add(self._at)
        self._at = station
        for panel in self._panels:
            panel.show_again()

    def leaves(self) -> None:
        """The present station is looked at enough."""
        if self._at:
            self.seen.add(self._at)

    def look(self) -> GuideStep:
        """The step that is to be done now."""
        self.step = find_step(self.workspace, self.seen)
        return self.step


class GuidePanel(Vertical):
    """Four lines: the step, why, and what to press."""

    DEFAULT_CSS = f"""
    GuidePanel {{ height: {LINES}; background: $primary 15%; padding: 0 1; }}
    """

    def __init__(self, guide: Guide) -> None:
        super().__init__(id="guide")
        self._guide = guide

    def compose(self) -> ComposeResult:
        for number in range(LINES):
            yield Line(id=f"guide-{number}")

    def on_mount(self) -> None:
        self.run_worker(self._keep_looking(), exit_on_error=True)

    def on_resize(self) -> None:
        self.show_again()

    def show_again(self) -> None:
        """Show the step as it was last known: what another screen's panel found out meanwhile."""
        if self._guide.step is not None and self.query("#guide-0"):
            self._show(self._guide.step)

    async def _keep_looking(self) -> None:
        while True:
            if self.app.screen is self.screen:
                try:
                    self._show(await asyncio.to_thread(self._guide.look))
                except KNOWN_ERRORS as error:  # a file is torn or being replaced
                    self._show_lines(
                        "guide · it cannot see how far you are", "", cast("WorkbenchApp", self.app).here(str(error))
                    )
            await asyncio.sleep(LOOK_EVERY_S)

    def _show(self, step: GuideStep) -> None:
        station = getattr(self.screen, "NAME", "")
        here = station == step.station
        where = "" if here or step.done else f" · {KEY} goes to {step.station}"
        title = f"guide {step.number} of {step.total} · {step.title}" if not step.done else f"guide · {step.title}"
        self._show_lines(title, where, step.why, step.here if here or step.done else f"press {KEY}")

    def _show_lines(self, title: str, where: str, why: str, last: str = "") -> None:
        lines = wrap(why, max(20, self.size.width - 2))[: LINES - 2]
        lines += [""] * (LINES - 2 - len(lines))
        self.query_one("#guide-0", Line).show((title, "bold $accent"), (where, "bold"))
        for number, line in enumerate(lines, start=1):
            self.query_one(f"#guide-{number}", Line).show(line)
        self.query_one(f"#guide-{LINES - 1}", Line).show(("▸ " if last else "", "$accent"), (last, "bold"))


def lead_on(app: WorkbenchApp) -> None:
    """Go to the station of the present step."""
    guide = app.guide
    if guide is None:
        return
    try:
        before = guide.look()
        guide.leaves()
        step = guide.look()
    except KNOWN_ERRORS as error:
        app.complain(error)
        return
    if step == before and getattr(app.screen, "NAME", "") == step.station:
        app.tell(f"you are there: {step.here}")
        return
    app.go(step.station, step.subject)
