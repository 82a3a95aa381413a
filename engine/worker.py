"""The worker's torch side: devices and threads, resume, and the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from engine.assembly import assemble
from engine.checkpoints import load_trainer, newest_valid
from engine.errors import ModelError, StopRequested
from engine.model.saving import load_trained_weights
from engine.reporting import Reporter
from engine.run.config import RunConfig
from engine.run.folder import RunFolder
from engine.training_loop import Progress, TrainingLoop


def train(config: RunConfig, folder: RunFolder, reporter: Reporter, stop_wanted: Callable[[], bool]) -> None:
    """Train the run in `folder` to its end from its newest valid checkpoint, or from the start.

    Raises StopRequested after a checkpoint, EngineError where the run cannot go on.
    """
    device = set_up_device(config)
    reporter.status(device=str(device))

    def check() -> None:
        if stop_wanted():
            raise StopRequested("stop requested")

    parts = assemble(config, folder, reporter, device, check)
    progress = Progress()
    reporter.event(
        "started",
        device=str(device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        trained_parameters=sum(p.numel() for p in parts.roles.trainable.values()),
        total_steps=parts.method.total_steps,
    )
    newest = newest_valid(folder.checkpoints, lambda name, what: reporter.event("quarantined", name=name, what=what))
    if newest is not None:
        progress = _resume(parts, newest, folder)
        reporter.resumed_from(progress.step)
        reporter.event("resumed", step=progress.step, name=newest.name)
        reporter.status(step=progress.step, total_steps=parts.method.total_steps, best=progress.best)
    loop = TrainingLoop(
        config, folder, reporter, parts.method, parts.optimizer, parts.probe, progress, parts.write_weights, stop_wanted
    )
    loop.run()


def set_up_device(config: RunConfig) -> torch.device:
    """The device asked for, with threads and determinism set. Never falls back from CUDA to the CPU by itself."""
    wanted = config.train.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "train.device is cuda, but torch sees no CUDA device: `workbench doctor` says why; "
            "--device cpu trains on the processor"
        )
    if config.train.threads > 0:
        torch.set_num_threads(config.train.threads)
    if config.train.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(config.train.seed)
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def _resume(parts: Any, checkpoint: Any, folder: RunFolder) -> Progress:
    """Load weights, heads, optimizer, random state and progress from a verified checkpoint."""
    tensors, state = load_trainer(checkpoint)
    load_trained_weights(parts.roles, checkpoint)
    parts.optimizer.load_state_tensors(tensors["optimizer"])
    for name, module in parts.method.modules().items():
        module.load_state_dict(tensors[name])
    torch.set_rng_state(tensors["random"]["torch"])
    return Progress(**state["progress"])
