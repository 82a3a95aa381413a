"""What the command line says of pairs and their verdicts, for pair sets and arenas alike.

Owns the words. Invariant: a pair is shown blind, without the source of its answers; verdicts made by the sample rule
are called synthetic wherever they are counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, cast

from workbench.errors import UsageError
from workbench.judgment_lines import Judgment
from workbench.judgments import Showing, Verdict
from workbench.label_form import OVERALL, STRONG
from workbench.pair_sets import Pair, PairSet
from workbench.pair_status import PairStatus
from workbench.terminal_output import counted, note, say, write_fields, write_json

SCHEMA = 1
NEARLY_ALL = 0.9
"""Share of ties from which a person is told that the sample rule had nothing to go by."""
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
    say(f"{made.name}  {counted(status.pairs, 'pair')}, {status.judged:,} judged")
    if made.info.identical_left_out:
        note(f"{made.info.identical_left_out:,} pairs were left out: both answers are the same.")
    if made.info.verdicts_left_out:
        left = counted(made.info.verdicts_left_out, "verdict")
        note(f"{left} of the data left out: they say which answer is better, and this set asks other questions.")
    if not status.open:
        return
    if made.kind == "pairs":
        note(f"Judge them: workbench label {made.name}")
    if made.form.asks_overall:
        rule = " (or --rule sample)" if of_sample_domain(made) else ""
        first = "Or by command" if made.kind == "pairs" else "Judge them"
        note(f"{first}: workbench {_command(made)} judge {made.name} --pair ID --verdict a --as WHO{rule}")


def of_sample_domain(made: PairSet) -> bool:
    """Whether the prompts come from the sample data, the only domain that the sample rule knows."""
    from workbench.dataset_store import open_dataset
    from workbench.preferences import open_preference_set

    known = _sample_hashes()
    todo: list[Any] = [made.info.source]
    while todo:
        source = todo.pop()
        if "origin" in source:
            if source.get("sha256") in known:
                return True
            continue
        name = source.get("prompts", {}).get("dataset", "")
        if name in made.workspace.names("datasets"):
            recorded = open_dataset(made.workspace, name).info.source
            todo.append({"origin": recorded.origin, "sha256": recorded.sha256})
        elif name in made.workspace.names("prefs"):
            todo += [one["candidates"] for one in open_preference_set(made.workspace, name).info.sources]
    return False


def _sample_hashes() -> set[str]:
    """sha256 of the files of the sample data, as they were published."""
    from sample_data import ROOT

    return {line.split()[0] for line in (ROOT / "SHA256SUMS").read_text("utf-8").splitlines() if line.strip()}


def _command(pair_set: PairSet) -> str:
    return "arena" if pair_set.kind == "arena" else "pairs"


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
        said = {"verdicts": [one._asdict() for one in _judgments_of(pair_set, pairs[0])]} if args.pair else {}
        write_json({"schema": SCHEMA, "name": pair_set.name, "pairs": [_blind(pair) | said for pair in pairs]})
        return 0
    if not pairs:
        note(f"{pair_set.name} has no open pair left.")
    for number, pair in enumerate(pairs):
        if number:
            say()
        write_fields(_pair_fields(pair) | (_verdicts_of(pair_set, pair) if args.pair else {}))
    return 0


def judge(pair_set: PairSet, args: argparse.Namespace) -> int:
    """Carry out one `judge` command."""
    if not pair_set.form.asks_overall:
        asked = ", ".join(one.name for one in pair_set.form.questions)
        raise UsageError(
            f"{pair_set.name} asks {asked}, and not which answer is better: workbench label {pair_set.name} asks them"
        )
    if args.rule:
        return _judge_by_rule(pair_set, args)
    if not args.pair or not args.annotator:
        what = "taking a verdict back" if args.undo else "a verdict"
        raise UsageError(f"{what} needs --pair ID and --as WHO")
    pair = pair_set.pair(args.pair)
    with pair_set.journal(args.annotator) as journal, _claimed(pair_set, pair, args.annotator):
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


@contextmanager
def _claimed(pair_set: PairSet, pair: Pair, annotator: str) -> Iterator[None]:
    """Hold the pair while it is judged, where the set has an overlap; UsageError where it has judges enough."""
    overlap = pair_set.sharing.overlap
    if not overlap or any(one.annotator == annotator and one.pair == pair.id for one in pair_set.judgments().first):
        yield
        return
    from workbench.claims import Claims

    claims = Claims(pair_set.folder, annotator, overlap)
    try:
        if not claims.choose([pair.id]):
            raise UsageError(
                f"pair {pair.id} is judged by, or before, as many people as {pair_set.name} wants ({overlap}); "
                "workbench pairs show lists the others, and label --adjudicate is for a third voice"
            )
        yield
    finally:
        claims.close()


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
    if report.judged and report.verdicts.get("tie", 0) >= NEARLY_ALL * report.judged:
        note(
            "The sample rule knows only the sample data's domain; elsewhere it finds no difference. "
            "workbench prefs freeze --annotators WHO leaves its verdicts out."
        )
    return 0


def _pair_fields(pair: Pair) -> dict[str, str]:
    from workbench.command_data import readable

    tags = {name: value for name, value in pair.tags.items() if not name.startswith("stopped_")}
    fields = {"pair": pair.id, "prompt": readable(pair.prompt), "a": readable(pair.a), "b": readable(pair.b)}
    return fields | ({"tags": readable(tags)} if tags else {})


def _judgments_of(pair_set: PairSet, pair: Pair) -> list[Judgment]:
    return [one for showing, one in pair_set.judgments().current.items() if showing.pair == pair.id]


def _verdicts_of(pair_set: PairSet, pair: Pair) -> dict[str, str]:
    """Who said what of one pair, with the comments."""
    found = _judgments_of(pair_set, pair)
    lines = [f"{one.annotator}: {said_words(one)}" for one in found]
    return {"verdicts": "\n".join(lines)} if lines else {}


def said_words(judgment: Judgment) -> str:
    """a much better on honest (flagged; too long; a comment; wrote: …)."""
    words = WORDS.get(judgment.verdict, judgment.verdict)
    if judgment.strength >= STRONG:
        words = words.replace("better", "much better")
    if judgment.criterion != OVERALL:
        words += f" on {judgment.criterion}"
    added = ["flagged" if judgment.flagged else "", *judgment.tags, judgment.comment]
    added.append(f"wrote: {judgment.better}" if judgment.better else "")
    notes = "; ".join(one for one in added if one)
    return words + (f" ({notes})" if notes else "")


def _blind(pair: Pair) -> dict[str, Any]:
    return {"id": pair.id, "prompt": pair.prompt, "a": pair.a, "b": pair.b, "group": pair.group, "tags": pair.tags}
