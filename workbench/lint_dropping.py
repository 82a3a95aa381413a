"""A new dataset without the rows in which lint found something.

Owns the list of dropped rows that is kept beside the recipe, each with its reasons. The dataset itself is not touched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import orjson

from workbench.dataset_store import Dataset, open_dataset
from workbench.errors import UsageError
from workbench.lint_findings import LintReport
from workbench.lint_rows import row_source
from workbench.made_dataset import DROPPED, Ingredient, Recipe, make_dataset
from workbench.steps import Progress
from workbench.workspace import Workspace


def require_droppable(workspace: Workspace, name: str, to: str) -> None:
    """Raises, before anything is looked at, where no dataset `to` can be made of `name`."""
    if name in workspace.names("prefs"):
        raise UsageError(
            f"{name} is a preference set, which is frozen. Make a dataset of it first "
            f"(workbench data convert {name} --to preference --name {name}-rows), or leave pairs out when freezing."
        )
    workspace.existing("datasets", name)
    workspace.require_free("datasets", to)


def drop_found(
    workspace: Workspace, report: LintReport, kinds: Sequence[str], to: str, progress: Progress | None = None
) -> Dataset:
    """Makes the new dataset `to` of the rows of the report's dataset in which none of `kinds` was found.

    UsageError where none of them was found at all. `progress` counts rows.
    """
    found = [one for kind in kinds if (one := report.finding(kind))]
    if not found:
        raise UsageError(f"--drop {','.join(kinds)}: none of it was found in {report.name}; it can be used as it is.")
    source = row_source(workspace, report.name)

    def prepare(folder: Path) -> None:
        with open(os.open(folder / DROPPED, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for one in source.read():
                if reasons := [finding.kind for finding in found if one.index in finding.bits]:
                    file.write(orjson.dumps({"row": one.number, "found": reasons}) + b"\n")

    recipe = Recipe(
        operation="drop",
        sources=(Ingredient(report.name, source.sha256),),
        arguments={"kinds": list(kinds), "rows": {one.kind: one.count for one in found}},
        command=f"workbench data lint {report.name} --drop {','.join(kinds)}",
    )
    note = open_dataset(workspace, report.name).info.note
    return make_dataset(workspace, to, recipe, prepare=prepare, note=note, progress=progress)
