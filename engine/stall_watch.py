"""Whether a run gets on: how long nothing has come of it, against how long its steps take.

Owns the limit. Invariants: one word for each standstill; a run that is slow all along is not standing still; nothing is
ended here, for only a person can tell a hung device from a slow disk. Knows no clock but the one that it is given.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable

LEAST_S = 300.0
"""No standstill is spoken of before this: checkpoints and evaluations have their pauses, too."""
STEPS_OF_LATE = 50
MEDIANS = 10.0
"""A standstill is longer than so many steps of late."""


class StallWatch:
    """One thread notes what comes of the run, another looks now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._steps_s: deque[float] = deque(maxlen=STEPS_OF_LATE)
        self._last: float | None = None
        self._told = False

    def note(self, step_s: float | None = None) -> bool:
        """Something came of the run: a part of a pass, or a step that took `step_s`. True where a standstill that was
        spoken of has ended with it. Before the first note nothing is watched."""
        with self._lock:
            if step_s is not None:
                self._steps_s.append(step_s)
            self._last = self._clock()
            told, self._told = self._told, False
            return told

    def look(self) -> str:
        """What to say of a standstill, the first time that it is one; else nothing."""
        with self._lock:
            if self._last is None or self._told:
                return ""
            median = statistics.median(self._steps_s) if self._steps_s else 0.0
            still = self._clock() - self._last
            if still <= max(LEAST_S, MEDIANS * median):
                return ""
            self._told = True
        usual = f", where a step takes {median:.1f} s" if median else ""
        return (
            f"nothing has come of it for {still:.0f} s{usual}: see engine.log and what its devices do. If it hangs, "
            "stop it (what does not answer is killed after 15 minutes) and resume it from its newest checkpoint"
        )
