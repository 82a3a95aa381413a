"""Two threads in the place of two processes: the engine's own collectives, met in memory and not over a network.

What a rank is told comes from `torch.distributed`, whose few functions are replaced: rank and world size are those of
the thread, and a sum is taken when all threads have brought their part. A real pair of processes takes seconds to
start; this takes nothing, and where one rank leaves, the others do not wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.distributed as dist

from engine.errors import PeerLost

PATIENCE_S = 60.0


class RankThreads:
    """Runs a function once for each rank, at the same time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, world: int) -> None:
        self._world = world
        self._here = threading.local()
        self._barrier = threading.Barrier(world)
        self._parts: dict[int, torch.Tensor] = {}
        self.sums = 0
        """Collectives so far."""
        for name, replacement in {
            "is_initialized": lambda: hasattr(self._here, "rank"),
            "get_world_size": lambda: world,
            "get_rank": lambda: self._here.rank,
            "all_reduce": self._all_reduce,
        }.items():
            monkeypatch.setattr(dist, name, replacement)

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """`work(rank)` of every rank, in the order of the ranks. A failure of one is raised here."""

        def be(rank: int) -> Any:
            self._here.rank = rank
            try:
                return work(rank)
            except BaseException:
                self._barrier.abort()
                raise

        with ThreadPoolExecutor(self._world) as pool:
            futures = [pool.submit(be, rank) for rank in range(self._world)]
        failures = [found for future in futures if (found := future.exception()) is not None]
        # A rank that was left waiting says less than the one that left it.
        for failure in sorted(failures, key=lambda found: isinstance(found, PeerLost)):
            raise failure
        return [future.result() for future in futures]

    def _all_reduce(self, values: torch.Tensor) -> None:
        self._parts[self._here.rank] = values.clone()
        if self._meet() == 0:
            self.sums += 1
        total = torch.stack([self._parts[rank] for rank in range(self._world)]).sum(0)
        self._meet()
        values.copy_(total)

    def _meet(self) -> int:
        try:
            return self._barrier.wait(PATIENCE_S)
        except threading.BrokenBarrierError as error:
            raise RuntimeError("a rank has left") from error
