"""Starting a supervisor that outlives whoever starts it.

Owns the hand-over: the starter hears whether the run is the supervisor's own, or why it refused, through a pipe that
closes with it. Invariant: nothing of the starter's terminal, session or descriptors reaches the run. The supervisor is
imported nowhere here; it is started as a program.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.errors import RunFolderError
from engine.run.durable_files import disk_faults_named
from engine.run.folder import RunFolder
from engine.run.worker_process import last_line, open_log

READY = "ready"
REFUSED = "refused: "


def start_detached(
    run_dir: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    *,
    worker: Sequence[str] | None = None,
    timeout_s: float = 120.0,
    queued: bool = False,
) -> None:
    """Start the supervisor in a session of its own; it outlives this process, its terminal and its login.

    Returns once the run is the supervisor's own (it has its locks; status.json says "preparing" or "queued"). `env`
    is added to this process's environment; `worker` is the worker's argv where it is another. Raises RunFolderError
    with the supervisor's reason where it refuses.
    """
    folder = RunFolder(Path(run_dir).absolute())
    if not folder.path.is_dir():
        raise RunFolderError(f"{folder.path} is no folder: there is no such run")
    with disk_faults_named("starting the run", folder.log_path):
        log = open_log(folder)
    command = [sys.executable, "-m", "engine.run.supervisor", str(folder.path)]
    own_worker = [*(["--queued"] if queued else []), *(["--", *worker] if worker is not None else [])]
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        launcher = subprocess.Popen(
            [*command, "--ready-fd", str(writing), *own_worker],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
            umask=0o077,
            cwd=import_root(),
            env={**os.environ, **(env or {})},
        )
        os.close(writing)
        writing = -1
        # The launcher forks the supervisor and ends at once, so nothing is left for this process to reap.
        launcher.wait()
        answer = _answer(reading, timeout_s)
    finally:
        for descriptor in (log, reading, writing):
            if descriptor >= 0:
                os.close(descriptor)
    if answer == READY:
        return
    if answer is None:
        raise RunFolderError(
            f"the supervisor of {folder.id} has not answered for {timeout_s:.0f} s; see {folder.log_path}"
        )
    reason = answer.removeprefix(REFUSED) or last_line(folder.log_path) or "it ended without a word"
    raise RunFolderError(f"run {folder.id} was not started: {reason}")


def _answer(reading: int, timeout_s: float) -> str | None:
    """What the supervisor wrote before it closed its end; None where it has not closed it in time."""
    deadline = time.monotonic() + timeout_s
    answer = b""
    while True:
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        part = os.read(reading, 4096)
        if not part:
            return answer.decode("utf-8", "replace").strip()
        answer += part


def import_root() -> Path:
    """A working folder from which `python -m engine…` finds this very package, and nothing that a stranger put there.

    `-m` searches the working folder first. For a checkout that must be the checkout; an installed package is found
    anyway, and then the folder is /, where only the system puts files.
    """
    root = Path(__file__).resolve().parents[2]
    return Path("/") if root.name in ("site-packages", "dist-packages") else root
