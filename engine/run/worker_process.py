"""The worker as a process: started, asked to stop, and ended with everything below it.

Owns the worker's process group and its tree lock. Invariants: the worker and its descendants hold tree.lock and nobody
else does, so the lock says whether any of them lives; the group is signalled only while its leader has not been reaped,
so no stranger can have its number. Refuses to know what the worker does and what its end means.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from engine.errors import RunFolderError
from engine.run.durable_files import disk_faults_named
from engine.run.folder import RunFolder
from engine.run.locks import HeldLock, hold, holders, is_held

LEFTOVER_GRACE_S = 5.0
"""What outlives the worker has this long between SIGTERM and SIGKILL."""
_POLL_S = 0.05


class WorkerProcess:
    """A running worker. Make it in the main thread: the kernel ties the worker's parent signal to the thread."""

    def __init__(
        self,
        argv: Sequence[str],
        folder: RunFolder,
        tree: HeldLock,
        *,
        leases: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        working_folder: Path,
    ) -> None:
        self._folder = folder
        with disk_faults_named("opening the log", folder.log_path):
            log = open_log(folder)
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(tree.descriptor, *leases),
                process_group=0,
                umask=0o077,
                cwd=working_folder,
                env=None if environment is None else dict(environment),
            )
        except OSError as error:
            raise RunFolderError(f"the worker could not be started: {argv[0]}: {error.strerror}") from error
        finally:
            os.close(log)
            # From here on the lock is the worker's alone: held means that it, or a child of it, lives.
            tree.release()

    @property
    def pid(self) -> int:
        """The worker's process number, which is that of its group."""
        return self._process.pid

    def ended(self) -> bool:
        """Whether the worker itself is gone. It stays unreaped, so that its group cannot be another's."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def ask_to_stop(self) -> None:
        """SIGTERM to the worker alone: it finishes its step and writes a checkpoint."""
        if not self.ended():
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """The exit code (minus the signal) of a worker that has ended, once nothing of it is left.

        What it left running is asked to end, then killed.
        """
        if is_held(self._folder.tree_lock_path):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            end_holders(self._folder, grace_s=LEFTOVER_GRACE_S)
        return self._process.wait()


def open_log(folder: RunFolder) -> int:
    """engine.log for appending, mode 0600. The caller closes it."""
    return os.open(folder.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def last_line(path: Path) -> str:
    """The last line of a log that is not empty, cut to a readable length; the supervisor's own lines do not count."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip() and " supervisor: " not in line), "")


def kills_for_memory() -> int:
    """How often the kernel has killed a process of this machine because memory ran out; 0 where it does not say."""
    try:
        text = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return 0
    found = [line.split()[1] for line in text.splitlines() if line.startswith("oom_kill ")]
    return int(found[0]) if found else 0


def claim_tree(folder: RunFolder, *, grace_s: float, say: Callable[[str], None]) -> HeldLock:
    """The tree lock of a run, once every process of an earlier attempt is gone.

    Orphans are asked to end and have `grace_s` for their checkpoint; then they are killed. Raises RunFolderError where
    even that does not free the lock.
    """
    lock = hold(folder.tree_lock_path, inheritable=True)
    if lock is None:
        say(f"waiting for the processes of an earlier attempt: {_named(folder)}")
        for pid in _orphans(folder):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
        end_holders(folder, grace_s=grace_s)
        lock = hold(folder.tree_lock_path, inheritable=True)
    if lock is None:
        raise RunFolderError(
            f"processes of an earlier attempt still run and cannot be ended: {_named(folder)}. End them, then try again"
        )
    return lock


def end_holders(folder: RunFolder, *, grace_s: float) -> None:
    """Wait until the tree lock is free; after `grace_s` its holders are killed."""
    if _free_within(folder, grace_s):
        return
    for pid in _orphans(folder):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    _free_within(folder, LEFTOVER_GRACE_S)


def _free_within(folder: RunFolder, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_held(folder.tree_lock_path):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _orphans(folder: RunFolder) -> list[int]:
    return [pid for pid in holders(folder.tree_lock_path) if pid != os.getpid()]


def _named(folder: RunFolder) -> str:
    return ", ".join(map(str, _orphans(folder))) or "(not visible from here)"
