"""The workspace of the guided demo: the sample data, pairs to label, and a first model that is being tuned.

Owns what is there before a person begins. A workspace that was prepared before is opened as it is, so that the demo can
be left and gone on with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from workbench.demo import demo_workspace
from workbench.demo_stations import Stage, read_data, sample_request
from workbench.guide_steps import PAIRS
from workbench.pair_sets import pairs_from_dataset
from workbench.run_launch import LaunchRequest, create_run, plan_run, start_run
from workbench.run_list import ALIVE, all_runs
from workbench.terminal_output import counted
from workbench.workspace import MARKER, Workspace, open_workspace


def prepare(path: str | None, say: Callable[[str], None]) -> Workspace:
    """The workspace at `path`, made and filled where it is not; a new temporary one without a path."""
    if path is not None and (Path(path) / MARKER).exists():
        workspace = open_workspace(path)
        if (workspace.pairs / PAIRS).is_dir():
            return workspace
    workspace = demo_workspace(path)
    say(f"making the sample workspace {workspace.root}")
    stage = Stage(workspace, say)
    read_data(stage)
    made = pairs_from_dataset(workspace, PAIRS, stage.dataset("answers"))
    say(f"  {counted(made.info.rows, 'pair')} to label")
    say("starting a run that tunes the sample model on the demonstrations (SFT)")
    start_run(create_run(plan_run(workspace, sample_request("sft", "sample", "demonstrations"), quiet=True)))
    return workspace


def guide_request(workspace: Workspace) -> LaunchRequest:
    """The DPO run that the guide proposes: from the newest SFT run that has learnt something or is about to, on the
    newest preference set.
    """
    from engine.run.config_toml import read_recipe
    from sample_data import ROOT
    from workbench.run_clone import as_typed

    taught = [run for run in all_runs(workspace) if run.method == "sft"]
    tuned = [run for run in taught if any(run.checkpoint_steps()) or run.state().state in ALIVE]
    prefs = workspace.names("prefs")
    model = f"run:{tuned[-1].id}" if tuned else "sample"
    recipe = read_recipe(ROOT / "recipes" / "dpo.toml")
    settings = tuple(
        f"{section}.{key}={as_typed(value)}"
        for section, values in recipe.items()
        if isinstance(values, Mapping)
        for key, value in values.items()
    )
    # As settings, not as a recipe: a person sees them in the form and may change each.
    return LaunchRequest(method="dpo", model=model, data=(prefs[-1],) if prefs else (), settings=settings, name="guide")
