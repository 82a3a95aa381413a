"""Work that takes longer than a key press: it runs in a thread, tells how far it is, and can be cancelled.

Owns the handle that the work reports to. Cancelling raises `Cancelled` in the work at its next report, so whatever the
work does in steps (a new folder, a copy) is taken back as after any other error.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from workbench.terminal_output import time_left
from workbench.text_wrapping import cut

LONGEST_DOING, LONGEST_WORDS = 36, 16
"""Cells, so that a long name does not push out how far it is and which key ends it."""


class Cancelled(Exception):
    """The person cancelled this work; nothing of it is kept."""


@dataclass
class Task:
    """One piece of work in a thread."""

    doing: str
    """What it does, for a person: "adding support.parquet"."""
    started: float = field(default_factory=time.monotonic)
    done: float = 0.0
    total: float = 0.0
    """0 while it is not known."""
    words: str = ""
    _cancel: threading.Event = field(default_factory=threading.Event)

    def report(self, done: float, total: float = 0.0, words: str = "") -> None:
        """Say how far the work is; raises Cancelled where the person has had enough."""
        self.done, self.total, self.words = done, total, words
        self.check()

    def check(self) -> None:
        """Raises Cancelled where the work should end."""
        if self._cancel.is_set():
            raise Cancelled(self.doing)

    def cancel(self) -> None:
        """Ask the work to end."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        return self._cancel.is_set()

    def line(self) -> str:
        """How far it is, in one line."""
        elapsed = time.monotonic() - self.started
        if self.total > 0 and self.done > 0:
            left = elapsed * (self.total - self.done) / self.done
            how_far = f"{100 * self.done / self.total:.0f} %, about {time_left(left)}"
        elif self.done:
            how_far = f"{self.done:,.0f}"
        else:
            how_far = f"{elapsed:.0f} s"
        ending = "ending …" if self.cancelled else "esc cancels"
        parts = (cut(self.doing, LONGEST_DOING), cut(self.words, LONGEST_WORDS), how_far, ending)
        return " · ".join(part for part in parts if part)
