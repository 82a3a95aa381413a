"""`workbench data convert | rename | sample | split | concat`: a new dataset made of others, with its recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.canonical_rows import SHAPES
from workbench.command_arguments import add_verb, pair_of_text, positive_integer, share, workspace_of
from workbench.errors import UsageError
from workbench.terminal_output import Progress, counted, note, say, write_json

if TYPE_CHECKING:
    from workbench.dataset_store import Dataset
    from workbench.made_dataset import Recipe
    from workbench.workspace import Workspace

SCHEMA = 1


def configure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add these verbs to `data`."""
    convert = add_verb(verbs, "convert", "make a new dataset of another shape", run_convert)
    convert.add_argument("names", nargs=1, metavar="N", help="a dataset or a preference set")
    convert.add_argument("--to", required=True, choices=SHAPES, metavar="SHAPE", help=", ".join(SHAPES))
    convert.add_argument("--by", default="", metavar="COLUMN", help="of two answers the larger number wins")
    convert.add_argument("--side", choices=("train", "eval"), default="", help="of a preference set (train)")
    rename = add_verb(verbs, "rename", "make a new dataset with other names for columns", run_rename)
    rename.add_argument("names", nargs=1, metavar="N")
    rename.add_argument("--column", action="append", required=True, metavar="OLD=NEW", help="may be repeated")
    sample = add_verb(verbs, "sample", "make a new dataset of some rows, drawn at random", run_sample)
    sample.add_argument("names", nargs=1, metavar="N")
    sample.add_argument("--rows", type=positive_integer, required=True, metavar="K", help="how many")
    split = add_verb(verbs, "split", "make two new datasets, so that no prompt is in both", run_split)
    split.add_argument("names", nargs=1, metavar="N")
    split.add_argument("--share", type=share, default=0.1, metavar="P", help="of the prompts to hold out (0.1)")
    split.add_argument("--eval-name", metavar="NEW", help="of the held-out rows (default: the other name with -eval)")
    concat = add_verb(verbs, "concat", "make a new dataset of the rows of several, one after another", run_concat)
    concat.add_argument("names", nargs="+", metavar="N", help="of one shape")
    for parser in (convert, rename, sample, split, concat):
        parser.add_argument("--name", required=True, metavar="NEW", help="the new dataset's name")
    for parser in (sample, split):
        parser.add_argument("--seed", type=int, default=1, metavar="S", help="the same seed gives the same rows (1)")


def run_convert(args: argparse.Namespace) -> int:
    """Change the shape."""
    from workbench.lint_rows import row_source
    from workbench.row_shapes import require_conversion

    workspace = workspace_of(args, writable=True)
    name = args.names[0]
    source = row_source(workspace, name, args.side or None)
    require_conversion(source.name, source.shape, args.to, args.by)  # type: ignore[arg-type]  # a source's shape is one
    by = {"by": args.by} if args.by else {}
    return _make(args, workspace, {args.name: _recipe(workspace, "convert", args, {"to": args.to, **by})})


def run_rename(args: argparse.Namespace) -> int:
    """Rename columns."""
    from workbench.dataset_store import open_dataset

    workspace = workspace_of(args, writable=True)
    columns = dict(pair_of_text(text, "--column", "question=prompt") for text in args.column)
    _dataset_only(workspace, args.names[0])
    there = list(open_dataset(workspace, args.names[0]).info.columns)
    for old in columns:
        if old not in there:
            raise UsageError(f"--column {old}={columns[old]}: no such column. There are: {', '.join(there[:20])}.")
    after = [columns.get(name, name) for name in there]
    if twice := sorted({name for name in after if after.count(name) > 1}):
        raise UsageError(f"two columns would be called {twice[0]!r}. Choose another name.")
    return _make(args, workspace, {args.name: _recipe(workspace, "rename", args, {"columns": columns})})


def run_sample(args: argparse.Namespace) -> int:
    """Draw rows."""
    from workbench.dataset_store import open_dataset

    workspace = workspace_of(args, writable=True)
    _dataset_only(workspace, args.names[0])
    rows = open_dataset(workspace, args.names[0]).info.rows
    if args.rows > rows:
        raise UsageError(f"--rows {args.rows:,}: {args.names[0]} has {counted(rows, 'usable row')}.")
    return _make(
        args, workspace, {args.name: _recipe(workspace, "sample", args, {"rows": args.rows, "seed": args.seed})}
    )


def run_split(args: argparse.Namespace) -> int:
    """Split by prompt."""
    workspace = workspace_of(args, writable=True)
    _dataset_only(workspace, args.names[0])
    held_out = args.eval_name or f"{args.name}-eval"
    arguments = {"eval_share": args.share, "seed": args.seed}
    sides = {args.name: "train", held_out: "eval"}
    if len(sides) < 2:
        raise UsageError("--name and --eval-name must differ.")
    recipes = {new: _recipe(workspace, "split", args, {**arguments, "side": side}) for new, side in sides.items()}
    return _make(args, workspace, recipes)


def run_concat(args: argparse.Namespace) -> int:
    """Put datasets one after another."""
    from workbench.lint_rows import row_source

    workspace = workspace_of(args, writable=True)
    shapes = {name: row_source(workspace, name).shape for name in args.names}
    if len(args.names) < 2 or len(shapes) < len(args.names):
        raise UsageError("name two or more datasets, each once.")
    first, *others = shapes.items()
    for name, shape in others:
        if shape != first[1]:
            raise UsageError(
                f"{first[0]} has the shape {first[1]} and {name} {shape}. Convert one of them first: "
                f"workbench data convert {name} --to {first[1]} --name NEW"
            )
    return _make(args, workspace, {args.name: _recipe(workspace, "concatenate", args, {})})


def _dataset_only(workspace: Workspace, name: str) -> None:
    if name in workspace.names("prefs"):
        raise UsageError(
            f"{name} is a preference set. Make a dataset of it first: workbench data convert {name} --to preference "
            f"--name {name}-rows"
        )


def _recipe(workspace: Workspace, operation: str, args: argparse.Namespace, arguments: dict[str, Any]) -> Recipe:
    from workbench.made_dataset import Ingredient, Recipe, ingredient

    side = getattr(args, "side", "")
    sources: tuple[Ingredient, ...] = tuple(ingredient(workspace, name, side) for name in args.names)
    return Recipe(operation, sources, arguments, _command(args, operation, arguments))


def _command(args: argparse.Namespace, operation: str, arguments: dict[str, Any]) -> str:
    """The command that makes it, but for the new name."""
    import shlex

    words = ["workbench", "data", args.verb, *args.names]
    for name, value in arguments.items():
        if operation == "rename":
            words += [word for old, new in value.items() for word in ("--column", f"{old}={new}")]
        elif name != "side":
            words += [f"--{ {'eval_share': 'share'}.get(name, name) }", str(value)]
    if getattr(args, "side", ""):
        words += ["--side", args.side]
    return shlex.join(words)


def _make(args: argparse.Namespace, workspace: Workspace, recipes: dict[str, Recipe]) -> int:
    from workbench.made_dataset import make_dataset

    for new in recipes:
        workspace.require_free("datasets", new)
    made = []
    for new, recipe in recipes.items():
        progress = Progress(f"making {new}")

        def show(done: int, total: int, bar: Progress = progress) -> None:
            bar.update(done, total, f"of {total:,} rows")

        try:
            made.append(make_dataset(workspace, new, recipe, note=_note(workspace, args.names), progress=show))
        finally:
            progress.close()
    if args.json:
        write_json({"schema": SCHEMA, "datasets": [_as_json(one) for one in made]})
        return 0
    for one in made:
        say(f"{one.name}  {counted(one.info.rows, 'row')}, {one.shape}")
    note(f"made again by: workbench data remake {made[0].name}")
    return 0


def _note(workspace: Workspace, names: Sequence[str]) -> str:
    """What a person must know of any of the sources."""
    from workbench.dataset_store import open_dataset

    notes = [open_dataset(workspace, name).info.note for name in names if name in workspace.names("datasets")]
    return "; ".join(dict.fromkeys(one for one in notes if one))


def _as_json(made: Dataset) -> dict[str, Any]:
    info = made.info
    return {"name": made.name, "shape": made.shape, "rows": info.rows, "sha256": info.source.sha256,
            "rejected": dict(info.rejected), "recipe": info.recipe}  # fmt: skip
