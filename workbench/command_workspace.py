"""`workbench init`: make a workspace."""

from __future__ import annotations

import argparse

from workbench.terminal_output import note, say, write_json

SCHEMA = 1


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `init`."""
    parser.add_argument("path", nargs="?", metavar="PATH", help="the folder (default: --workspace, else here)")
    parser.add_argument("--workspace", metavar="PATH", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    parser.set_defaults(action=run_init)


def run_init(args: argparse.Namespace) -> int:
    """Make a workspace and print where it is."""
    from workbench.workspace import init

    workspace = init(args.path or args.workspace or ".")
    if args.json:
        write_json({"schema": SCHEMA, "path": str(workspace.root), "id": workspace.id})
        return 0
    say(str(workspace.root))
    note("A workspace. Commands inside it find it; elsewhere give --workspace PATH or set WORKBENCH_WORKSPACE.")
    note("Next: workbench data add FILE")
    return 0
