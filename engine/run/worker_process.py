"""The worker as processes: started, asked to stop, and ended with everything below them.

Owns the worker's process group and its tree lock. A worker is one process, or several that train together, each told
its rank by the environment. Invariants: the worker's processes and their descendants hold tree.lock and nobody else
does, so the lock says whether any of them lives; all are of one process group, which is signalled only while its leader
has not been reaped, so no stranger can have its number; where one process ends badly, the others do not outlive it by
more than a moment. Refuses to know what the worker does and what its end means.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import RunFolderError
from engine.run.durable_files import disk_faults_named
from engine.run.folder import RunFolder
from engine.run.locks import HeldLock, hold, holders, is_held

LEFTOVER_GRACE_S = 5.0
"""What outlives the worker has this long between SIGTERM and SIGKILL."""
PEER_GRACE_S = 10.0
"""What outlives another process of the same worker that ended badly has this long to end by itself."""
PEER_LOST = 4
"""Exit code of a process that cannot go on because another one of its worker has ended: the other's is the reason."""
PREPARE = "--prepare"
"""Behind the arguments of a worker: it makes the run's data ready and ends, without a device."""
RANK_VARIABLE = "WORKBENCH_RANK"
_POLL_S = 0.05


@dataclass(frozen=True)
class WorkerEnd:
    """How a worker ended."""

    code: int
    """Exit code, or minus the signal, of the process that tells most: not one that only missed another."""
    rank: int
    """Which process that is."""


def rank_here() -> int:
    """Which of the processes that train together this one is, as its starter said; 0 where there is one."""
    return int(os.environ.get(RANK_VARIABLE, "0"))


class WorkerProcess:
    """A running worker. Make it in the main thread: the kernel ties the worker's parent signal to the thread."""

    def __init__(
        self,
        argv: Sequence[str],
        folder: RunFolder,
        tree: HeldLock,
        *,
        processes: int = 1,
        leases: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        working_folder: Path,
    ) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._bad_end: WorkerEnd | None = None
        self._others_end_by = 0.0
        self._killed = False
        folder.meeting_path.unlink(missing_ok=True)  # that of an earlier attempt would mislead this one
        with disk_faults_named("opening the log", folder.log_path):
            log = open_log(folder)
        given = {**(os.environ if environment is None else environment)}
        if processes > 1:
            # They meet on this machine alone; gloo would otherwise listen on the network's device.
            given.setdefault("GLOO_SOCKET_IFNAME", "lo")
        try:
            for rank in range(processes):
                self._processes.append(
                    subprocess.Popen(
                        list(argv),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=(tree.descriptor, *leases),
                        process_group=self._processes[0].pid if rank else 0,
                        umask=0o077,
                        cwd=working_folder,
                        env={**given, RANK_VARIABLE: str(rank)},
                    )
                )
        except OSError as error:
            if self._processes:
                self.kill()
            raise RunFolderError(f"the worker could not be started: {argv[0]}: {error.strerror}") from error
        finally:
            os.close(log)
            # From here on the lock is the worker's alone: held means that it, or a child of it, lives.
            tree.release()

    @property
    def pid(self) -> int:
        """The process number of the leading process, which is that of the group."""
        return self._processes[0].pid

    @property
    def pids(self) -> tuple[int, ...]:
        """Process numbers by rank."""
        return tuple(process.pid for process in self._processes)

    def ended(self) -> bool:
        """Whether every process of the worker is gone; the others are killed a moment after one ended badly.

        They stay unreaped, so that the group cannot be another's.
        """
        codes = [_code_of(process.pid) for process in self._processes]
        for rank, code in enumerate(codes):
            if code and not self._killed and (self._bad_end is None or self._bad_end.code == PEER_LOST != code):
                self._bad_end = WorkerEnd(code, rank)
                self._others_end_by = self._others_end_by or time.monotonic() + PEER_GRACE_S
        if None not in codes:
            return True
        if self._others_end_by and time.monotonic() > self._others_end_by:
            self._killed = True
            self.kill()
        return False

    def ask_to_stop(self) -> None:
        """SIGTERM to the leading process: it tells the others, and they end together after a checkpoint."""
        if _code_of(self.pid) is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> WorkerEnd:
        """How a worker ended whose processes are all gone, once nothing below them is left.

        What it left running is asked to end, then killed.
        """
        if is_held(self._folder.tree_lock_path):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            end_holders(self._folder, grace_s=LEFTOVER_GRACE_S)
        codes = [process.wait() for process in self._processes]
        self._folder.meeting_path.unlink(missing_ok=True)
        return self._bad_end or WorkerEnd(codes[0], 0)


def _code_of(pid: int) -> int | None:
    """The exit code of a child, or minus its signal; None while it lives. It is not reaped."""
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


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
