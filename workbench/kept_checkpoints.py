"""The checkpoints that a new run is made over, kept for it while the run that wrote them goes on.

Owns the marks: a run deletes its older checkpoints as it writes new ones, but none that another run was made over.
Invariant: a run that was created finds its weights, also where it waits in a queue behind the run that trains them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.run.durable_files import write_atomically
from engine.run.folder import MANIFEST, RunFolder
from workbench.errors import NotFound, explain_os_errors
from workbench.model_names import ResolvedModel
from workbench.workspace import Workspace


def checkpoints_of(workspace: Workspace, models: Iterable[ResolvedModel | None]) -> list[Path]:
    """The folders of checkpoints of this workspace's runs that these models lie in."""
    places = [place for model in models if model is not None for place in (model.path, model.adapter) if place]
    return [place for place in places if place.parent.name == "checkpoints" and place.is_relative_to(workspace.runs)]


def keep(checkpoints: Iterable[Path]) -> None:
    """Mark checkpoints as needed. A mark outlives the run that needed it, which costs space and nothing else."""
    for checkpoint in checkpoints:
        run, step = RunFolder(checkpoint.parent.parent), int(checkpoint.name.rpartition("-")[2])
        with explain_os_errors(f"keeping a checkpoint of run {run.id}", checkpoint):
            write_atomically(run.needed_path(step), b"", durable=False)


def require_kept(checkpoints: Iterable[Path]) -> None:
    """Raises NotFound where a checkpoint was deleted in the moment before it was marked."""
    for checkpoint in checkpoints:
        if not (checkpoint / MANIFEST).is_file():
            run = checkpoint.parent.parent.name
            raise NotFound(
                f"run {run} has just replaced its checkpoint {checkpoint.name} by a newer one. Start again: the newer "
                "one is taken then"
            )
