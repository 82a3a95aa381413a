"""Numbers of the host on the device, without a wait.

Invariant: nothing here makes the host wait for the device. A tensor that is made on a GPU from a list is copied from
memory that may be paged out, for which the host waits until the GPU has done all that it was told before: once a
micro-batch, that leaves the GPU idle. From pinned memory the copy takes its place in the queue; torch keeps that memory
until it is done. The same holds for a list as an index, which is such a copy in disguise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def on_device(values: Sequence[Any], device: torch.device | str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """`values` (numbers, or rows of them) as a tensor on `device`; the type is torch's own choice unless given."""
    return queued(torch.tensor(values, dtype=dtype), device)


def queued(host: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """`host`, a tensor in the memory of the host, on `device`."""
    device = torch.device(device)
    if device.type == "cpu":
        return host
    return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)
