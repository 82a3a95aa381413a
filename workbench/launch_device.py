"""The device that a run trains on: cpu or cuda, which of them, and how many processes it has room for.

Invariant: training never falls back from an NVIDIA device to the CPU by itself, and a launch that asks for more than
there is here is refused before anything is made. Loads no torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from workbench.errors import UsageError, WorkbenchError


def gpu_environment(gpus: Sequence[int]) -> dict[str, str]:
    """What the supervisor needs in its environment to use these devices and no others."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))} if gpus else {}


def choose_device(wanted: str, chosen: Sequence[int] = (), *, processes: int = 1) -> str:
    """cpu or cuda. An NVIDIA device that torch cannot use is an error unless the CPU was asked for.

    `chosen` are indices of devices; without them there must be one for each of the `processes`.
    """
    if wanted == "cpu":
        if chosen:
            raise UsageError("--gpus and --device cpu exclude each other")
        return "cpu"
    from engine.run.gpus import installed_gpus, torch_usable

    gpus = installed_gpus()
    if not gpus:
        if wanted == "cuda" or chosen:
            raise WorkbenchError(
                "no NVIDIA device here (nvidia-smi finds none); use --device cpu. See: workbench doctor"
            )
        return "cpu"
    reason = torch_usable()
    if reason:
        raise WorkbenchError(f"{reason}. Or train on the CPU on purpose: --device cpu")
    for index in chosen:
        if index not in {one.index for one in gpus}:
            there = ", ".join(str(one.index) for one in gpus)
            raise UsageError(f"--gpus {index}: there are: {there}. See: workbench gpus")
    if processes > len(gpus):
        raise UsageError(
            f"train.processes is {processes}, each on a GPU of its own, but there are {len(gpus)} here. Lower it, or "
            "use --device cpu, where processes share the cores"
        )
    return "cuda"


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_processes(device: str, processes: int) -> None:
    """Raises UsageError where processes would share fewer cores than they are; each GPU's are `choose_device`'s.

    For a launch alone: a run that was begun on a larger machine may go on here, more slowly.
    """
    cores = usable_cores()
    if device == "cpu" and processes > max(2, cores):
        raise UsageError(
            f"train.processes is {processes}, but there are {cores} CPU cores here, which they would share: it would "
            f"train more slowly than one process. Set it to {cores} or less"
        )
