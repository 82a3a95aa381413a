"""What the command line says of pairs and their verdicts, for pair sets and arenas alike.

Owns the words. Invariant: a pair is shown blind, without the source of its answers; verdicts made by the sample rule
are called synthetic wherever they are counted.
"""

from __future__ import annotations

import argparse
from itertools import islice
from typing import Any, cast

from workbench.errors import UsageError
from workbench.judgments import Showing, Verdict
from workbench.pair_sets import Pair, PairSet, PairStatus
from workbench.terminal_output import note, say, write_fields, write_json

SCHEMA = 1
WORDS = {"a": "a better", "b": "b better", "tie": "tie", "both_bad": "both bad", "skip": "skipped"}
ORIGINS = {
    "rule": "by the sample rule (synthetic)",
    "imported": "came with the data",
    "typed": "typed here",
    "screen": "given on the label screen",
}


def say_made(made: PairSet) -> None:
    """What a new pair set holds."""
    status = made.status()
    say(f"{made.name}  {status.pairs:,} pairs, {status.judged:,} judged")
    if made.info.identical_left_out:
        note(f"{made.info.identical_left_out:,} pairs were left out: both answers are the same.")
    if status.open:
        command = "arena" if made.kind == "arena" else "pairs"
        note(f"Judge them: workbench {command} judge {made.name} --pair ID --verdict a --as WHO (or --rule sample)")


def status_fields(pair_set: PairSet, status: PairStatus) -> dict[str, str]:
    """The state of a pair set as names and values."""
    fields = {
        pair_set.kind.removesuffix("s") if pair_set.kind == "arena" else "pair set": pair_set.name,
        "pairs": f"{status.pairs:,}",
        "judged": f"{status.judged:,}",
        "open": f"{status.open:,}",
        "skipped": f"{status.skipped:,}" if status.skipped else "",
        "verdicts": ", ".join(f"{count:,} {WORDS.get(v, v)}" for v, count in sorted(status.verdicts.items())),
        "from": ", ".join(f"{count:,} {ORIGINS.get(o, o)}" for o, count in sorted(status.by_origin.items())),
        "annotators": ", ".join(f"{who} {count:,}" for who, count in sorted(status.by_annotator.items())),
        "undone": f"{status.undone:,}" if status.undone else "",
        "conflicts": f"{status.conflicts:,}: two programs wrote under one name" if status.conflicts else "",
        "faults": "\n".join(status.faults[:10]),
        "note": pair_set.info.note,
    }
    return {name: value for name, value in fields.items() if value}


def pair_set_json(pair_set: PairSet, status: PairStatus | None = None) -> dict[str, Any]:
    """A pair set for a program."""
    return {
        "name": pair_set.name,
        "kind": pair_set.kind,
        **pair_set.info.__dict__,
        "status": (status or pair_set.status()).__dict__,
    }


def show_pairs(pair_set: PairSet, args: argparse.Namespace) -> int:
    """Print pairs, blind."""
    if args.pair:
        pairs = [pair_set.pair(args.pair)]
    else:
        judged = {showing.pair for showing in pair_set.judgments().current} if args.open else set()
        pairs = list(islice((pair for pair in pair_set.pairs() if pair.id not in judged), args.rows))
    if args.json:
        write_json({"schema": SCHEMA, "name": pair_set.name, "pairs": [_blind(pair) for pair in pairs]})
        return 0
    if not pairs:
        note(f"{pair_set.name} has no open pair left.")
    for number, pair in enumerate(pairs):
        if number:
            say()
        write_fields(_pair_fields(pair))
    return 0


def judge(pair_set: PairSet, args: argparse.Namespace) -> int:
    """Carry out one `judge` command."""
    if args.rule:
        return _judge_by_rule(pair_set, args)
    if not args.pair or not args.annotator:
        raise UsageError("a verdict needs --pair ID and --as WHO")
    pair = pair_set.pair(args.pair)
    with pair_set.journal(args.annotator) as journal:
        if args.undo:
            journal.undo(Showing(pair.id, args.annotator))
            verdict = "undone"
        else:
            verdict = args.verdict.replace("-", "_")
            journal.append(pair.id, cast(Verdict, verdict), origin="typed", order="ab", comment=args.comment)
    if args.json:
        write_json({"schema": SCHEMA, "pair": pair.id, "annotator": args.annotator, "verdict": verdict})
    else:
        say(f"{pair.id}  {WORDS.get(verdict, verdict)}")
    return 0


def _judge_by_rule(pair_set: PairSet, args: argparse.Namespace) -> int:
    from workbench.rule_annotator import judge_by_rule

    if args.pair or args.comment:
        raise UsageError("--rule judges every open pair; --pair and --comment go with --verdict")
    report = judge_by_rule(pair_set, annotator=args.annotator) if args.annotator else judge_by_rule(pair_set)
    if args.json:
        write_json({"schema": SCHEMA, "name": pair_set.name, **report.__dict__})
        return 0
    counts = ", ".join(f"{count:,} {WORDS.get(verdict, verdict)}" for verdict, count in sorted(report.verdicts.items()))
    say(f"{pair_set.name}  {report.judged:,} judged by the sample rule (synthetic){': ' if counts else ''}{counts}")
    return 0


def _pair_fields(pair: Pair) -> dict[str, str]:
    from workbench.command_data import readable

    tags = {name: value for name, value in pair.tags.items() if not name.startswith("stopped_")}
    fields = {"pair": pair.id, "prompt": readable(pair.prompt), "a": readable(pair.a), "b": readable(pair.b)}
    return fields | ({"tags": readable(tags)} if tags else {})


def _blind(pair: Pair) -> dict[str, Any]:
    return {"id": pair.id, "prompt": pair.prompt, "a": pair.a, "b": pair.b, "group": pair.group, "tags": pair.tags}
