"""Keeping the processor awake while a program under measurement waits for a key.

A processor that has halted begins again slowly: on a virtual machine the same loop took 13 ms after a pause of 20 ms,
and 7 ms without one. Whoever asks how long a program works, and not how a machine sleeps, measures within `awake`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SPIN = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() == {parent}:
    for _ in range(10_000_000):
        pass
"""


@contextmanager
def awake(wanted: bool = True) -> Iterator[None]:
    """A process on each core that runs only where nothing else does; none where it is not `wanted`."""
    code = _SPIN.format(parent=os.getpid())
    spinning = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(os.cpu_count() or 1) if wanted]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
