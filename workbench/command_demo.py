"""`workbench demo`: the sample loop. In a terminal the app with a guide; without one, or with --headless, by itself."""

from __future__ import annotations

import argparse
import os
import sys
import time

from workbench.command_arguments import add_usual_options
from workbench.terminal_output import note, say, write_json


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `demo`."""
    add_usual_options(parser)
    parser.add_argument(
        "--headless", action="store_true", help="run start to end by itself (as it does without a terminal)"
    )
    parser.add_argument(
        "--rlhf", action="append", choices=("ppo", "grpo", "rloo"), default=[],
        help="without a terminal: what trains against the reward model (ppo); may be repeated",
    )  # fmt: skip
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.set_defaults(action=run)


def run(args: argparse.Namespace) -> int:
    """Open the guided demo, or run the demo and print its report."""
    on_screen = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    if on_screen and not (args.headless or args.json):
        return _guided(args)
    from workbench.demo import run_demo
    from workbench.demo_report import report_lines

    started = time.monotonic()
    facts = run_demo(
        args.workspace, lambda text: note(f"{time.monotonic() - started:5.0f}s  {text}"), args.rlhf or ("ppo",)
    )
    if args.json:
        write_json(facts)
        return 0
    for line in report_lines(facts):
        say(line)
    return 0


def _guided(args: argparse.Namespace) -> int:
    from workbench.app_opening import open_app
    from workbench.guided_demo import prepare

    workspace = prepare(args.workspace, note)
    code = open_app(workspace, mouse=not args.no_mouse, guided=True)
    note(f"Everything is kept; go on with: workbench demo --workspace {workspace.root}")
    return code
