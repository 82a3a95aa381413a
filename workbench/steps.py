"""Work in steps: how far it is, told after each step to whoever asked for it.

Owns the count over several passes. Invariant: `Progress` may raise, at any step, to end the work; so whoever takes one
makes what it makes in a folder that is not yet in its place, and nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all); 0 in all where that is not known."""


class Steps:
    """Steps of one piece of work."""

    def __init__(self, total: int, progress: Progress | None = None) -> None:
        self.total, self.done = total, 0
        self._progress = progress

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each of which is a step that is done when the next one is asked for."""
        for item in items:
            yield item
            self.add(1)

    def add(self, steps: int) -> None:
        """So many more are done; with 0 it is only asked whether the work shall go on."""
        self.done += steps
        if self._progress is not None:
            self._progress(self.done, max(self.total, self.done) if self.total else 0)
