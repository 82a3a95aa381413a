"""Runs one of our own programs as a child and waits for it: where torch and the network live, away from this process.

Owns the child's life: started by an argument list, its progress shown while it runs, its last line on stderr turned
into an error, ended when this process is interrupted. Invariant: a child finds the same code as its parent, and never a
module of the current folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from workbench.errors import WorkbenchError
from workbench.terminal_output import Progress

ERROR_LINE_CHARACTERS = 1000
SECONDS_TO_END = 10.0
_ROOT = Path(__file__).resolve().parent.parent


def run_program(
    module: str,
    arguments: Sequence[str],
    *,
    what: str,
    quiet: bool = False,
    details: bool = True,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run `python -m MODULE ARGUMENTS…` to its end and return the last JSON line it printed.

    Lines {"done", "total", "what"} on its stdout are shown as progress of `what`; without `details` the child's own
    words are left out. Raises WorkbenchError with the last
    line of its stderr where it fails. Ctrl+C ends the child before it is raised again.
    """
    command = [sys.executable, "-P", "-m", module, *arguments]
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=child_environment(environment),
        )
        progress = Progress(what, quiet=quiet)
        try:
            assert child.stdout is not None
            last = _follow(child.stdout, progress, details)
            code = child.wait()
        except BaseException:
            _end(child)
            raise
        finally:
            progress.close()
            if child.stdout is not None:
                child.stdout.close()
        if code != 0:
            raise WorkbenchError(f"{what}: {_reason(code, complaints)}")
    return last


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, with our packages where the child finds them."""
    environment = dict(os.environ)
    paths = [str(_ROOT), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    # As for a run's worker: threads that spin take the core from whatever else the machine does.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.update(extra or {})
    return environment


def _follow(stream: IO[bytes], progress: Progress, details: bool) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for line in stream:
        try:
            found = json.loads(line)
        except ValueError:
            continue  # a library printed something of its own
        if not isinstance(found, dict):
            continue
        last = found
        if isinstance(found.get("done"), (int, float)):
            progress.update(found["done"], found.get("total") or 0, str(found.get("what", "")) if details else "")
    return last


def _reason(code: int, complaints: IO[bytes]) -> str:
    """Why a child failed: its own last words, or the signal that ended it."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; if memory ran out, use a smaller batch or a smaller model" if -code == signal.SIGKILL else ""
        return f"it was ended by {name}{hint}"
    complaints.seek(0)
    last = deque((line for line in complaints if line.strip()), maxlen=1)
    text = last[0].decode("utf-8", "replace").strip() if last else f"it ended with exit code {code} and said nothing"
    return text[:ERROR_LINE_CHARACTERS]


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
