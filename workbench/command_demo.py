"""`workbench demo`: the whole loop on the sample data; progress on stderr, the report on stdout."""

from __future__ import annotations

import argparse
import time

from workbench.command_arguments import add_usual_options
from workbench.terminal_output import note, say, write_json


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `demo`."""
    add_usual_options(parser)
    parser.add_argument(
        "--headless", action="store_true", help="run start to end by itself (as it does without a terminal)"
    )
    parser.set_defaults(action=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo and print its report."""
    from workbench.demo import run_demo
    from workbench.demo_report import report_lines

    started = time.monotonic()
    facts = run_demo(args.workspace, lambda text: note(f"{time.monotonic() - started:5.0f}s  {text}"))
    if args.json:
        write_json(facts)
        return 0
    for line in report_lines(facts):
        say(line)
    return 0
