"""Everything in a workspace that has a name, and the models that are stored here, with the screen for each.

Owns the list behind the palette. Only names, sizes and small descriptions are read, so that it is there at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.labeling_subject import subject_of
from workbench.run_list import all_runs
from workbench.terminal_output import counted
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.model_inventory import StoredModel
    from workbench.pair_sets import PairKind


@dataclass(frozen=True)
class Thing:
    """One named thing."""

    kind: str
    name: str
    words: str
    station: str
    subject: str


def things_of(workspace: Workspace) -> list[Thing]:
    """Datasets, preference sets, pair sets, arenas, their annotators, runs and checkpoints; the newest runs first."""
    found = [Thing("dataset", name, "look into it", "inspect", name) for name in workspace.names("datasets")]
    found += [Thing("preferences", name, "look into them", "inspect", name) for name in workspace.names("prefs")]
    found += [Thing("pairs", name, "label them", "label", name) for name in workspace.names("pairs")]
    found += [
        Thing("arena", name, "judge it, blind", "label", subject_of("arena", name)) for name in workspace.names("arena")
    ]
    kinds: tuple[PairKind, ...] = ("pairs", "arena")
    for kind in kinds:
        found += [
            Thing("annotators", name, "who labels it, and how alike", "annotators", subject_of(kind, name))
            for name in workspace.names(kind)
        ]
    for run in reversed(all_runs(workspace)):
        found.append(Thing("run", run.id, f"curves of a {run.method} run", "curves", run.id))
        found += [
            Thing("checkpoint", f"{run.id}@{step}", "compare it", "compare", f"{run.id}@{step}")
            for step in run.checkpoint_steps()
        ]
    from workbench.launch_form import MODEL  # here: in a thread, while the palette is open
    from workbench.model_inventory import stored_models

    found += [
        Thing("model", model.name, _model_words(model), "launch", f"{MODEL}{model.name}")
        for model in stored_models(workspace)
    ]
    return found


def _model_words(model: StoredModel) -> str:
    """What it is, what it takes, and how many runs use it."""
    uses = f", used by {counted(len(model.used_by), 'run')}" if model.used_by else ""
    return f"train it: {model.what}, {model.bytes / 1e6:,.1f} MB{uses}"
