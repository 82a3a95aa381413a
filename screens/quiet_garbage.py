"""When Python looks for garbage on a screen whose keys must not wait: in quiet moments, and never through everything.

A collection that comes by itself falls where something is allocated, which is while a key is answered: the first one of
a sitting, through all that was made since the app began, was 90 ms within a verdict. Owns this process's collector
while such a screen is there. Invariant: when no such screen is left, everything is collected as everywhere else.
"""

from __future__ import annotations

import gc

WHOLE_EVERY = 50
"""Quiet moments; then also what has survived one is looked through, some milliseconds."""


class QuietGarbage:
    """The garbage of one screen."""

    def __init__(self) -> None:
        self._begun = False
        self._moments = 0

    def begin(self) -> None:
        """What is there now stays, and is not looked through."""
        self._begun = True
        gc.freeze()

    def collect(self) -> None:
        """Nobody waits: collect what has been made since."""
        self._moments += 1
        gc.collect(1 if self._moments % WHOLE_EVERY else 2)

    def end(self) -> None:
        """The screen is left: what was there is as any other thing again."""
        if self._begun:
            self._begun = False
            gc.unfreeze()
