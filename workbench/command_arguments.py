"""The arguments that many commands share, so that they are spelled and explained alike."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from workbench.errors import UsageError
from workbench.terminal_output import note
from workbench.workspace import Workspace, open_workspace

Action = Callable[[argparse.Namespace], int]
Number = TypeVar("Number", int, float)


def add_verbs(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """The second word of a command, such as `ls`; it must be given."""
    return parser.add_subparsers(required=True, metavar="VERB", dest="verb")


def add_verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    action: Action,
    *,
    has_json: bool = True,
) -> argparse.ArgumentParser:
    """One verb with the options that every verb has; without --json where it opens a screen."""
    parser = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    add_usual_options(parser, has_json=has_json)
    parser.set_defaults(action=action)
    return parser


def add_usual_options(parser: argparse.ArgumentParser, *, has_json: bool = True) -> None:
    """--workspace and --json."""
    parser.add_argument("--workspace", metavar="PATH", help="default: $WORKBENCH_WORKSPACE, else upward from here")
    if has_json:
        parser.add_argument("--json", action="store_true", help="machine output on stdout")


def add_sampling_options(parser: argparse.ArgumentParser, *, samples: int) -> None:
    """How a model answers."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--samples", type=positive_integer, default=samples, metavar="K", help=f"answers to each prompt ({samples})"
    )
    group.add_argument("--temperature", type=nonnegative_number, default=1.0, metavar="T", help="0 is greedy (1.0)")
    group.add_argument("--top-p", type=share, default=1.0, metavar="P", help="nucleus sampling; 1 is off (1.0)")
    group.add_argument("--max-new-tokens", type=positive_integer, default=256, metavar="N", help="longest answer (256)")
    group.add_argument("--seed", type=int, default=1, metavar="S", help="the same seed gives the same answers (1)")
    add_machine_options(group)


def add_machine_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Where a child computes."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (auto)")
    parser.add_argument("--threads", type=positive_integer, default=0, metavar="N", help="CPU threads (all)")


def workspace_of(args: argparse.Namespace, *, writable: bool = False) -> Workspace:
    """The workspace that the command means."""
    workspace = open_workspace(args.workspace)
    if writable:
        workspace.require_writable()
    return workspace


def pair_of_text(text: str, option: str, example: str) -> tuple[str, str]:
    """KEY=VALUE, split at the first "="."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"{option} {text!r}: expected KEY=VALUE, for example {option} {example}")
    return key.strip(), value


def positive_integer(text: str) -> int:
    """An argument that must be 1 or more."""
    return _number(text, int, lambda value: value >= 1, "a whole number, 1 or more")


def nonnegative_number(text: str) -> float:
    """An argument that must be 0 or more."""
    return _number(text, float, lambda value: 0 <= value < float("inf"), "a number, 0 or more")


def share(text: str) -> float:
    """An argument above 0 and up to 1."""
    return _number(text, float, lambda value: 0 < value <= 1, "a number above 0 and up to 1")


def share_or_none(text: str) -> float:
    """An argument from 0 up to, not including, 1."""
    return _number(text, float, lambda value: 0 <= value < 1, "a number from 0 up to, not including, 1")


def _number(text: str, kind: Callable[[str], Number], allowed: Callable[[Number], bool], expected: str) -> Number:
    try:
        value: Number | None = kind(text)
    except ValueError:
        value = None
    if value is None or not allowed(value):
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
    return value


def agreed(question: str, no_terminal: str) -> bool:
    """Ask on the terminal; where there is none a UsageError says `no_terminal`."""
    import sys

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(no_terminal)
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    note("Nothing was deleted.")
    return False
