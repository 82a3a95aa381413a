"""The worker: `python -m engine.train RUN_DIR` trains the run that lies in RUN_DIR, or goes on with it.

Started by the supervisor. Ends with exit code 0 once the run is done or stopped (status.json says which) and 1 where
it failed; the reason is in status.json, events.jsonl and, with a traceback where it was unexpected, engine.log.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from engine.errors import EngineError, StopRequested
from engine.run import control
from engine.run.folder import RunFolder
from engine.run.safe_text import safe
from engine.run.status import new_status, read_status


def main(argv: list[str] | None = None) -> int:
    """Run the worker. `argv` is the run folder alone."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print("usage: python -m engine.train RUN_DIR", file=sys.stderr)
        return 2
    _die_gently_with_parent()
    stopping = _stop_on_signal()
    from engine.reporting import Reporter
    from engine.run.config_toml import read_config

    folder = RunFolder(Path(arguments[0]))
    config = read_config(folder.config_path)
    reporter = Reporter(folder, new_status(folder, read_status(folder), phase="preparing"))
    reporter.start()
    try:
        from engine.worker import train

        train(config, folder, reporter, lambda: stopping() or control.pending(folder, "stop") is not None)
    except StopRequested:
        control.clear(folder, "stop")
        reporter.event("stopped")
        reporter.final("stopped")
        return 0
    except EngineError as error:
        return _fail(reporter, error)
    except (MemoryError, RuntimeError) as error:
        return _fail(reporter, _as_engine_error(error))
    except Exception as error:
        # The last resort: an unexpected fault must still leave a run that says what happened.
        traceback.print_exc()
        return _fail(reporter, EngineError(f"{type(error).__name__}: {error}"))
    reporter.event("done")
    reporter.final("done")
    return 0


def _fail(reporter: object, error: EngineError) -> int:
    from engine.reporting import Reporter

    assert isinstance(reporter, Reporter)
    print(safe(f"{type(error).__name__}: {error}"), file=sys.stderr)
    try:
        reporter.event("failed", what=str(error))
    finally:
        reporter.final("failed", error=error)
    return 1


def _as_engine_error(error: BaseException) -> EngineError:
    """Out of memory in words that say what to lower; anything else as it is, with its traceback in the log."""
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "not enough memory" in text.lower():
        return EngineError(
            f"out of memory: {text.splitlines()[0] if text else 'no memory left'}. Lower train.tokens_per_micro_batch "
            "(it does not change the result), or data.max_length"
        )
    traceback.print_exception(error)
    return EngineError(f"{type(error).__name__}: {text}")


def _stop_on_signal() -> Callable[[], bool]:
    asked = {"stop": False}

    def ask(signum: int, frame: object) -> None:
        asked["stop"] = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return lambda: asked["stop"]


def _die_gently_with_parent() -> None:
    """Ask the kernel for SIGTERM when the supervisor dies, so that an orphan checkpoints and ends."""
    import ctypes

    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
