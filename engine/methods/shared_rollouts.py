"""Rollouts of processes that train together: each samples and measures a share, and all of them hold all of it.

Owns what is told of rollouts between processes: the completions, once, and what was measured of them, once. Invariant:
behind either call every process holds the same bits, so whatever follows (whitening, group statistics, moments of the
scores, the weight of the KL, which completions count) is worked in each of them as it is in one process alone, and no
decision can part them. Alone, both calls hand back what they were given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import torch

from engine.model.sampler import Completion
from engine.ranks import is_own, sum_over_ranks, world_size


def sampled_together(
    count: int, sample: Callable[[list[int]], list[Completion]], *, group: int = 1
) -> list[Completion]:
    """`count` completions in order; every n-th `group` of them is sampled here and the others elsewhere.

    `sample` is given the places of a share, ascending, and answers with a completion for each. What it draws for a
    place must not depend on the others.
    """
    mine = [place for place in range(count) if is_own(place // group)]
    sampled = sample(mine) if mine else []
    if world_size() == 1:
        return sampled
    # Each process fills in its own places, and x + 0 is x.
    ends_C2 = torch.zeros(count, 2, dtype=torch.int64)
    for place, completion in zip(mine, sampled, strict=True):
        ends_C2[place] = torch.tensor([len(completion.ids), int(completion.stopped)])
    lengths, stopped = sum_over_ranks(ends_C2).T.tolist()
    ids_K = torch.zeros(sum(lengths), dtype=torch.int64)
    log_probs_K = torch.zeros(sum(lengths), dtype=torch.float64)
    starts = [0, *accumulate(lengths)]
    for place, completion in zip(mine, sampled, strict=True):
        ids_K[starts[place] : starts[place + 1]] = torch.tensor(completion.ids)
        log_probs_K[starts[place] : starts[place + 1]] = torch.tensor(completion.log_probs, dtype=torch.float64)
    ids = sum_over_ranks(ids_K).split(lengths)
    log_probs = sum_over_ranks(log_probs_K).split(lengths)
    return [
        Completion(each.tolist(), bool(ended), drawn.tolist())
        for each, ended, drawn in zip(ids, stopped, log_probs, strict=True)
    ]


def tell_measurements(tensors: Sequence[torch.Tensor]) -> None:
    """Fill in, in every process, what the others have measured: each tensor was measured in one of them, and is zeros
    of the same shape and type in the others. In one sum over all of them; fp32, on the device.
    """
    if world_size() == 1 or not tensors:
        return
    flat = sum_over_ranks(torch.cat([tensor.reshape(-1) for tensor in tensors]))
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def micro_batches_with_owner(
    mini_batches: Sequence[Sequence[list[int]]], check: Callable[[], None]
) -> Iterator[tuple[int, list[int], bool]]:
    """(mini-batch, its completions, whether they are measured and trained on here) of every micro-batch.

    Of each mini-batch every n-th micro-batch is a process's own. `check` is called before each of its own would come,
    so that all processes ask equally often.
    """
    for number, micro_batches in enumerate(mini_batches):
        for place, completions in enumerate(micro_batches):
            if place % world_size() == 0:
                check()
            yield number, completions, is_own(place)
