"""`workbench label`: the label screen, opened at a pair set."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from workbench.command_arguments import workspace_of

if TYPE_CHECKING:
    from workbench.label_form import LabelForm


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `label`."""
    parser.add_argument("name", metavar="N", help="a pair set, or arena/N for an arena")
    parser.add_argument(
        "--as", dest="annotator", metavar="WHO", default="", help="under whose name (your settings say)"
    )
    parser.add_argument(
        "--adjudicate", action="store_true", help="judge what others disagree on, as the third voice (blind, as ever)"
    )
    parser.add_argument(
        "--only", action="store_true",
        help="this screen and nothing else, for an SSH key (workbench pairs keyline prints its line)",
    )  # fmt: skip
    parser.add_argument("--workspace", metavar="PATH", help="default: $WORKBENCH_WORKSPACE, else upward from here")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.epilog = "Without a terminal: workbench pairs judge"
    parser.set_defaults(action=run)


def add_form_options(parser: argparse.ArgumentParser) -> None:
    """What a new pair set asks of its annotators."""
    group = parser.add_argument_group("what is asked")
    group.add_argument(
        "--scale", choices=("3", "5"), default="3", help="left, right, tie; or with much better on either side (3)"
    )
    group.add_argument("--tags", default="", metavar="T,T", help="reasons that an annotator is offered")
    group.add_argument(
        "--criterion", action="append", default=[], metavar="NAME[=QUESTION]",
        help="a question about each pair; give it again for the next (one question: which is better)",
    )  # fmt: skip
    group.add_argument("--guidelines", metavar="FILE", help="a text that annotators read behind ?")


def form_from(args: argparse.Namespace) -> LabelForm:
    """The form that these options declare."""
    from workbench.label_form import form_of

    tags = [tag.strip() for tag in args.tags.split(",") if tag.strip()]
    return form_of(args.scale, tags, args.criterion, args.guidelines)


def run(args: argparse.Namespace) -> int:
    """Open the app at the label screen."""
    from workbench.app_opening import open_app
    from workbench.labeling_subject import adjudication_of, pair_set_of
    from workbench.workspace import check_name

    if args.only:
        _close_door(args)
    workspace = workspace_of(args)
    if args.annotator:
        check_name(args.annotator, "annotator")
    pair_set = pair_set_of(workspace, args.name)
    if args.only:
        from workbench.claims import prepare_claims

        prepare_claims(pair_set.folder)
    subject = adjudication_of(args.name) if args.adjudicate else args.name
    return open_app(
        workspace, station="label", subject=subject, annotator=args.annotator, mouse=not args.no_mouse, only=args.only
    )


def _close_door(args: argparse.Namespace) -> None:
    """What --only needs, and what it takes away; before anything of the terminal or the workspace is looked at."""
    from workbench.errors import UsageError
    from workbench.label_door import close_door

    close_door()
    if not args.annotator or not args.workspace:
        raise UsageError(
            "--only needs --as WHO and --workspace PATH: who judges, and where, is the owner's to say. "
            "workbench pairs keyline N WHO prints the whole line."
        )
