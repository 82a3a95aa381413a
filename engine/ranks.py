"""The processes that train one run together: which this one is, and all that they tell each other.

Owns every collective, and so the order in which they come. Invariants: each process makes the same calls in the same
order, so nothing here may stand behind a condition that can differ between them (a clock, a file, a signal); where they
could differ, `any_rank` and `leaders_word` make one answer of them. Alone, every function is the identity and costs
nothing. Sums are in rank order or the backend's, the same bits on every process.

Each process holds the whole model and runs its share of an update's micro-batches; gradients are added up once an
optimizer step. There is no wrapper around the model: adapters may be switched between passes, which DDP forbids.
What processes say to each other is numbers and JSON, never a pickle.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from engine.data.packing import fill_by_token_budget
from engine.errors import PeerLost

BUCKET_ELEMENTS = 2**25
"""Gradients are added up in pieces of at most this many elements (128 MB in fp32), or one parameter."""
_PATIENCE = timedelta(days=7)
"""The others wait while the leading process writes a checkpoint, however long that takes. A process that dies is
noticed at once; one that hangs is told of by `engine.stall_watch`."""


@contextmanager
def joined(rank: int, processes: int, meeting_place: Path) -> Iterator[None]:
    """Be process `rank` of `processes`, which meet in the file `meeting_place`; alone, nothing happens.

    Numbers on a GPU go by NCCL, those on the host by gloo over the loopback device. The file is in the run's private
    folder: no port waits for whoever comes.
    """
    if processes == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _peers_needed("meeting the other processes"):
        dist.init_process_group(
            backend, store=dist.FileStore(str(meeting_place), processes), rank=rank, world_size=processes,
            timeout=_PATIENCE,
        )  # fmt: skip
    try:
        yield
    finally:
        # Where another process is gone this may fail, and must not hide why.
        with suppress(RuntimeError):
            dist.destroy_process_group()


def world_size() -> int:
    """How many processes train together; 1 alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def leads() -> bool:
    """True in the one process that writes: status, metrics, events, checkpoints."""
    return rank() == 0


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true in any process: then all of them hear so at the same point of their work."""
    if world_size() == 1:
        return flag
    return int(_summed(torch.tensor([int(flag)]), "asking for a stop")) > 0


def leaders_word(word: Any) -> Any:
    """What the leading process says, in all of them. `word` is JSON."""
    return words_of_all(word)[0]


def words_of_all(word: Any) -> list[Any]:
    """What each process says, in the order of their ranks. `word` is JSON; numbers come as they are, NaN too."""
    world = world_size()
    if world == 1:
        return [word]
    said = json.dumps(word).encode()
    lengths = torch.zeros(world, dtype=torch.int64)
    lengths[rank()] = len(said)
    longest = int(_summed(lengths, "telling figures").max())
    pages = torch.zeros(world, longest, dtype=torch.uint8)
    pages[rank(), : len(said)] = torch.frombuffer(bytearray(said), dtype=torch.uint8)
    _summed(pages, "telling figures")
    return [json.loads(page[:n].numpy().tobytes()) for page, n in zip(pages, lengths.tolist(), strict=True)]


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """`values`, added up in place over all processes. Where each filled rows of its own and left the rest 0, this puts
    them together exactly: x + 0 is x."""
    return values if world_size() == 1 else _summed(values, "adding up figures")


def sum_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Every parameter's gradient becomes its sum over all processes; one that has run no micro-batch counts as zeros.

    A parameter that has a gradient in no process stays without one, so that the optimizer leaves it alone.
    """
    if world_size() == 1:
        return
    used = _summed(torch.tensor([int(p.grad is not None) for p in parameters]), "comparing gradients").tolist()
    for bucket in _buckets([p for p, users in zip(parameters, used, strict=True) if users]):
        flat = torch.cat([torch.zeros_like(p).view(-1) if p.grad is None else p.grad.reshape(-1) for p in bucket])
        _summed(flat, "adding up gradients")
        for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            parameter.grad = part.view_as(parameter)


def begin_alike(parameters: Sequence[torch.Tensor]) -> None:
    """Every process takes the leading one's values."""
    if world_size() > 1:
        with _peers_needed("taking over the weights"):
            for parameter in parameters:
                dist.broadcast(parameter.detach(), src=0)


def balanced_groups(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Item indices in micro-batches of at most `budget` tokens, as `fill_by_token_budget`; with several processes
    so many of them, and so filled, that `groups[rank :: world_size]` are near-equal loads where there are items enough.

    Longest first into the lightest group (Graham 1969: at most 4/3 of the best). A pure function of `sizes` and the
    number of processes.
    """
    groups = fill_by_token_budget(sizes, budget)
    world = world_size()
    if world == 1 or not groups:
        return groups
    most = max(budget, *sizes)
    count = world * math.ceil(len(groups) / world)
    while True:  # ends at the latest where each item has a group of its own
        groups = _lightest_first(sizes, count)
        if max(sum(sizes[i] for i in group) for group in groups) <= most:
            return [sorted(group) for group in groups if group]
        # Two per cent more at a time: one more at a time would take a large set's grouping through hundreds of tries.
        count += world * math.ceil(count / (50 * world))


def own_share(groups: Sequence[list[int]]) -> list[list[int]]:
    """This process's groups. All processes get equally many, empty ones if need be, so that a question that all must
    answer together may be asked before each."""
    world = world_size()
    padded = [*groups, *[[] for _ in range(-len(groups) % world)]]
    return padded[rank() :: world]


def is_own(place: int) -> bool:
    """Whether the micro-batch at this place of an update is this process's: every n-th is, as in `own_share`."""
    return place % world_size() == rank()


def merged_sums(sums: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """(sum, count) by name, added up over all processes; a process may lack names that another has."""
    if world_size() == 1:
        return dict(sums)
    merged: dict[str, tuple[float, float]] = {}
    for told in words_of_all({name: list(pair) for name, pair in sums.items()}):
        for name, (total, count) in told.items():
            before = merged.get(name, (0.0, 0.0))
            merged[name] = (before[0] + total, before[1] + count)
    return merged


def _lightest_first(sizes: Sequence[int], count: int) -> list[list[int]]:
    groups: list[list[int]] = [[] for _ in range(count)]
    by_load = [(0, group) for group in range(count)]
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        load, lightest = by_load[0]
        groups[lightest].append(item)
        heapq.heapreplace(by_load, (load + sizes[item], lightest))
    return groups


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Parameters in order, cut where the type changes or a bucket would grow too large."""
    bucket: list[torch.nn.Parameter] = []
    elements = 0
    for parameter in parameters:
        full = elements + parameter.numel() > BUCKET_ELEMENTS
        if bucket and (full or parameter.dtype != bucket[0].dtype or parameter.device != bucket[0].device):
            yield bucket
            bucket, elements = [], 0
        bucket.append(parameter)
        elements += parameter.numel()
    if bucket:
        yield bucket


def _summed(values: torch.Tensor, doing: str) -> torch.Tensor:
    with _peers_needed(doing):
        dist.all_reduce(values)
    return values


@contextmanager
def _peers_needed(doing: str) -> Iterator[None]:
    """A fault of the network between processes of one machine means that another of them has ended."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(f"{doing}: another process of this run has ended ({str(error).splitlines()[0]})") from error
