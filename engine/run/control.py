"""Requests from outside to a run: files in its control folder.

Owns their form. Invariants: a request is whole or absent, may be made by any process at any time, stays until it is
cleared by whoever carried it out, and asking whether there is one costs one failed `open`. Refuses to know how a
request is carried out.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from engine.run.durable_files import disk_faults_named, read_json_object, write_atomically
from engine.run.folder import RunFolder

REQUESTS = ("stop", "checkpoint")


def request(folder: RunFolder, what: str, **fields: Any) -> None:
    """Ask the run to `stop` (checkpoint, then end) or to write a `checkpoint`. A second request replaces the first."""
    path = folder.control / f"{_known(what)}.json"
    with disk_faults_named(f"asking the run to {what}", path):
        folder.control.mkdir(mode=0o700, exist_ok=True)
        write_atomically(path, orjson.dumps({"schema": 1, "time": time.time(), **fields}) + b"\n")


def pending(folder: RunFolder, what: str) -> dict[str, Any] | None:
    """The request, or None. One that is there but cannot be read is still a request: it has no fields."""
    path = folder.control / f"{_known(what)}.json"
    found = read_json_object(path)
    if found is None and path.exists():
        return {}
    return found


def clear(folder: RunFolder, what: str) -> None:
    """The request has been carried out, or is void."""
    path = folder.control / f"{_known(what)}.json"
    with disk_faults_named(f"clearing a request to {what}", path):
        path.unlink(missing_ok=True)


def _known(what: str) -> str:
    if what not in REQUESTS:
        raise ValueError(f"{what!r} is no request: {', '.join(REQUESTS)}")
    return what
