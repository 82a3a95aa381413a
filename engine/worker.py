"""The worker's torch side: devices and threads, the other processes, resume, and the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine.assembly import assemble
from engine.checkpoints import load_trainer, newest_valid
from engine.errors import ModelError, StopRequested
from engine.machine import machine_of
from engine.model.model_sizes import read_model_sizes
from engine.model.saving import load_trained_weights
from engine.model_parts import precision_of
from engine.ranks import any_rank, begin_alike, joined, leaders_word, leads
from engine.reporting import Reporter
from engine.run.config import RunConfig
from engine.run.folder import RunFolder
from engine.training_loop import Progress, TrainingLoop


def train(
    config: RunConfig, folder: RunFolder, reporter: Reporter, stop_wanted: Callable[[], bool], *, rank: int = 0
) -> None:
    """Train the run in `folder` to its end from its newest valid checkpoint, or from the start.

    This is process `rank` of config.train.processes, which all call this. Raises StopRequested after a checkpoint,
    EngineError where the run cannot go on, PeerLost where another of the processes has ended.
    """
    with joined(rank, config.train.processes, folder.meeting_path):
        _train(config, folder, reporter, lambda: any_rank(stop_wanted()), set_up_device(config, rank))


def _train(
    config: RunConfig, folder: RunFolder, reporter: Reporter, stop_wanted: Callable[[], bool], device: torch.device
) -> None:
    reporter.status(device=_devices(config, device))

    def check() -> None:
        if stop_wanted():
            raise StopRequested("stop requested")

    parts = assemble(config, folder, reporter, device, check)
    progress = Progress()
    reporter.event(
        "started",
        device=_devices(config, device),
        processes=config.train.processes,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        trained_parameters=sum(p.numel() for p in parts.roles.trainable.values()),
        total_steps=parts.method.total_steps,
    )
    newest = _newest_checkpoint(folder, reporter)
    if newest is not None:
        progress = _resume(parts, newest, folder)
        reporter.resumed_from(progress.step)
        reporter.event("resumed", step=progress.step, name=newest.name)
        reporter.status(step=progress.step, total_steps=parts.method.total_steps, best=progress.best)
    begin_alike(parts.optimizer.parameters)
    sizes = read_model_sizes(folder.in_workspace(config.model.path)) if device.type == "cuda" else None
    machine = machine_of(parts.roles, sizes, precision_of(config, device), device)
    loop = TrainingLoop(
        config, folder, reporter, parts.method, parts.optimizer, parts.probe, progress, parts.write_weights,
        stop_wanted, machine,
    )  # fmt: skip
    loop.run()


def _newest_checkpoint(folder: RunFolder, reporter: Reporter) -> Path | None:
    """The newest checkpoint that verifies. The leading process looks, and moves faulty ones aside, for all."""
    newest = None
    if leads():
        newest = newest_valid(
            folder.checkpoints, lambda name, what: reporter.event("quarantined", name=name, what=what)
        )
    name = leaders_word(newest.name if newest else None)
    return folder.checkpoints / name if name else None


def _devices(config: RunConfig, device: torch.device) -> str:
    """What the run uses, in words: "cpu", or "cuda, 2 processes"."""
    many = config.train.processes
    if many == 1:
        return str(device)
    return f"{device.type}, {many} processes"


def set_up_device(config: RunConfig, rank: int = 0) -> torch.device:
    """The device of process `rank`, with threads and determinism set. Never falls back from CUDA to the CPU by itself.

    On a CPU the processes share the threads; each GPU has a process of its own, numbered as CUDA_VISIBLE_DEVICES is.
    """
    wanted = config.train.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "train.device is cuda, but torch sees no CUDA device: `workbench doctor` says why; "
            "--device cpu trains on the processor"
        )
    if config.train.threads > 0 or config.train.processes > 1:
        threads = config.train.threads or torch.get_num_threads()
        torch.set_num_threads(max(1, threads // config.train.processes))
    if config.train.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Else torch writes NaN over all memory that it hands out, to show reads of what was never written.
        torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(config.train.seed)
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
    if kind == "cpu" or config.train.processes == 1:
        return torch.device(kind)
    if torch.cuda.device_count() < config.train.processes:
        raise ModelError(
            f"train.processes is {config.train.processes}, but torch sees {torch.cuda.device_count()} CUDA devices: "
            "each process needs one of its own. Name them with --gpus, or lower train.processes"
        )
    torch.cuda.set_device(rank)
    return torch.device(kind, rank)


def _resume(parts: Any, checkpoint: Any, folder: RunFolder) -> Progress:
    """Load weights, heads, optimizer, random state and progress from a verified checkpoint."""
    tensors, state = load_trainer(checkpoint)
    load_trained_weights(parts.roles, checkpoint)
    parts.optimizer.load_state_tensors(tensors["optimizer"])
    for name, module in parts.method.modules().items():
        module.load_state_dict(tensors[name])
    torch.set_rng_state(tensors["random"]["torch"])
    return Progress(**state["progress"])
