"""`workbench arena`: the same prompts answered by two models, judged blindly, with a win rate."""

from __future__ import annotations

import argparse
from typing import Any

from workbench.command_arguments import add_sampling_options, add_verb, add_verbs, positive_integer, workspace_of
from workbench.command_pairs import add_export_options, add_judge_options, add_show_options, export_battles, list_sets
from workbench.errors import UsageError
from workbench.pair_words import judge, pair_set_json, say_made, show_pairs
from workbench.terminal_output import counted, number, write_fields, write_json

SCHEMA = 1


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `arena`."""
    verbs = add_verbs(parser)
    make = add_verb(verbs, "make", "let two models answer the same prompts", run_make)
    make.add_argument("name", metavar="N")
    make.add_argument("--models", required=True, metavar="M,M2", help="the two models")
    make.add_argument(
        "--prompts", required=True, metavar="D", help="a dataset, or a preference set (its held-out prompts)"
    )
    make.add_argument("--limit", type=positive_integer, default=0, metavar="N", help="ask only the first N prompts")
    add_sampling_options(make, samples=1)
    add_verb(verbs, "ls", "list the arenas", run_ls)
    show = add_verb(verbs, "show", "pairs as an annotator sees them", run_show)
    add_show_options(show)
    add_export_options(add_verb(verbs, "export", "write verdicts as Chatbot Arena battles", run_export))
    judging = add_verb(verbs, "judge", "give a verdict, take one back, or let the sample rule judge", run_judge)
    add_judge_options(judging)
    report = add_verb(verbs, "report", "the win rate of the first model over the second", run_report)
    report.add_argument("name", metavar="N")


def run_make(args: argparse.Namespace) -> int:
    """Ask both models and make the arena."""
    from workbench.command_models import note_too_long, sampling_of
    from workbench.pair_making import PairRequest, make_pair_set

    names = tuple(name.strip() for name in args.models.split(",") if name.strip())
    if len(names) != 2:
        raise UsageError(f"--models {args.models}: expected two models separated by a comma")
    sampling = sampling_of(args, samples=args.samples)
    request = PairRequest(
        args.name, kind="arena", prompts=args.prompts, models=names, sampling=sampling, limit=args.limit
    )
    made = make_pair_set(workspace_of(args, writable=True), request)
    note_too_long(made.info.source.get("prompts", {}))
    if args.json:
        write_json({"schema": SCHEMA, **pair_set_json(made)})
    else:
        say_made(made)
    return 0


def run_ls(args: argparse.Namespace) -> int:
    """List the arenas."""
    return list_sets(args, "arena")


def run_show(args: argparse.Namespace) -> int:
    """Show pairs without saying whose answers they are."""
    from workbench.pair_sets import open_pairs

    return show_pairs(open_pairs(workspace_of(args), args.name, "arena"), args)


def run_export(args: argparse.Namespace) -> int:
    """Write battles."""
    from workbench.pair_sets import open_pairs

    return export_battles(open_pairs(workspace_of(args), args.name, "arena"), args)


def run_judge(args: argparse.Namespace) -> int:
    """Judge."""
    from workbench.pair_sets import open_pairs

    return judge(open_pairs(workspace_of(args, writable=True), args.name, "arena"), args)


def run_report(args: argparse.Namespace) -> int:
    """Print the win rate."""
    from workbench.comparison import report
    from workbench.pair_sets import open_pairs

    found = report(open_pairs(workspace_of(args), args.name, "arena"))
    if args.json:
        write_json(found)
        return 0
    write_fields(report_fields(found))
    return 0


def report_fields(found: dict[str, Any]) -> dict[str, str]:
    """An arena's report as names and values."""
    rate = found["win_rate"]
    rules = " by the sample rule (synthetic)" if found["origins"] == ["rule"] else ""
    fields = {
        "arena": found["arena"],
        "models": f"{found['models'][0]} against {found['models'][1]}",
        "judged": f"{found['judged']:,} of {found['pairs']:,} pairs{rules}",
        "judged by": _judges(found),
        "identical": f"{counted(found['identical'], 'prompt')} got the same answer from both; each counts as a tie",
    }
    if not fields["judged by"]:
        del fields["judged by"]
    if not found["identical"]:
        del fields["identical"]
    if rate["rate"] is None:
        return fields | {"win rate": "nothing is judged yet"}
    how = "Wilson" if rate["method"] == "wilson" else f"bootstrap over {rate['clusters']} clusters"
    return fields | {
        "win rate": (
            f"{number(rate['rate'])} for the first, "
            f"95 % interval {number(rate['low'])} to {number(rate['high'])} ({how})"
        ),
        "counts": _counts(found),
    }


def _judges(found: dict[str, Any]) -> str:
    """Whose verdicts are mixed; empty where one annotator gave them all."""
    if len(found["annotators"]) < 2 and len(found["origins"]) < 2:
        return ""
    who = ", ".join(f"{name} ({count:,})" for name, count in found["annotators"].items())
    synthetic = "; some by the sample rule (synthetic)" if "rule" in found["origins"] and found["origins"][1:] else ""
    several = found["several_verdicts"]
    mean = f"; {counted(several, 'pair')} with several verdicts: the mean counts" if several else ""
    return who + synthetic + mean


def _counts(found: dict[str, Any]) -> str:
    """Wins, losses and ties, and what each is worth in the rate."""
    rate = found["win_rate"]
    pairs = (
        f"{counted(rate['wins'], 'win')}, {counted(rate['losses'], 'loss', 'losses')}, {counted(rate['ties'], 'tie')}"
    )
    if found["several_verdicts"]:
        return f"{pairs}, by each pair's mean (above a half is a win); the rate is the mean of these means"
    return f"{pairs} (a tie counts half)"
