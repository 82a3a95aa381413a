"""What can be made of datasets: each operation reads its sources row by row and gives rows to write.

Owns the table that recipes name operations by. Invariant: an operation depends on its recipe, its sources and what lies
beside the recipe alone, so it gives the same rows whenever and wherever it is done. Operations that only choose rows
keep them as the file has them, with their reading; those that change a shape write canonical rows.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from workbench.canonical_rows import Shape, group_of, is_held_out, prompt_of
from workbench.dataset_shapes import Recognition
from workbench.errors import UsageError
from workbench.lint_rows import RowSource, SourceRow, row_source
from workbench.made_dataset import DROPPED, MadeRows, Operation, Recipe
from workbench.preferences import Side
from workbench.row_shapes import converted, written, written_recognition
from workbench.workspace import Workspace


def sources_of(workspace: Workspace, recipe: Recipe) -> list[RowSource]:
    """What a recipe is made of, opened."""
    sides: dict[str, Side | None] = {"train": "train", "eval": "eval", "": None}
    return [row_source(workspace, one.name, sides[one.side]) for one in recipe.sources]


def is_plain(source: RowSource) -> bool:
    """Whether its prompts and answers are plain texts, which no chat template is applied to."""
    if source.dataset is not None:
        return source.dataset.info.recognition.plain
    return all(isinstance(one.raw["prompt"], str) for one in source.read() if one.raw)


def _drop(workspace: Workspace, recipe: Recipe, folder: Path) -> MadeRows:
    """All rows of a dataset but those that are listed."""
    numbers = _listed(folder / DROPPED)
    dropped = next(numbers, 0)

    def keeps(one: SourceRow) -> bool:
        nonlocal dropped
        if one.number != dropped:
            return True
        dropped = next(numbers, 0)
        return False

    return _chosen_rows(workspace, recipe, keeps)


def _listed(file: Path) -> Iterator[int]:
    with open(file, "rb") as lines:
        for line in lines:
            yield int(orjson.loads(line)["row"])


def _sample(workspace: Workspace, recipe: Recipe, folder: Path) -> MadeRows:
    """So many usable rows, drawn by a hash of seed and place, in the order of the file."""
    rows, seed = int(recipe.arguments["rows"]), int(recipe.arguments["seed"])
    usable = (one.index for one in _one(workspace, recipe).read() if one.row is not None)
    drawn = set(heapq.nsmallest(rows, usable, key=lambda index: (_draw(seed, index), index)))
    return _chosen_rows(workspace, recipe, lambda one: one.index in drawn)


def _draw(seed: int, index: int) -> bytes:
    return hashlib.sha256(f"{seed}\x1f{index}".encode()).digest()[:8]


def _split(workspace: Workspace, recipe: Recipe, folder: Path) -> MadeRows:
    """The rows of one side; rows of one prompt (or with one text) are all on one side."""
    side, share, seed = recipe.arguments["side"], recipe.arguments["eval_share"], recipe.arguments["seed"]

    def keeps(one: SourceRow) -> bool:
        row: Any = one.row
        return row is not None and is_held_out(_group(row), seed, share) == (side == "eval")

    return _chosen_rows(workspace, recipe, keeps)


def _group(row: Any) -> str:
    return group_of(prompt_of(row) or row.get("text") or row["messages"])


def _rename(workspace: Workspace, recipe: Recipe, folder: Path) -> MadeRows:
    """All rows with other names for some columns."""
    names: dict[str, str] = recipe.arguments["columns"]
    source = _one(workspace, recipe)
    before = _recognition_of(source)
    mapping = {field: names.get(column, column) for field, column in before.mapping.items()}
    json_columns = tuple(names.get(column, column) for column in before.json_columns)

    def rows() -> Iterator[dict[str, Any]]:
        for one in source.read():
            if one.raw is not None:
                yield {names.get(name, name): value for name, value in one.raw.items()}

    why = f"{before.why.rstrip('.')}; renamed: " + ", ".join(f"{old!r} to {new!r}" for old, new in names.items()) + "."
    made = Recognition(before.shape, before.form, why, mapping, before.plain, json_columns)
    return MadeRows(rows(), made, source.rows)


def _convert(workspace: Workspace, recipe: Recipe, folder: Path) -> MadeRows:
    """The rows in another shape."""
    source = _one(workspace, recipe)
    to: Shape = recipe.arguments["to"]
    plain = is_plain(source)
    shape: Any = source.shape
    rows = converted(lambda: _canonical(source), shape, to, recipe.arguments.get("by", ""))
    why = f"made of {source.name} ({source.shape}): workbench data convert --to {to}."
    plain = plain and to not in ("messages", "text")
    return MadeRows(
        (written(row, to, plain=plain) for row in rows), written_recognition(to, why, plain=plain), source.rows
    )


def _concatenate(workspace: Workspace, recipe: Recipe, folder: Path) -> MadeRows:
    """The rows of several datasets of one shape, one after another, each with the name of its own."""
    sources = sources_of(workspace, recipe)
    shape: Any = sources[0].shape
    plain = all(map(is_plain, sources))

    def rows() -> Iterator[dict[str, Any]]:
        for ingredient, source in zip(recipe.sources, sources, strict=True):
            for row in _canonical(source):
                yield {"dataset": ingredient.name, **written(row, shape, plain=plain)}

    why = f"made of {', '.join(one.name for one in sources)}, one after another."
    return MadeRows(rows(), written_recognition(shape, why, plain=plain), sum(one.rows for one in sources))


def _canonical(source: RowSource) -> Iterator[Any]:
    return (one.row for one in source.read() if one.row is not None)


def _one(workspace: Workspace, recipe: Recipe) -> RowSource:
    (source,) = sources_of(workspace, recipe)
    return source


def _chosen_rows(workspace: Workspace, recipe: Recipe, keeps: Callable[[SourceRow], bool]) -> MadeRows:
    source = _one(workspace, recipe)
    rows = (one.raw for one in source.read() if keeps(one) and one.raw is not None)
    return MadeRows(rows, _recognition_of(source), source.rows)


def _recognition_of(source: RowSource) -> Recognition:
    if source.dataset is None:
        raise UsageError(
            f"{source.name} is a preference set. Make a dataset of it first: workbench data convert N --to preference"
        )
    return source.dataset.info.recognition


OPERATIONS: dict[str, Operation] = {
    "drop": _drop,
    "sample": _sample,
    "split": _split,
    "rename": _rename,
    "convert": _convert,
    "concatenate": _concatenate,
}
