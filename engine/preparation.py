"""Preparing the data of a run in a process of its own, before a GPU is leased for it.

Owns what that process does: the stores of tokenised examples, and nothing else. Invariant: it loads no torch, so it
holds no device and little memory. The worker finds the stores whole; where it does not, it makes them itself.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.errors import StopRequested
from engine.prepared_data import PreparedData
from engine.reporting import Reporter
from engine.run.config import RunConfig
from engine.run.folder import RunFolder
from engine.run_tokenizer import run_tokenizer


def prepare(config: RunConfig, folder: RunFolder, reporter: Reporter, stop_wanted: Callable[[], bool]) -> None:
    """Make the stores that the run is sure to need. Raises EngineError, and StopRequested where a stop is asked for."""

    def check() -> None:
        if stop_wanted():
            raise StopRequested("stop requested")

    tokenizer = run_tokenizer(config, folder)
    PreparedData(config, folder, tokenizer, tell=reporter.preparing, check=check).prepare()
