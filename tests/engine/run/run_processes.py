"""Workers, process numbers and waiting for the tests of engine.run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.run.folder import RunFolder
from engine.run.locks import holders

FAKE_WORKER = Path(__file__).with_name("fake_worker.py")
PATIENCE_S = 60.0
"""Far more than anything takes: it only ends a test that would hang."""


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of `condition`; fails the test, naming `what`, where it never comes."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError(f"waited in vain: {what}")


def fake_worker(folder: RunFolder, **options: Any) -> list[str]:
    """The argv of a fake worker."""
    return [sys.executable, str(FAKE_WORKER), str(folder.path), json.dumps(options)]


def supervisor_pid(folder: RunFolder) -> int | None:
    """Who holds the run's supervisor lock, from the process table."""
    found = [pid for pid in holders(folder.lock_path) if pid != os.getpid()]
    return found[0] if found else None


def worker_pids(folder: RunFolder) -> list[int]:
    """Who holds the run's tree lock: the worker and its children."""
    return [pid for pid in holders(folder.tree_lock_path) if pid not in (os.getpid(), supervisor_pid(folder))]
