"""Runs one of our own programs as a child and waits for it: where torch and the network live, away from this process.

Owns the child's life: started by an argument list, its progress shown while it runs, its last line on stderr turned
into an error, ended when this process is interrupted. Invariant: a child finds the same code as its parent, and never a
module of the current folder.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from workbench.errors import WorkbenchError
from workbench.terminal_output import Progress

Told = Callable[[float, float, str], None]
"""Called with (done, total, words); it may raise to end the work."""
ERROR_LINE_CHARACTERS = 1000
SECONDS_TO_END = 10.0
LOOK_EVERY_S = 0.25
"""How often a silent child's `progress` is asked whether the work should go on."""
_CHUNK_BYTES = 1 << 16
_ROOT = Path(__file__).resolve().parent.parent


def run_program(
    module: str,
    arguments: Sequence[str],
    *,
    what: str,
    quiet: bool = False,
    details: bool = True,
    environment: Mapping[str, str] | None = None,
    progress: Told | None = None,
) -> dict[str, Any]:
    """Run `python -m MODULE ARGUMENTS…` to its end and return the last JSON line it printed.

    Lines {"done", "total", "what"} on its stdout are shown as progress of `what`; without `details` the child's own
    words are left out. `progress` is called with each of them, and now and then while the child is silent; where it
    raises, the child is ended first. Raises WorkbenchError with the last line of the child's stderr where it fails.
    Ctrl+C ends the child before it is raised again.
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
        shown = Progress(what, quiet=quiet)
        try:
            assert child.stdout is not None
            lines = child.stdout if progress is None else _lines_or_silence(child.stdout)
            last = _follow(lines, shown, details, progress)
            code = child.wait()
        except BaseException:
            _end(child)
            raise
        finally:
            shown.close()
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


def _follow(lines: Iterable[bytes], shown: Progress, details: bool, progress: Told | None) -> dict[str, Any]:
    last: dict[str, Any] = {}
    how_far: tuple[float, float, str] = (0, 0, "")
    for line in lines:
        found = _read_line(line)
        if found is not None:
            last = found
        if found is not None and isinstance(found.get("done"), (int, float)):
            how_far = (found["done"], found.get("total") or 0, str(found.get("what", "")) if details else "")
            shown.update(*how_far)
        if progress is not None:
            progress(*how_far)
    return last


def _read_line(line: bytes) -> dict[str, Any] | None:
    """A line of the child as an object; None for what a library printed of its own, and for silence."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _lines_or_silence(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of a pipe; an empty one after each LOOK_EVERY_S without any, so that who waits can look up."""
    rest = b""
    waiting = select.poll()  # select() refuses descriptors above 1023
    waiting.register(stream, select.POLLIN | select.POLLHUP)
    while True:
        if not waiting.poll(LOOK_EVERY_S * 1000):
            yield b""
            continue
        chunk = os.read(stream.fileno(), _CHUNK_BYTES)
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


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
