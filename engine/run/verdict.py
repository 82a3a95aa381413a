"""How a worker ended, in words.

Owns the reading of an exit code beside what the worker last wrote. Invariants: what the worker itself said of its end
is never overruled; a death it could not speak of gets a reason and a remedy. Pure: no files, no processes.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from engine.run.status import Status

_LESS_MEMORY = (
    "lower train.tokens_per_micro_batch as you resume the run (--set; the result stays the same), or clone it with a "
    "lower data.max_length"
)


@dataclass(frozen=True)
class Verdict:
    """The end of one attempt."""

    phase: str
    """done, stopped or failed."""
    what: str = ""
    """Why it failed."""
    remedy: str = ""
    """What to do about it."""
    told: bool = True
    """Whether the worker wrote this phase itself; else status.json must be written."""


def judge(
    code: int,
    status: Status | None,
    *,
    attempt: int,
    stop_wanted: bool = False,
    killed_after_stop_s: float | None = None,
    memory_ran_out: bool = False,
    last_log_line: str = "",
    who: str = "the worker",
    said_elsewhere: str = "",
) -> Verdict:
    """The verdict on a worker that ended with `code` (minus the signal that killed it).

    `status` is what status.json holds now; it counts only where it is of this `attempt`. `killed_after_stop_s` is the
    supervisor's patience where it lost it. Of several processes that train together, `who` is the one that ended so,
    and `said_elsewhere` the reason that one gave which does not write status.json.
    """
    said = status.phase if status is not None and status.attempt == attempt else ""
    if said in ("done", "stopped"):
        # A crash after the last word, in the interpreter's own clean-up, takes nothing back.
        return Verdict(said)
    if said == "failed" and status is not None and status.error:
        return Verdict("failed", status.error.get("what", ""), status.error.get("remedy", ""))
    if killed_after_stop_s is not None:
        what = f"it did not stop within {killed_after_stop_s:.0f} s of the request and was killed"
        return Verdict("failed", what, "see the end of engine.log; resume continues from the newest checkpoint", False)
    if code == -signal.SIGTERM and stop_wanted:
        # It died of the request before it could listen: nothing had begun that a checkpoint would keep.
        return Verdict("stopped", told=False)
    if said_elsewhere:
        return Verdict("failed", said_elsewhere, "see the end of engine.log, then resume the run", told=False)
    what, remedy = _unspoken(code, memory_ran_out, last_log_line, who)
    return Verdict("failed", what, remedy, told=False)


def _unspoken(code: int, memory_ran_out: bool, last_log_line: str, who: str) -> tuple[str, str]:
    """(what, remedy) of a death the worker said nothing of."""
    if code == -signal.SIGKILL and memory_ran_out:
        return f"{who} was killed by the kernel because memory ran out (signal 9)", _LESS_MEMORY
    if code == -signal.SIGKILL:
        return f"{who} was killed by the kernel or by hand (signal 9)", f"if memory ran out, {_LESS_MEMORY}"
    log = f"; the last line of engine.log is: {last_log_line}" if last_log_line else ""
    if code < 0:
        return f"{who} died of signal {-code} ({_signal_name(-code)}){log}", "see the end of engine.log"
    if code == 0:
        return f"{who} ended without having finished{log}", "see the end of engine.log, then resume the run"
    return f"{who} ended with exit code {code} and gave no reason{log}", "see the end of engine.log"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
