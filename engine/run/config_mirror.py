"""The settings of [mirror]: where else the numbers of a run are written, for people who keep them there.

Owns the keys. What writes them is `engine.run.mirror`.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.run.config_bounds import bounded as _key

TARGETS = ("tensorboard", "wandb", "trackio")


@dataclass(frozen=True)
class MirrorConfig:
    """[mirror]: copies of the run's numbers for other programs, written beside the training and never in its way."""

    to: tuple[str, ...] = _key((), choices=TARGETS)
    """Any of tensorboard (needs nothing more), wandb and trackio (extras of those names)."""
    project: str = "workbench"
    """Under which project wandb and trackio keep it."""
    wandb_mode: str = _key("offline", choices=("offline", "online"))
    """offline: files in the run's folder, which `wandb sync` sends later; online: sent as they come."""
