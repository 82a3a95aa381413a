"""The examples of a run, tokenised: training, held-out and the prompts of its probe, from blobs that runs share.

Owns which frozen file is read how, that a frozen file is still what was frozen, and what is said while it is tokenised.
Invariants: a store is noted in the run before it is made; a stop request is heard between rows. Torch-free, so that
data can be prepared before a GPU is leased.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

from engine.data.chat import ChatTokenizer
from engine.data.examples import PromptExample
from engine.data.tokenised import Reading, Tokenised, key_of, prompts_reading, reading_for, require_some, tokenise
from engine.run.blobs import blobs_folder, blobs_used_by, note_blobs, require_unchanged
from engine.run.config import RunConfig
from engine.run.folder import RunFolder

TELL_EVERY_S = 0.5
MOST_PROCESSES = 8
"""That share out a large file: each holds a tokenizer of some hundred megabytes."""


class PreparedData:
    """A run's tokenised examples; each file is read when it is asked for."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        tokenizer: ChatTokenizer,
        *,
        tell: Callable[[int, int], None] = lambda done, total: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`tell` hears (rows tokenised, rows in all) now and then; `check` may raise StopRequested."""
        self._config = config
        self._folder = folder
        self._tokenizer = tokenizer
        self._tell = tell
        self._check = check
        self._rows = 0
        self._told = time.monotonic()
        self._hashes: dict[str, str] = {}

    @property
    def has_held_out(self) -> bool:
        """Whether anything is held out."""
        return bool(self._config.data.eval) and self._config.data.eval_rows > 0

    @cached_property
    def train(self) -> Tokenised[Any]:
        """The training examples. Raises DataError where there is none."""
        return self._examples("train")

    @cached_property
    def held_out(self) -> Tokenised[Any] | None:
        """All held-out examples; None where nothing is held out. Raises DataError where no held-out row is usable."""
        return self._examples("eval") if self.has_held_out else None

    def prompts(self, side: str) -> Tokenised[PromptExample]:
        """The prompts of the rows of one side, "train" or "eval"; none where the rows are texts."""
        return self._tokenised(side, "prompts", prompts_reading(self._config.data.max_length))

    def prepare(self) -> None:
        """Make every store that the run is sure to need."""
        _ = self.train, self.held_out
        if self._config.run.method != "reward" and self._config.probe.prompts > 0:
            self.prompts("eval" if self.has_held_out else "train")

    def _examples(self, side: str) -> Tokenised[Any]:
        reading = reading_for(self._config)
        found = self._tokenised(side, "prompts" if reading.kind is PromptExample else "", reading)
        require_some(found, self._folder.path / getattr(self._config.data, side), reading.max_length)
        return found

    def _tokenised(self, side: str, what: str, reading: Reading[Any]) -> Tokenised[Any]:
        data = self._config.data
        file = self._folder.path / getattr(data, side)
        if len(rows_each := getattr(data, f"{side}_rows_each")) > 1:
            reading = replace(reading, rows_each=rows_each)
        if side not in self._hashes:
            self._hashes[side] = require_unchanged(file, getattr(data, f"{side}_sha256"))
        key = key_of(self._hashes[side], self._tokenizer, reading)
        note_blobs(self._folder, {**blobs_used_by(self._folder), f"{side}_{what}".strip("_"): key})
        return tokenise(
            file, key, blobs_folder(self._folder), self._tokenizer, reading,
            each_row=self._row_done, check=self._check, processes=_processes(self._config),
        )  # fmt: skip

    def _row_done(self) -> None:
        self._rows += 1
        now = time.monotonic()
        if now - self._told >= TELL_EVERY_S:
            self._told = now
            self._check()
            total = self._config.data.train_rows + (self._config.data.eval_rows if self.has_held_out else 0)
            self._tell(self._rows, max(self._rows, total))


def _processes(config: RunConfig) -> int:
    """How many may tokenise at once: one for each core that the run may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_PROCESSES, cores, config.train.threads or cores)
