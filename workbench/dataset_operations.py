"""What can be made of datasets: each operation reads its sources row by row and gives rows to write.

Owns the table that recipes name operations by. Invariant: an operation depends on its recipe, its sources and what lies
beside the recipe alone, so it gives the same rows whenever and wherever it is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from workbench.dataset_store import open_dataset
from workbench.lint_rows import row_source
from workbench.made_dataset import DROPPED, MadeRows, Operation, Recipe
from workbench.workspace import Workspace


def _drop(workspace: Workspace, recipe: Recipe, folder: Path) -> MadeRows:
    """All rows of a dataset but those that are listed; raw, so that everything else stays as it was."""
    name = recipe.sources[0].name
    source = row_source(workspace, name)

    def rows() -> Iterator[dict[str, Any]]:
        with open(folder / DROPPED, "rb") as file:
            numbers = (int(orjson.loads(line)["row"]) for line in file)
            dropped = next(numbers, 0)
            for one in source.read():
                if one.number == dropped:
                    dropped = next(numbers, 0)
                elif one.raw is not None:
                    yield one.raw

    return MadeRows(rows(), open_dataset(workspace, name).info.recognition, source.rows)


OPERATIONS: dict[str, Operation] = {"drop": _drop}
