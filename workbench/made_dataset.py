"""Datasets that were made of other datasets, and making them again.

Owns the recipe in dataset.toml: what was done, to which files (by sha256), with which arguments. Invariants: a made
dataset is a new one with JSON lines of its own, and nothing that it was made of is touched; the same recipe over the
same files gives the same bytes. What an operation does stands in `dataset_operations`, found by its name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.dataset_files import row_as_json
from workbench.dataset_intake import read_and_count
from workbench.dataset_reading import FileKind
from workbench.dataset_shapes import Recognition
from workbench.dataset_source import record_source, sha256_of
from workbench.dataset_store import Dataset, DatasetInfo, open_dataset, to_toml
from workbench.errors import SourceChanged, UnreadableData, UsageError, WorkbenchError
from workbench.lint_rows import row_source
from workbench.steps import Progress, Steps
from workbench.workspace import Workspace, now, write_toml

DATA = "data.jsonl"
MADE = "made"
"""`DatasetSource.kind` of a made dataset."""
_EVERY = 256


@dataclass(frozen=True)
class Ingredient:
    """A dataset, or one side of a preference set, that another was made of."""

    name: str
    sha256: str
    """Of its file, then."""
    side: str = ""


@dataclass(frozen=True)
class Recipe:
    """How a dataset was made."""

    operation: str
    """A key of dataset_operations.OPERATIONS."""
    sources: tuple[Ingredient, ...]
    arguments: dict[str, Any]
    command: str
    """As it would be typed, but for the name."""

    def to_toml(self) -> dict[str, Any]:
        return {**asdict(self), "sources": [asdict(one) for one in self.sources]}

    @classmethod
    def from_toml(cls, written: dict[str, Any]) -> Recipe:
        """What `to_toml` gave. Raises KeyError or TypeError where it is damaged."""
        return cls(**{**written, "sources": tuple(Ingredient(**one) for one in written["sources"])})


@dataclass(frozen=True)
class MadeRows:
    """What an operation gives: rows as they are written, and how they are read again."""

    rows: Iterator[dict[str, Any]]
    recognition: Recognition
    steps: int
    """About how many rows are read for it; 0 where that is not known."""


Operation = Callable[[Workspace, Recipe, Path], MadeRows]
"""Called with the folder in which what the recipe keeps beside it lies."""


@dataclass(frozen=True)
class Remade:
    """A dataset made again."""

    name: str
    sha256: str
    restored: bool
    """Its file was gone or damaged, and the same bytes are in its place again."""


def make_dataset(
    workspace: Workspace,
    name: str,
    recipe: Recipe,
    *,
    prepare: Callable[[Path], None] = lambda folder: None,
    note: str = "",
    progress: Progress | None = None,
) -> Dataset:
    """Makes the new dataset `name` by a recipe. `prepare` fills its folder with what the recipe keeps beside it.

    `progress` counts rows and may raise; then nothing is left. Raises UnreadableData where no usable row comes out.
    """
    with workspace.new_folder("datasets", name) as folder:
        prepare(folder)
        made = _made(workspace, recipe, folder)
        file = folder / DATA
        write_rows(file, made.rows, Steps(made.steps, progress))
        kind = FileKind("jsonl")
        recorded = record_source(file, workspace.relative(workspace.datasets / name / DATA), MADE, recipe.command, kind)
        intake = read_and_count(file, kind, name, None, folder / "rejected.jsonl", recognition=made.recognition)
        info = DatasetInfo(
            name, now(), intake.recognition, recorded, intake.rows, intake.columns, intake.rejected, note,
            recipe.to_toml(),
        )  # fmt: skip
        write_toml(folder / "dataset.toml", to_toml(info))
    return open_dataset(workspace, name)


def remake(workspace: Workspace, name: str, progress: Progress | None = None) -> Remade:
    """Makes a dataset again by its recipe and compares; one whose file is gone or damaged gets it back.

    Raises SourceChanged where something that it was made of has changed, or where other bytes come out.
    """
    dataset = open_dataset(workspace, name)
    recipe = recipe_of(dataset)
    require_ingredients(workspace, recipe)
    with tempfile.TemporaryDirectory(prefix=".remake-", dir=workspace.datasets) as scratch:
        file = Path(scratch) / DATA
        made = _made(workspace, recipe, dataset.folder)
        write_rows(file, made.rows, Steps(made.steps, progress))
        sha256 = sha256_of(file)
        if sha256 != dataset.info.source.sha256:
            raise SourceChanged(
                f"dataset {name}: making it again gives sha256 {sha256}, recorded is {dataset.info.source.sha256}: "
                "another version of this program made it. Its rows stay as they are."
            )
        there = workspace.resolve(dataset.info.source.path)
        restored = not there.is_file() or sha256_of(there) != sha256
        if restored:
            workspace.require_writable()
            os.chmod(file, 0o600)
            os.replace(file, there)
    return Remade(name, sha256, restored)


def make_like(workspace: Workspace, name: str, new: str, progress: Progress | None = None) -> Dataset:
    """Makes the new dataset `new` by the recipe of `name`, of what its sources hold now that they are the same."""
    dataset = open_dataset(workspace, name)
    recipe = recipe_of(dataset)
    require_ingredients(workspace, recipe)

    def prepare(folder: Path) -> None:
        if (kept := dataset.folder / DROPPED).is_file():
            shutil.copyfile(kept, folder / DROPPED)

    return make_dataset(workspace, new, recipe, prepare=prepare, note=dataset.info.note, progress=progress)


DROPPED = "dropped.jsonl"
"""Beside a recipe of "drop": the numbers of the rows that were left out, and why."""


def recipe_of(dataset: Dataset) -> Recipe:
    """How a dataset was made; UsageError for one that was added."""
    if not dataset.info.recipe:
        raise UsageError(
            f"{dataset.name} was added from {dataset.info.source.origin}, not made of other datasets, so there is no "
            "recipe to make it again by. See: workbench data show " + dataset.name
        )
    try:
        return Recipe.from_toml(dataset.info.recipe)
    except (KeyError, TypeError) as error:
        where = dataset.folder / "dataset.toml"
        raise WorkbenchError(f"{where}: [recipe] is damaged ({error}). Restore it from a copy.") from error


def ingredient(workspace: Workspace, name: str, side: str = "") -> Ingredient:
    """A dataset, or a side of a preference set, as a recipe names it."""
    source = row_source(workspace, name, "eval" if side == "eval" else None)
    return Ingredient(name, source.sha256, "" if source.dataset else side or "train")


def require_ingredients(workspace: Workspace, recipe: Recipe) -> None:
    """Raises where something that the recipe names is gone, or is another file by now."""
    for one in recipe.sources:
        found = ingredient(workspace, one.name, one.side)
        if found.sha256 != one.sha256:
            raise SourceChanged(
                f"{one.name} is another dataset than the one this was made of (sha256 {found.sha256}, then "
                f"{one.sha256}). Add the old file again, or make a new dataset: {recipe.command}"
            )


def write_rows(file: Path, rows: Iterable[dict[str, Any]], steps: Steps) -> int:
    """Writes rows as JSON lines to a new private file; returns how many."""
    written = 0
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as lines:
        for row in rows:
            lines.write(row_as_json(row))
            written += 1
            if written % _EVERY == 0:
                steps.add(_EVERY)
    if not written:
        raise UnreadableData("no row is left to make a dataset of.")
    return written


def _made(workspace: Workspace, recipe: Recipe, folder: Path) -> MadeRows:
    from workbench.dataset_operations import OPERATIONS

    operation = OPERATIONS.get(recipe.operation)
    if operation is None:
        raise WorkbenchError(f"this program knows no operation {recipe.operation!r}. Update the program.")
    return operation(workspace, recipe, folder)
