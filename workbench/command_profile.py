"""`workbench data profile`: what is in a dataset, in numbers."""

from __future__ import annotations

import argparse

from workbench.command_arguments import add_verb, positive_integer, workspace_of
from workbench.errors import UsageError
from workbench.profile_words import profile_lines, profile_title
from workbench.terminal_output import Progress, line_width, say, write_json


def configure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `profile` to the verbs of `data`."""
    parser = add_verb(
        verbs, "profile", "what is in a dataset: nulls, distinct and top values, lengths, turns, scripts", run_profile
    )
    parser.add_argument("name", metavar="N", help="a dataset or a preference set")
    parser.add_argument("--side", choices=("train", "eval"), help="of a preference set (train)")
    parser.add_argument("--model", metavar="M", help="lengths in its tokens, too")
    parser.add_argument("--max-length", type=positive_integer, metavar="N", help="tokens, as data.max_length (1024)")
    parser.add_argument("--sample", type=positive_integer, metavar="K", help="of the first K rows alone")
    parser.add_argument("--again", action="store_true", help="whatever was worked out before")


def run_profile(args: argparse.Namespace) -> int:
    """Print the profile."""
    from workbench.dataset_profile import profile

    if args.max_length and not args.model:
        raise UsageError("--max-length counts tokens, so it needs --model M, whose tokens are counted.")
    workspace = workspace_of(args)
    progress = Progress(f"profiling {args.name}")
    try:
        told = profile(
            workspace,
            args.name,
            side=args.side,
            model=args.model or "",
            max_length=args.max_length or 0,
            sample=args.sample or 0,
            again=args.again,
            progress=lambda done, total: progress.update(done, total, f"of {total:,} rows"),
        )
    finally:
        progress.close()
    if args.json:
        write_json(told)
        return 0
    say(profile_title(told))
    for line, _ in profile_lines(told, line_width()):
        print(line)
    return 0
