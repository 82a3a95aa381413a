"""What saves on the label screen: one thing at a time, on the disk before the next is shown; and which keys count.

Owns the guard and the saving. A verdict key counts when it was typed at least `GUARD_S` after the frame with the pair
went to the terminal. Textual's reader thread stamps each key as it is read, so a key that waited in a queue while a
verdict was saved, or came in one chunk with the key before, carries a time before the frame and judges nothing.
Invariant: after any error the same pair is there and the message says that nothing was saved.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import TypeVar

from rich.cells import cell_len
from textual.css.query import NoMatches
from textual.events import Key, Resize

from engine.run.safe_text import safe
from screens.line import Line
from screens.station import Station
from workbench.labeling import Sitting
from workbench.labeling_state import JudgedElsewhere
from workbench.text_wrapping import cut

T = TypeVar("T")
GUARD_S = 0.15
"""Nobody reads a pair in less; a key that comes earlier was meant for the pair before."""


class KeyClock:
    """When it is now, and when a key was read from the terminal, in seconds of one clock."""

    def now(self) -> float:
        """The present time."""
        return time.monotonic()

    def of(self, event: Key) -> float:
        """When the reader thread took this key from the terminal."""
        return event.time


class SavedLine(Line):
    """What was done last on the left, how far one is on the right."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._did, self._far = "", ""

    def tell(self, *, did: str | None = None, far: str | None = None) -> None:
        """Say what was done, or how far one is, or both; what is not said stays."""
        self._did = self._did if did is None else did
        self._far = self._far if far is None else far
        self._tell()

    def on_resize(self, event: Resize) -> None:
        self._tell()

    def _tell(self) -> None:
        room = self.size.width
        if room:
            far = cut(self._far, room)
            did = cut(self._did, max(0, room - cell_len(far) - 2))
            self.show(did + " " * (room - cell_len(did) - cell_len(far)) + far)


class SavingStation(Station):
    """A station with a sitting, on which one thing is saved at a time."""

    NAME = "label"
    TITLE = "label"
    HELP = (
        "Which answer is better? One key is one verdict; it is on the disk before the next pair shows, so nothing is "
        "lost when the link dies. You do not see where an answer comes from, and which one stands left is drawn.\n\n"
        "A key that comes within 150 ms of a pair's appearance, or was typed ahead, judges nothing.\n\n"
        "What you add to a pair (a comment, reasons, a flag, an answer of your own) goes with its verdict, and is kept "
        "until then.\n\n"
        "u takes back what you did last, again and again, also verdicts of earlier sittings; ctrl+r does it again. "
        "Leave when you like: you go on where you stopped."
    )

    def __init__(self, subject: str = "", *, clock: KeyClock | None = None) -> None:
        super().__init__(subject)
        self._keys_clock = clock or KeyClock()
        self._sitting: Sitting | None = None
        self._saving = False
        self._guard_from: float | None = None
        """When the frame with the present pair was sent; None until it was."""
        self._pair_from = 0.0
        """The same, untouched by resizing: what a verdict's time counts from."""
        self._appearance = 0

    def did(self, words: str) -> None:
        """Say what was done last."""
        self.query_one("#saved", SavedLine).tell(did=safe(words))

    @abstractmethod
    def show_present(self, did: str | None = None) -> None:
        """Show the pair that is present now, and what was done last."""

    def on_resize(self, event: Resize) -> None:
        self.await_frame()

    def on_screen_resume(self) -> None:
        self.await_frame()

    def await_frame(self, *, at_once: bool = False) -> None:
        """The pair is drawn anew, `at_once` where it can be: no verdict until that is sent, and `GUARD_S` more."""
        self._guard_from = None
        self._appearance += 1
        if at_once and self.draws_now():
            self._frame_sent(self._appearance)
        else:
            self.call_after_refresh(self._frame_sent, self._appearance)

    @abstractmethod
    def draws_now(self) -> bool:
        """Send what is to be drawn at once; False where it cannot be."""

    @abstractmethod
    def in_quiet(self) -> None:
        """Do what can be done while nobody waits: a pair was just shown."""

    def _frame_sent(self, appearance: int) -> None:
        if appearance == self._appearance:
            self._guard_from = self._keys_clock.now()
            self._pair_from = self._pair_from or self._guard_from
            self.in_quiet()

    def counts(self, came: float) -> bool:
        """Whether a key that came then was typed for what is shown now."""
        return not self._saving and self._guard_from is not None and came >= self._guard_from + GUARD_S

    @property
    def is_gone(self) -> bool:
        """Whether this screen was left while something went on in a thread."""
        try:
            self.query_one("#pair")
        except NoMatches:
            return True
        return not self.is_attached

    def save(self, write: Callable[[], T], then: Callable[[T], None]) -> None:
        """Run `write` in a thread, and `then` with what it returned."""
        self._saving = True
        self.say("")  # before: a hint to a key that comes while it is saved must stay
        self.run_worker(self._saved(write, then), exit_on_error=True)

    async def _saved(self, write: Callable[[], T], then: Callable[[T], None]) -> None:
        """In a thread, so that a disk that hangs leaves the screen alive; the pair stays until it is done."""
        try:
            result = await asyncio.to_thread(write)
        except JudgedElsewhere as error:
            if not self.is_gone:
                self.show_present()
                self.say(str(error), "bad")
        except Exception as error:
            if not self.is_gone:
                self.say(f"NOT SAVED, the same pair is here: {error}", "bad")
            self.complain(error)
        else:
            if not self.is_gone:
                then(result)
        finally:
            self._saving = False
