"""Signals as something to wait for.

Owns the handlers of the supervisor while it works. Invariants: a signal is never lost between a look and a wait (a pipe
wakes the wait), SIGTERM and SIGINT mean "stop gently", a hang-up means nothing, and the handlers of before come back at
the end. Main thread only.
"""

from __future__ import annotations

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Any

_ASKING = (signal.SIGTERM, signal.SIGINT)


class SignalInbox:
    """Catches signals while it is open."""

    def __init__(self) -> None:
        self.stop_asked = False
        """True once SIGTERM or SIGINT has come."""
        self._before: dict[signal.Signals, Any] = {}
        self._before_fd = -1
        self._reading, self._writing = -1, -1

    def __enter__(self) -> SignalInbox:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in _ASKING:
            self._before[number] = signal.signal(number, self._ask)
        # Only a signal with a handler wakes the wait.
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._wake)
        self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._before_fd = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._before_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        os.close(self._reading)
        os.close(self._writing)

    def wait(self, seconds: float) -> None:
        """Until a signal comes, or has come since the last wait; at most `seconds`."""
        ready, _, _ = select.select([self._reading], [], [], seconds)
        if ready:
            os.read(self._reading, 4096)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.stop_asked = True

    def _wake(self, number: int, frame: FrameType | None) -> None:
        pass
