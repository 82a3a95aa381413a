"""`workbench data lint`: what is wrong in a dataset, where, and what to do; and a new dataset without it."""

from __future__ import annotations

import argparse

from workbench.command_arguments import add_verb, positive_integer, workspace_of
from workbench.errors import UsageError
from workbench.lint_findings import KINDS, Finding, LintReport, kinds_named
from workbench.terminal_output import Progress, counted, note, say, write_json

FOUND = 1
PLACES_NAMED = 6


def configure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `lint` to the verbs of `data`."""
    parser = add_verb(verbs, "lint", "what is wrong in a dataset, in which rows, and what to do about it", run_lint)
    parser.description = (
        "Look for what one wants to know before training: rows that come again, contradict, leak or cannot be used, "
        "broken turns, answers that length or truncation decides, control characters, keys and addresses. Exit code 1 "
        "where something is found. Nothing is changed in place.\n\nfindings: " + ", ".join(KINDS)
    )
    parser.add_argument("name", metavar="N", help="a dataset or a preference set")
    parser.add_argument("--side", choices=("train", "eval"), help="of a preference set (train)")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="OTHER",
        help="whose prompts must not be here; may be repeated",
    )
    parser.add_argument("--model", metavar="M", help="also what its tokenizer and chat template make of the rows")
    parser.add_argument("--max-length", type=positive_integer, metavar="N", help="tokens, as data.max_length (1024)")
    parser.add_argument("--only", metavar="KIND[,KIND]", help="look for these alone")
    parser.add_argument(
        "--rows", type=positive_integer, default=PLACES_NAMED, metavar="K", help="rows to name each (6)"
    )
    parser.add_argument("--drop", metavar="KIND[,KIND]", help="make a new dataset without these rows; needs --to")
    parser.add_argument("--to", metavar="NEW", help="the new dataset's name")


def run_lint(args: argparse.Namespace) -> int:
    """Report what is found; with --drop make a dataset without it."""
    from workbench.lint import lint
    from workbench.lint_dropping import drop_found, require_droppable
    from workbench.lint_tokens import MAX_LENGTH

    workspace = workspace_of(args, writable=bool(args.drop))
    drop = kinds_named(args.drop, "--drop", of_rows=True) if args.drop else ()
    only = kinds_named(args.only, "--only") if args.only else ()
    _check(args, drop, only)
    if drop:
        require_droppable(workspace, args.name, args.to)
    progress = Progress(f"linting {args.name}")
    try:
        report = lint(
            workspace,
            args.name,
            side=args.side,
            against=args.against,
            model=args.model or "",
            max_length=args.max_length or MAX_LENGTH,
            only=only,
            progress=lambda done, total: progress.update(done, total, f"of {total:,} rows"),
        )
        made = drop_found(workspace, report, drop, args.to) if drop else None
    finally:
        progress.close()
    if args.json:
        extra = {"made": made.name, "made_rows": made.info.rows} if made else {}
        write_json({**report.as_json(), **extra})
    else:
        _say_report(report, args.rows)
        if made:
            say(f"{made.name}  {counted(made.info.rows, 'row')} without {', '.join(drop)}")
    return 0 if made or not report.findings else FOUND


def _check(args: argparse.Namespace, drop: tuple[str, ...], only: tuple[str, ...]) -> None:
    if bool(args.drop) != bool(args.to):
        raise UsageError("--drop KIND and --to NEW go together: rows are dropped into a new dataset.")
    if args.max_length and not args.model:
        raise UsageError("--max-length counts tokens, so it needs --model M, whose tokens are counted.")
    if only and (left := [kind for kind in drop if kind not in only]):
        raise UsageError(f"--drop {left[0]} is not among --only {args.only}.")


def _say_report(report: LintReport, places: int) -> None:
    say(f"{report.name}: {counted(report.rows, 'row')}, {report.usable:,} of them usable")
    for finding in report.findings:
        say()
        _say_finding(finding, report.place, places)
    if not report.findings:
        say("nothing was found")
    why: dict[str, list[str]] = {}
    for kind, reason in report.not_looked_for.items():
        why.setdefault(reason, []).append(kind)
    for reason, kinds in why.items():
        if reason != "not asked for":
            note(f"not looked for: {', '.join(kinds)} ({reason})")


def _say_finding(finding: Finding, place: str, places: int) -> None:
    of_rows = KINDS[finding.kind].of_rows
    say(f"{finding.kind}  " + (f"{counted(finding.count, 'row')}: " if of_rows else "") + finding.title)
    if len(finding.details) > 1 or not of_rows:
        for detail, count in finding.details.items():
            say(f"    {count:,} × {detail}" if of_rows else f"    {detail}")
    for row in finding.rows[:places]:
        say(f"    {place} {row.number:>8,}  {row.detail}")
    if finding.count > places and of_rows:
        say(f"    {'…':>{len(place) + 9}}  and {finding.count - min(places, len(finding.rows)):,} more")
    say(f"    → {finding.remedy}")
