"""The worker: `python -m engine.train RUN_DIR` trains the run that lies in RUN_DIR, or goes on with it.

Where several processes train together the supervisor starts each of them so, with its rank in the environment. With
`--prepare` it makes the run's data ready without a device and ends; what is written says that the run is preparing.

Started by the supervisor. Ends with exit code 0 once the run is done or stopped (status.json says which) and 1 where
it failed; the reason is in status.json, events.jsonl and, with a traceback where it was unexpected, engine.log. Code 4
means that it could not go on because another process of the run had ended.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from engine.errors import EngineError, PeerLost, StoppedByAlarm, StopRequested
from engine.run import control
from engine.run.config import RunConfig
from engine.run.folder import RunFolder
from engine.run.memory_words import free_memory_bytes, is_out_of_memory, out_of_memory
from engine.run.safe_text import safe
from engine.run.status import new_status, read_status
from engine.run.worker_process import PEER_LOST, PREPARE, rank_here


def main(argv: list[str] | None = None) -> int:
    """Run the worker. `argv` is the run folder, and `--prepare` behind it where its data alone is wanted."""
    arguments = sys.argv[1:] if argv is None else argv
    preparing = arguments[1:] == [PREPARE]
    if len(arguments) != 1 + preparing:
        print(f"usage: python -m engine.train RUN_DIR [{PREPARE}]", file=sys.stderr)
        return 2
    _die_gently_with_parent()
    stopping = _stop_on_signal()
    from engine.reporting import QuietReporter, Reporter
    from engine.run.config_toml import read_config

    folder = RunFolder(Path(arguments[0]))
    config = read_config(folder.config_path)
    rank = rank_here()
    status = new_status(folder, read_status(folder), phase="preparing")
    reporter = Reporter(folder, status) if rank == 0 else QuietReporter(folder, status, rank)
    reporter.start()
    try:

        def stop_wanted() -> bool:
            return stopping() or control.pending(folder, "stop") is not None

        if preparing:
            from engine.preparation import prepare

            prepare(config, folder, reporter, stop_wanted)
            reporter.close()
            return 0
        from engine.worker import train

        train(config, folder, reporter, stop_wanted, rank=rank)
    except StopRequested as stop:
        if rank == 0:
            control.clear(folder, "stop")
        by = stop.by if isinstance(stop, StoppedByAlarm) else {}
        reporter.event("stopped", **by)
        reporter.final("stopped", stopped_by=by or None)
        return 0
    except PeerLost as error:
        # The reason is the other's; the supervisor finds it and has the last word.
        print(safe(f"process {rank}: {error}"), file=sys.stderr)
        return PEER_LOST
    except EngineError as error:
        return _fail(reporter, error)
    except (MemoryError, RuntimeError) as error:
        return _fail(reporter, _as_engine_error(error, config))
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


def _as_engine_error(error: BaseException, config: RunConfig) -> EngineError:
    """Out of memory in words that say by how much and what to lower; anything else as it is, with its traceback in the
    log."""
    if is_out_of_memory(error):
        traceback.print_exception(error)
        return EngineError(out_of_memory(str(error), config, free_memory_bytes()))
    text = str(error)
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
