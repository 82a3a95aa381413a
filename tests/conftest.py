"""What holds for every test: one thread a process, since several processes run side by side, and how many those are."""

from __future__ import annotations

import os

# Read by torch's OpenMP when it is first imported; inherited by the workers that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_xdist_auto_num_workers() -> int:
    """Workers of `-n auto`: two a core, since most tests of screens and runs wait for a terminal or another process."""
    return 2 * (os.cpu_count() or 1)
