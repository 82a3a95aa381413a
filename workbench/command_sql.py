"""`workbench sql`: any question about the loop as a query that reads."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.command_arguments import add_usual_options, nonnegative_number, positive_integer, workspace_of
from workbench.errors import NameTaken, UsageError, explain_os_errors
from workbench.terminal_output import Column, counted, note, without_nonfinite, write_json, write_table
from workbench.workspace import Workspace

SCHEMA = 1
SHOWN_ROWS = 100
CELL_CHARACTERS = 200


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sql`."""
    parser.add_argument("query", nargs="?", metavar="QUERY", help="one statement that reads; - reads it from stdin")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--csv", action="store_true", help="all rows as CSV on stdout")
    what.add_argument("--to", metavar="N", help="save the result as the dataset N")
    what.add_argument("--out", metavar="FILE", help="write the result to FILE: .csv, .jsonl or .parquet")
    what.add_argument("--views", action="store_true", help="what a query can name, with columns")
    parser.add_argument("--saved", metavar="NAME", help="run the query that was saved under NAME")
    parser.add_argument("--save", metavar="NAME", help="save QUERY under NAME, once it has run")
    parser.add_argument("--rows", type=positive_integer, default=SHOWN_ROWS, metavar="K", help="rows to show (100)")
    parser.add_argument(
        "--time-limit", type=nonnegative_number, default=600.0, metavar="S", help="seconds a query may take (600)"
    )
    add_usual_options(parser)
    parser.set_defaults(action=run_sql)


def run_sql(args: argparse.Namespace) -> int:
    """Run a query and print, write or save what it finds."""
    from workbench.sql_saved import read_saved, save_query

    workspace = workspace_of(args, writable=bool(args.to or args.save))
    if args.views:
        return _show_views(workspace, args.json)
    if (args.query is None) == (args.saved is None):
        raise UsageError('give one QUERY, or --saved NAME; for example: workbench sql "SELECT * FROM runs"')
    query = read_saved(workspace, args.saved) if args.saved else args.query
    if query == "-":
        query = sys.stdin.read()
    if args.to:
        _save_as_dataset(workspace, query, args)
    elif args.out:
        _write_out(workspace, query, args)
    elif args.csv or args.json:
        _print_all(workspace, query, args)
    else:
        _print_table(workspace, query, args)
    if args.save:
        save_query(workspace, args.save, query)
        note(f"saved as {args.save}; again with: workbench sql --saved {args.save}")
    return 0


def _print_table(workspace: Workspace, query: str, args: argparse.Namespace) -> None:
    from workbench.dataset_window import cell_of
    from workbench.sql_query import run_query

    with run_query(workspace, query, form="json", limit=args.rows + 1, time_limit_s=args.time_limit) as result:
        names = [column.name for column in result.columns]
        numbers = [_is_number(column.type) for column in result.columns]
        rows = []
        for line in _lines(result.path):
            found, exactly = json.loads(line), json.loads(line, parse_float=str, parse_int=str)
            cells = [exactly[name] if type(found[name]) in (int, float) else cell_of(found[name]) for name in names]
            rows.append(["∅" if cell is None else _short(cell) for cell in cells])
        columns = [Column(name, right=right, shrinks=not right) for name, right in zip(names, numbers, strict=True)]
        write_table(columns, rows[: args.rows], empty="no rows")
        if len(rows) > args.rows:
            note(f"the first {counted(args.rows, 'row')}; --rows K shows more, --csv, --json and --out give all")
        for problem in result.notes:
            note(problem)


def _print_all(workspace: Workspace, query: str, args: argparse.Namespace) -> None:
    """All rows on stdout, as exact as DuckDB writes them."""
    from workbench.sql_query import run_query

    form: Any = "csv" if args.csv else "json"
    with run_query(workspace, query, form=form, time_limit_s=args.time_limit) as result:
        if args.csv:
            with open(result.path, encoding="utf-8", newline="") as file:
                shutil.copyfileobj(file, sys.stdout)
            return
        columns = [{"name": column.name, "type": column.type} for column in result.columns]
        print(f'{{"schema": {SCHEMA}, "columns": {json.dumps(columns)}, "rows": [', end="")
        for place, line in enumerate(_lines(result.path)):
            print(("," if place else "") + "\n" + _printable(line), end="")
        print("\n]}")


def _write_out(workspace: Workspace, query: str, args: argparse.Namespace) -> None:
    from workbench.sql_query import run_query
    from workbench.sql_saved import deliver, result_format

    path = Path(args.out)
    form = result_format(path)
    if path.exists():
        raise NameTaken(
            f"{path} is there already, and nothing is overwritten. Choose another name, or remove it first."
        )
    with run_query(workspace, query, form=form, time_limit_s=args.time_limit) as result:
        with explain_os_errors(f"writing {path.name}", path):
            deliver(result, path)
        if args.json:
            write_json({"schema": SCHEMA, "file": str(path), "rows": result.rows})
        else:
            note(f"{counted(result.rows, 'row')} in {path}")


def _save_as_dataset(workspace: Workspace, query: str, args: argparse.Namespace) -> None:
    from workbench.sql_query import run_query
    from workbench.sql_saved import save_as_dataset

    workspace.require_free("datasets", args.to)
    with run_query(workspace, query, time_limit_s=args.time_limit) as result:
        dataset = save_as_dataset(workspace, result, args.to)
    if args.json:
        write_json({"schema": SCHEMA, "dataset": dataset.name, "shape": dataset.shape, "rows": dataset.info.rows})
    else:
        note(f"{dataset.name}: {counted(dataset.info.rows, 'row')}, {dataset.shape}")


def _show_views(workspace: Workspace, as_json: bool) -> int:
    from workbench.sql_views import sql_views

    views, problems = sql_views(workspace)
    for problem in problems:
        note(problem)
    if as_json:
        listed = [{"name": view.name, "columns": list(view.columns), "row": view.words} for view in views]
        write_json({"schema": SCHEMA, "views": listed})
        return 0
    columns = [Column("name"), Column("a row is", shrinks=True), Column("columns", shrinks=True)]
    write_table(columns, [[view.quoted, view.words, ", ".join(view.columns)] for view in views], empty="nothing yet")
    return 0


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            yield line.rstrip("\n")


def _printable(line: str) -> str:
    """One row as JSON: as it is, unless the terminal or JSON itself cannot take it."""
    plain = "NaN" not in line and "Infinity" not in line
    if plain and not sys.stdout.isatty():
        try:
            line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
            return line
        except UnicodeEncodeError:
            pass
    return json.dumps(without_nonfinite(json.loads(line)), allow_nan=False).replace("\x7f", "\\u007f")


def _is_number(kind: str) -> bool:
    from workbench.dataset_window import WindowColumn

    return WindowColumn("", kind).is_number


def _short(cell: str) -> str:
    return cell if len(cell) <= CELL_CHARACTERS else f"{cell[:CELL_CHARACTERS]}… ({len(cell):,} characters)"
