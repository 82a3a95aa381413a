"""The models a person can name here: the sample model, the bases that runs used, and the runs' checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import EngineError
from workbench.run_list import all_runs
from workbench.workspace import Workspace


@dataclass(frozen=True)
class KnownModel:
    """One spelling for --model."""

    name: str
    what: str
    origin: str
    """What it was tuned from, or how it is known."""
    trained: bool = True
    """False for a run that was stopped before its first step: what it holds is the model that it began from."""


def known_models(workspace: Workspace | None) -> list[KnownModel]:
    """Every model that needs no further knowledge to name; runs without a checkpoint are left out."""
    models = [KnownModel("sample", "the sample model (synthetic domain)", "comes with the program")]
    bases: dict[str, str] = {}
    tuned: list[KnownModel] = []
    for run in all_runs(workspace) if workspace is not None else []:
        steps = run.checkpoint_steps()
        try:
            config = run.config()
        except EngineError:
            continue  # a damaged run is named by `runs ls`
        source = config.model.source
        if not source.startswith(("run:", "sample")):
            bases.setdefault(source, f"used by {run.id}")
        if steps:
            best = run.folder.best()
            kind = "all weights" if config.adapter.kind == "full" else "adapter"
            at = f"best step {best['step']}, last {steps[-1]}" if best else f"step {steps[-1]}"
            what = f"{config.run.method}, {kind}, {at if steps[-1] else 'not trained yet'}"
            tuned.append(KnownModel(f"run:{run.id}", what, source, trained=bool(steps[-1])))
    return [*models, *(KnownModel(name, "base", origin) for name, origin in sorted(bases.items())), *tuned]
