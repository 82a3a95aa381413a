"""`workbench label`: the label screen, opened at a pair set."""

from __future__ import annotations

import argparse

from workbench.command_arguments import workspace_of


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `label`."""
    parser.add_argument("name", metavar="N", help="a pair set, or arena/N for an arena")
    parser.add_argument(
        "--as", dest="annotator", metavar="WHO", default="", help="under whose name (your settings say)"
    )
    parser.add_argument("--workspace", metavar="PATH", help="default: $WORKBENCH_WORKSPACE, else upward from here")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.epilog = "Without a terminal: workbench pairs judge"
    parser.set_defaults(action=run)


def run(args: argparse.Namespace) -> int:
    """Open the app at the label screen."""
    from workbench.app_opening import open_app
    from workbench.labeling_subject import pair_set_of
    from workbench.workspace import check_name

    workspace = workspace_of(args)
    if args.annotator:
        check_name(args.annotator, "annotator")
    pair_set_of(workspace, args.name)
    return open_app(workspace, station="label", subject=args.name, annotator=args.annotator, mouse=not args.no_mouse)
