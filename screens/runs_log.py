"""The log of a run in a page that stays at its end while the log grows.

Owns the page alone. It is read in a thread, once a second, and drawn only where it has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from screens.line import Line
from screens.modals import Dialog
from screens.text_view import Block, TextView
from workbench.run_board import log_tail
from workbench.run_list import Run

LOOK_EVERY_S = 1.0


class LogPage(Dialog[None]):
    """The end of engine.log. Any of q, Esc, l closes it."""

    TITLE = "the log of a run"
    HELP = (
        "What the run's own processes wrote, as it grows: at its end it stays there, further up it stays where you are."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,l,enter,ctrl+c", "close", "close", id="log.close", tooltip="Close the log."),
    ]

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._of_run = run

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal page log"):
            yield Line((self._of_run.id, "bold"))
            yield TextView(id="log", follow=True)
            yield Line(("j k scroll, G the end, q closes", "$text-muted"))

    def on_mount(self) -> None:
        self.query_one(TextView).focus()
        self.run_worker(self._follow(), exit_on_error=True)

    def action_close(self) -> None:
        self.dismiss(None)

    async def _follow(self) -> None:
        before: Sequence[str] | None = None
        while True:
            lines = await asyncio.to_thread(log_tail, self._of_run)
            if lines != before:
                self._show(lines, first=before is None)
                before = lines
            await asyncio.sleep(LOOK_EVERY_S)

    def _show(self, lines: Sequence[str], *, first: bool) -> None:
        view = self.query_one(TextView)
        view.show([Block(line) for line in lines] or [Block("nothing is in it yet", "faint")])
        if first:
            self.call_after_refresh(view.action_edge, 1)
