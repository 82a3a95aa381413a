"""Stands in for the child that tries a file: it dies by SIGSEGV at a mark, as a parser with a fault would.

A file that holds MARK kills whoever reads it, one that holds LATE_MARK whoever reads it whole; others are tried.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from workbench.file_trial_child import main

MARK, LATE_MARK = "crash the parser", "crash it late"

if __name__ == "__main__":
    content = Path(sys.argv[1]).read_bytes()
    if MARK.encode() in content or (LATE_MARK.encode() in content and sys.argv[2] == "whole"):
        os.kill(os.getpid(), signal.SIGSEGV)
    sys.exit(main(sys.argv[1:]))
