"""The child that calls a run's reward functions, from the side of the training.

Owns its start, every exchange with it under a time limit, and its end. Invariants: no call lasts longer than the limit;
a child that is late or dies is killed with its whole process group, started anew and asked once more, since a full
memory or a slow network may pass, and then it is an error; what a function prints reaches the run's log as one safe
line each, and never the protocol. Torch-free; what is a score is the child's to say.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import decode_source
from pathlib import Path
from typing import IO, Any

import orjson

from engine.errors import RewardError
from engine.run.safe_text import safe

CHILD = Path(__file__).with_name("child.py")
LOOK_S = 0.5
"""Between looks whether the run was asked to stop."""
LINES_A_CALL = 100
"""Lines that a function may print in one call before the rest is counted and dropped."""
LINE_CHARACTERS = 1000


@dataclass(frozen=True)
class Callee:
    """A function that the child calls."""

    label: str
    """What the run calls it."""
    file: Path
    """The frozen copy."""
    source: bytes
    name: str

    def __str__(self) -> str:
        return f"reward {self.label} ({self.file.name})"


@dataclass(frozen=True)
class Limits:
    """What a call may take."""

    time_s: float
    memory_mb: int
    """Of data that the child holds; 0 for any amount."""


@dataclass(frozen=True)
class Signature:
    """Which fields of a row a function is given."""

    takes: frozenset[str]
    needs: frozenset[str]
    any: bool
    """Whether it takes every field, by **row."""


class _Gone(Exception):
    """The child was late or died; the words say which."""


class RewardProcess:
    """A running child; make it in the main thread, because the child dies with the thread that made it."""

    def __init__(
        self,
        functions: Sequence[Callee],
        limits: Limits,
        *,
        inherited: Sequence[int] = (),
        tell: Callable[[str], None] = lambda what: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the child and load the functions. Raises RewardError where one cannot be loaded.

        `inherited` are descriptors that the child keeps open; `tell` hears of a second try; `check` may raise
        StopRequested while a call goes on.
        """
        self._functions = tuple(functions)
        self._limits = limits
        self._inherited = tuple(inherited)
        self._tell = tell
        self._check = check
        self._child: subprocess.Popen[bytes] | None = None
        self.signatures: tuple[Signature, ...] = ()
        self._with_second_try(dict, ", ".join(map(str, functions)))

    def scores(
        self, number: int, prompts: Sequence[Any], completions: Sequence[str], fields: Mapping[str, Sequence[Any]]
    ) -> list[float]:
        """What a function gives to each completion.

        Raises RewardError for what it does wrong; its attribute `row` says with which completion, where that is known.
        """
        request = {"function": number, "prompts": prompts, "completions": completions, "fields": fields}
        line = orjson.dumps(request, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        callee = self._functions[number]
        answer = self._with_second_try(lambda: self._asked(line), str(callee))
        if fault := answer.get("fault"):
            raise _error(str(callee), fault)
        scores: list[float] = answer["scores"]
        return scores

    def close(self) -> None:
        """End the child and everything in its process group."""
        if self._child is not None:
            self._child = None
            self._end()

    def _with_second_try(self, work: Callable[[], dict[str, Any]], who: str) -> dict[str, Any]:
        """What `work` gives; where the child is late or dies it is started anew, and `work` done once more."""
        try:
            try:
                return self._in_child(work)
            except _Gone as gone:
                self.close()
                self._tell(f"{who} {gone}: tried once more")
            return self._in_child(work)
        except _Gone as gone:
            self.close()
            raise RewardError(
                f"{who} {gone}, twice. Raise rewards.time_limit_s (now {self._limits.time_s:g} s) or "
                f"rewards.memory_limit_mb (now {self._limits.memory_mb}) where it needs more, or make it do less"
            ) from gone
        except BaseException:
            self.close()
            raise

    def _in_child(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if self._child is None:
            self._start()
            self._load()
        return work()

    def _start(self) -> None:
        environment = {**os.environ, "PYTHONHASHSEED": "0"}  # an order of a set is then the same in every attempt
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-B", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=self._inherited,
            process_group=0,
            cwd=self._functions[0].file.parent,
            env=environment,
        )
        for stream in (self._child.stdin, self._child.stdout):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
        assert self._child.stderr is not None
        self._log = _Log(self._child.stderr)
        self._log.start()
        # Also where nobody closes it: when it is forgotten, and when the program ends.
        self._end = weakref.finalize(self, _end, self._child, self._log)

    def _load(self) -> None:
        """Load the functions into a fresh child."""
        functions = [
            {"file": str(one.file), "source": decode_source(one.source), "name": one.name} for one in self._functions
        ]
        request = {"memory_limit_mb": self._limits.memory_mb, "functions": functions}
        answer = self._asked(orjson.dumps(request) + b"\n")
        if fault := answer.get("fault"):
            raise _error(f"{self._functions[fault['row']]}, while it was loaded,", {**fault, "row": None})
        self.signatures = tuple(
            Signature(frozenset(one["takes"]), frozenset(one["needs"]), bool(one["any"])) for one in answer["ready"]
        )

    def _asked(self, line: bytes) -> dict[str, Any]:
        """One exchange. Raises _Gone where there is no answer in time."""
        self._log.begin_call()
        try:
            self._send_and_receive(memoryview(line), received := bytearray())
        except (BrokenPipeError, ConnectionResetError) as error:
            raise _Gone(self._how_it_ended()) from error
        answer: dict[str, Any] = orjson.loads(received)
        return answer

    def _send_and_receive(self, to_send: memoryview, received: bytearray) -> None:
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        told, heard = child.stdin.fileno(), child.stdout.fileno()
        deadline = time.monotonic() + self._limits.time_s
        while not received.endswith(b"\n"):
            left = deadline - time.monotonic()
            ready, writable, _ = select.select([heard], [told] if to_send else [], [], max(0.0, min(left, LOOK_S)))
            if writable:
                to_send = to_send[os.write(told, to_send) :]
            if ready:
                part = os.read(heard, 1 << 16)
                if not part:
                    raise _Gone(self._how_it_ended())
                received += part
            elif left <= 0:
                raise _Gone(f"gave no answer within {self._limits.time_s:g} s")
            self._check()

    def _how_it_ended(self) -> str:
        assert self._child is not None
        # It is looked at and not waited for, so that its number stays its own until its group is ended.
        deadline = time.monotonic() + LOOK_S
        while (found := os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)) is None:
            if time.monotonic() > deadline:
                return "closed its pipe, though it still runs"
            time.sleep(0.01)
        code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended its process with code {code}"


def _end(child: subprocess.Popen[bytes], log: _Log) -> None:
    """End a child and everything in its process group, which is its own as long as it has not been waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    log.begin_call()
    log.join(timeout=LOOK_S)


class _Log(threading.Thread):
    """Takes what the functions print, so that they never wait for it, and writes it to the run's log."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(name="reward output", daemon=True)
        self._stream = stream
        self._lines = 0

    def begin_call(self) -> None:
        """Lines are counted anew."""
        dropped = self._lines - LINES_A_CALL
        self._lines = 0
        if dropped > 0:
            _print(f"({dropped:,} more lines are left out)")

    def run(self) -> None:
        with self._stream:
            while line := self._stream.readline(1 << 16):
                self._lines += 1
                if self._lines <= LINES_A_CALL:
                    _print(line.decode("utf-8", "replace").rstrip("\n"))


def _print(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(f"reward function: {safe(text, LINE_CHARACTERS)}", file=sys.stderr, flush=True)


def _error(who: str, fault: Mapping[str, Any]) -> RewardError:
    where = f" ({fault['where']})" if fault.get("where") else ""
    error = RewardError(f"{who} {fault['what']}{where}")
    error.row = fault.get("row")
    return error
