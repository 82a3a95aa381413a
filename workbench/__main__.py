"""Where the program begins: `workbench`, `wb` and `python -m workbench`. Ctrl+C is quiet from the first moment on.

Owns what an interrupt does while the command line is imported, and after the command has ended: the process leaves
with 130 and says nothing. Between the two `workbench.cli` has it, where a command may have something to undo.
Invariant: nothing is imported before the guard stands but what the interpreter has loaded by itself.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT


def main() -> int:
    """Run the command of `sys.argv`; its exit code."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        from workbench.cli import main as run_command  # started with interrupts ignored, as by nohup: so they stay

        return run_command()
    signal.signal(signal.SIGINT, _leave)
    from workbench.cli import main as run_command

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return run_command()
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: there is nothing to undo, and a traceback through the imports would tell nobody anything."""
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
