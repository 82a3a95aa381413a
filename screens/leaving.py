"""Screens that are left while something still goes on for them: a thread that reads, a file that is being opened.

Owns what becomes of it. Invariants: work that comes back to a screen which was taken apart ends there, and is no fault
of the program; what a thread opened for a screen is closed once, whichever of the two comes last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from threading import Lock
from typing import Any, Generic, TypeVar

from textual.css.query import NoMatches
from textual.message import Message
from textual.screen import Screen
from textual.worker import Worker

from screens.tasks import Cancelled

T = TypeVar("T")


class Leavable(Screen[T]):
    """A screen whose work may come back after it was left."""

    @property
    def gone(self) -> bool:
        """Whether this screen was left: what still comes to it finds its widgets no more, or never made."""
        app = self.app
        # An app that shuts down takes its screens apart while they still stand in the stack.
        left = self not in app.screen_stack or not app.is_running or app.return_code is not None
        return left or not self.is_running

    def run_worker(self, work: Any, *arguments: Any, **options: Any) -> Worker[Any]:
        """As Textual's; work that goes on while its screen is taken apart ends there."""
        return super().run_worker(self._while_there(work), *arguments, **options)

    async def _while_there(self, work: Awaitable[Any]) -> Any:
        try:
            return await work
        except NoMatches:
            if not self.gone:
                raise
            return None

    async def _dispatch_message(self, message: Message) -> None:
        """A screen left before it is composed is mounted all the same; that must not end the app."""
        try:
            await super()._dispatch_message(message)
        except NoMatches:
            if not self.gone:
                raise


class Opening(Generic[T]):
    """What a thread opens for a screen, to be closed when the screen is left: also where it is open only after that."""

    def __init__(self, close: Callable[[T], Any]) -> None:
        self._close = close
        self._lock = Lock()
        self._left = False
        self._opened: list[T] = []

    def open(self, make: Callable[[], T]) -> T:
        """In a thread: what `make` opens; raises Cancelled, with that closed, where the screen was left meanwhile."""
        opened = make()
        with self._lock:
            if not self._left:
                self._opened.append(opened)
                return opened
        self._close(opened)
        raise Cancelled("the screen was left")

    def close(self, opened: T) -> None:
        """Close one thing before the screen is left."""
        with self._lock:
            held = opened in self._opened
            if held:
                self._opened.remove(opened)
        if held:
            self._close(opened)

    def leave(self) -> None:
        """The screen is left: close what is open, and what will be."""
        with self._lock:
            self._left = True
            opened, self._opened = self._opened, []
        for one in opened:
            self._close(one)
