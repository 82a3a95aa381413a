"""`workbench data`: add a dataset, list them, look into one, make one again, delete one."""

from __future__ import annotations

import argparse
from itertools import islice
from typing import TYPE_CHECKING, Any

from workbench import command_lint, command_profile, command_shapes
from workbench.canonical_rows import said_in, to_json
from workbench.command_arguments import add_verb, add_verbs, agreed, pair_of_text, positive_integer, workspace_of
from workbench.errors import UsageError
from workbench.terminal_output import Column, Progress, counted, note, say, write_fields, write_json, write_table

if TYPE_CHECKING:
    from workbench.dataset_store import Dataset

SCHEMA = 1
CELL_CHARACTERS = 400


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `data`."""
    verbs = add_verbs(parser)
    add = add_verb(verbs, "add", "read a file, a Hub dataset or a saved folder, and make it a dataset", run_add)
    add.add_argument(
        "sources",
        nargs="+",
        metavar="SRC",
        help="a JSONL, JSON, CSV, TSV, Parquet or Arrow file (or gzip of a text one), a quoted pattern such as "
        "'part-*.jsonl', hf:NAME[@REVISION][:CONFIG][:SPLIT], or a saved folder",
    )
    add.add_argument("--name", metavar="N", help="default: from the file's name; only with one SRC")
    add.add_argument(
        "--map", action="append", default=[], metavar="FIELD=COLUMN", help="which column is what; may be repeated"
    )
    add.add_argument("--copy", action="store_true", help="keep a copy; without it the file is referenced and hashed")
    add_verb(verbs, "ls", "list the datasets", run_ls)
    show = add_verb(verbs, "show", "what a dataset is, its first rows, and what was rejected", run_show)
    show.add_argument("name", metavar="N")
    show.add_argument("--rows", type=positive_integer, default=2, metavar="K", help="rows to show (2)")
    show.add_argument("--rejected", action="store_true", help="show rejected rows instead, with line and reason")
    inspect = add_verb(
        verbs, "inspect", "open the app at the rows of a dataset or a preference set", run_inspect, has_json=False
    )
    inspect.add_argument("name", metavar="N")
    inspect.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    command_profile.configure(verbs)
    command_lint.configure(verbs)
    command_shapes.configure(verbs)
    remake = add_verb(verbs, "remake", "make a dataset again by its recipe, and compare the bytes", run_remake)
    remake.add_argument("name", metavar="N")
    remake.add_argument("--name", dest="to", metavar="NEW", help="make it as a new dataset instead")
    rm = add_verb(verbs, "rm", "delete a dataset or a preference set; no file elsewhere and no verdict", run_rm)
    rm.add_argument("name", metavar="N")
    rm.add_argument("--yes", action="store_true", help="do not ask")
    rm.add_argument(
        "--even-if-used", action="store_true", help="also where runs, pair sets or arenas were made of it, which stay"
    )


def run_add(args: argparse.Namespace) -> int:
    """Add every source; the first that fails ends it."""
    from workbench.dataset_store import add_dataset

    if args.name and len(args.sources) > 1:
        raise UsageError("--name goes with one SRC; add the files one by one, or leave --name out")
    workspace = workspace_of(args, writable=True)
    mapping = dict(pair_of_text(text, "--map", "prompt=question") for text in args.map)
    added = []
    for source in args.sources:
        progress = Progress(f"reading {source}")

        def show(rows: int, bar: Progress = progress) -> None:
            bar.update(rows, 0, "rows")

        try:
            dataset = add_dataset(
                workspace,
                source,
                args.name,
                mapping,
                copy=args.copy,
                progress=show,
            )
        finally:
            progress.close()
        added.append(dataset)
        if not args.json:
            _say_added(dataset, named=len(args.sources) > 1)
    if args.json:
        write_json({"schema": SCHEMA, "datasets": [_as_json(dataset) for dataset in added]})
    return 0


def run_ls(args: argparse.Namespace) -> int:
    """List the datasets; those that cannot be opened are named on stderr."""
    from workbench.dataset_store import list_datasets

    datasets, problems = list_datasets(workspace_of(args))
    for problem in problems:
        note(problem)
    if args.json:
        write_json({"schema": SCHEMA, "datasets": [_as_json(dataset) for dataset in datasets]})
        return 0
    columns = [
        Column("dataset"), Column("shape"), Column("rows", right=True), Column("rejected", right=True),
        Column("from", shrinks=True),
    ]  # fmt: skip
    rows = [
        [d.name, d.shape, f"{d.info.rows:,}", f"{sum(d.info.rejected.values()):,}", d.info.source.origin]
        for d in datasets
    ]
    write_table(columns, rows, empty="No datasets yet. Add one: workbench data add FILE")
    return 0


def run_inspect(args: argparse.Namespace) -> int:
    """Open the app at the rows."""
    from workbench.app_opening import open_app

    workspace = workspace_of(args)
    if args.name not in workspace.names("prefs"):
        workspace.existing("datasets", args.name)
    return open_app(workspace, station="inspect", subject=args.name, mouse=not args.no_mouse)


def run_show(args: argparse.Namespace) -> int:
    """Describe one dataset."""
    from workbench.dataset_store import open_dataset

    workspace = workspace_of(args)
    if args.name in workspace.names("prefs"):
        raise UsageError(f"{args.name} is a preference set; see: workbench prefs show {args.name}")
    dataset = open_dataset(workspace, args.name)
    if args.rejected:
        return _show_rejected(dataset, args)
    rows = list(islice(dataset.rows(), args.rows))
    if args.json:
        write_json({"schema": SCHEMA, **_as_json(dataset), "first_rows": rows})
        return 0
    info = dataset.info
    fields = {
        "dataset": dataset.name,
        "shape": f"{dataset.shape}: {info.recognition.why}",
        "rows": f"{info.rows:,}",
        "rejected": _rejected_text(info.rejected),
        "from": f"{info.source.origin} ({info.source.kind})",
        "sha256": info.source.sha256,
        "mapping": ", ".join(f"{field}={column}" for field, column in info.recognition.mapping.items()),
        "note": info.note,
        "made by": info.recipe.get("command", ""),
    }
    write_fields({name: value for name, value in fields.items() if value})
    for row in rows:
        say()
        write_fields({name: readable(value) for name, value in row.items() if value not in ({}, None)})
    return 0


def run_remake(args: argparse.Namespace) -> int:
    """Make a dataset again; a file that is gone or damaged comes back."""
    from workbench.made_dataset import make_like, remake

    workspace = workspace_of(args, writable=bool(args.to))
    progress = Progress(f"making {args.name}")

    def show(done: int, total: int) -> None:
        progress.update(done, total, f"of {total:,} rows")

    try:
        if args.to:
            made = make_like(workspace, args.name, args.to, show)
            name, sha256, restored = made.name, made.info.source.sha256, False
        else:
            again = remake(workspace, args.name, show)
            name, sha256, restored = again.name, again.sha256, again.restored
    finally:
        progress.close()
    if args.json:
        write_json({"schema": SCHEMA, "dataset": name, "sha256": sha256, "restored": restored})
    else:
        say(f"{name}  {sha256}")
        note("its file was gone or damaged and is back" if restored else "the same bytes as its recipe made before")
    return 0


def run_rm(args: argparse.Namespace) -> int:
    """Delete a dataset or a preference set, once the person has seen what goes."""
    from workbench.dataset_removal import removal_of_data, remove_data

    workspace = workspace_of(args, writable=True)
    removal = removal_of_data(workspace, args.name)
    if not args.yes and (args.even_if_used or not removal.users):
        note(f"{removal.what}: {removal.words()}")
        if removal.users:
            note(f"{removal.used_words()}.")
        if not agreed(
            "Delete it?",
            f"data rm deletes for good, and here is no terminal to ask on; add --yes to delete {args.name}",
        ):
            return 1
    removed = remove_data(workspace, args.name, even_if_used=args.even_if_used)
    if args.json:
        users, freed = list(removed.users), removed.freed_bytes
        write_json(
            {"schema": SCHEMA, "deleted": args.name, "freed_bytes": freed, "users": users, "file": removed.stays}
        )
    else:
        note(f"Deleted {removed.what}. {removed.words()}")
    return 0


def readable(value: Any) -> str:
    """A cell of a canonical row for a person: turns as "role: words", cut where it is long."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        text = "\n".join(f"{turn['role']}: {said_in(turn)}" if "role" in turn else to_json(turn) for turn in value)
    elif isinstance(value, dict):
        text = ", ".join(f"{key}={item}" for key, item in value.items())
    else:
        text = str(value)
    return text if len(text) <= CELL_CHARACTERS else f"{text[:CELL_CHARACTERS]}… ({len(text):,} characters)"


def _show_rejected(dataset: Dataset, args: argparse.Namespace) -> int:
    rejections = list(islice(dataset.rejected_rows(), None if args.json else max(args.rows, 20)))
    if args.json:
        write_json({"schema": SCHEMA, "dataset": dataset.name, "rejected": [dict(r.__dict__) for r in rejections]})
        return 0
    columns = [Column("where"), Column("reason", shrinks=True), Column("what stands there", shrinks=True)]
    rows = [[r.place, r.reason + (f" ({r.detail})" if r.detail else ""), r.excerpt] for r in rejections]
    write_table(columns, rows, empty=f"Nothing of {dataset.name} was rejected.")
    return 0


def _say_added(dataset: Dataset, *, named: bool) -> None:
    """What was made of one source; `named` where several explanations stand below each other."""
    info = dataset.info
    say(f"{dataset.name}  {counted(info.rows, 'row')}, {dataset.shape}")
    note(f"{dataset.name}: {info.recognition.why}" if named else info.recognition.why)
    if info.rejected:
        note(f"rejected {_rejected_text(info.rejected)}. See: workbench data show {dataset.name} --rejected")


def _rejected_text(rejected: dict[str, int]) -> str:
    if not rejected:
        return "none"
    return f"{sum(rejected.values()):,}: " + ", ".join(f"{count:,} {reason}" for reason, count in rejected.items())


def _as_json(dataset: Dataset) -> dict[str, Any]:
    info = dataset.info
    return {
        "name": dataset.name,
        "shape": dataset.shape,
        "why": info.recognition.why,
        "mapping": dict(info.recognition.mapping),
        "rows": info.rows,
        "rejected": dict(info.rejected),
        "source": {"kind": info.source.kind, "origin": info.source.origin, "sha256": info.source.sha256},
        "columns": dict(info.columns),
        "created": info.created,
        "note": info.note,
        **({"recipe": info.recipe} if info.recipe else {}),
    }
