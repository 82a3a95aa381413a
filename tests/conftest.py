"""What holds for every test: one thread a process, since several processes run side by side."""

from __future__ import annotations

import os

# Read by torch's OpenMP when it is first imported; inherited by the workers that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
