"""`workbench prefs`: freeze verdicts into preference sets, list, show and export them."""

from __future__ import annotations

import argparse
from itertools import islice
from typing import TYPE_CHECKING, Any

from workbench.command_arguments import add_verb, add_verbs, positive_integer, share_or_none, workspace_of
from workbench.errors import UsageError
from workbench.terminal_output import Column, counted, local_time, note, say, write_fields, write_json, write_table

if TYPE_CHECKING:
    from workbench.preferences import PreferenceSet

SCHEMA = 1
CAUSES = {
    "ties": "ties",
    "both_bad": "both bad",
    "undecided": "undecided",
    "skipped": "skipped",
    "unjudged": "not judged",
    "identical": "with equal answers",
    "conflicts": "with conflicting lines",
}


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `prefs`."""
    verbs = add_verbs(parser)
    freeze = add_verb(verbs, "freeze", "freeze the verdicts of pair sets into a preference set", run_freeze)
    freeze.add_argument("pairs", nargs="+", metavar="N", help="pair sets")
    freeze.add_argument("--to", required=True, metavar="P", help="the new preference set")
    freeze.add_argument(
        "--ties", choices=("drop", "abstain"), default="drop",
        help="drop: a pair that ties win is left out; abstain: a tie is no vote (drop)",
    )  # fmt: skip
    freeze.add_argument(
        "--overlap", choices=("majority", "all", "each"), default="majority",
        help="several verdicts on a pair: most votes win, all must agree, or a weighted row for each side (majority)",
    )  # fmt: skip
    freeze.add_argument("--min-agreement", type=float, default=0.0, metavar="X", help="least share of the winner (0)")
    freeze.add_argument(
        "--adjudication", choices=("decides", "ignore"), default="decides",
        help="where votes differ, a third voice (label --adjudicate) stands for them (decides)",
    )  # fmt: skip
    freeze.add_argument("--annotators", default="", metavar="WHO,WHO", help="whose verdicts count (everyone's)")
    freeze.add_argument(
        "--criterion", default="", metavar="C",
        help="the question that counts, or a combination by weight: helpful:2,honest:1 (the only question of a set)",
    )  # fmt: skip
    freeze.add_argument(
        "--margins", choices=("strength", "none"), default="strength",
        help="a row's margin: the mean strength of its verdicts where the scale has strengths, or none (strength)",
    )  # fmt: skip
    freeze.add_argument(
        "--written", choices=("chosen", "ignore"), default="chosen",
        help="answers that annotators wrote become chosen, or are ignored (chosen)",
    )  # fmt: skip
    freeze.add_argument("--sft", default="", metavar="NAME", help="also a dataset of the written answers, for SFT")
    freeze.add_argument("--eval-share", type=share_or_none, default=0.1, metavar="S", help="prompts held out (0.1)")
    freeze.add_argument("--seed", type=int, default=0, metavar="S", help="of the split by prompt (0)")
    add_verb(verbs, "ls", "list the preference sets", run_ls)
    show = add_verb(verbs, "show", "where a preference set comes from, its rule, and its first rows", run_show)
    show.add_argument("name", metavar="P")
    show.add_argument("--rows", type=positive_integer, default=1, metavar="K", help="rows to show (1)")
    export = add_verb(verbs, "export", "write prompt, chosen and rejected to a file or stdout", run_export)
    export.add_argument("name", metavar="P")
    export.add_argument("--to", metavar="FILE", help="a new file, or a folder for datasets; without it lines on stdout")
    export.add_argument(
        "--format", choices=("jsonl", "parquet", "datasets", "kto", "openai"),
        help="of TRL: lines, Parquet, a saved dataset, or KTO's unpaired lines; openai: its fine-tuning's preferences",
    )  # fmt: skip
    export.add_argument("--split", choices=("train", "eval"), help="one side (both)")


def run_freeze(args: argparse.Namespace) -> int:
    """Freeze."""
    from workbench.preference_rule import FreezeRule, criterion_of
    from workbench.preferences import freeze
    from workbench.written_answers import add_written, require_free

    workspace = workspace_of(args, writable=True)
    if args.sft:
        require_free(workspace, args.sft)
    rule = FreezeRule(
        ties=args.ties,
        overlap=args.overlap,
        min_agreement=args.min_agreement,
        annotators=tuple(filter(None, (who.strip() for who in args.annotators.split(",")))),
        margins=args.margins,
        written=args.written,
        adjudication=args.adjudication,
        eval_share=args.eval_share,
        seed=args.seed,
        **criterion_of(args.criterion),
    )
    frozen = freeze(workspace, args.pairs, args.to, rule)
    made = add_written(frozen, args.sft) if args.sft else None
    if args.json:
        sft = {"sft": {"dataset": made.name, "rows": made.info.rows}} if made else {}
        write_json({"schema": SCHEMA, **_as_json(frozen), **sft})
        return 0
    counts = frozen.info.counts
    say(f"{frozen.name}  {counted(counts['train'], 'row')} to train on, {counts['eval']:,} held out")
    left_out = _left_out(counts)
    if left_out:
        note(f"left out: {left_out}")
    if frozen.info.written:
        note(f"{counted(frozen.info.written, 'pair')} with a written answer, which is chosen")
    if frozen.info.adjudicated:
        note(f"{counted(frozen.info.adjudicated, 'pair')} decided by a third voice")
    if made:
        say(f"{made.name}  {counted(made.info.rows, 'written answer')} for SFT")
    if faults := [fault for source in frozen.info.sources for fault in source["faults"]]:
        note(f"lines of journals that could not be used: {'; '.join(faults[:3])}{' …' if len(faults) > 3 else ''}")
    if frozen.info.origins.get("rule"):
        note(f"{frozen.info.origins['rule']:,} of the verdicts were made by the sample rule (synthetic)")
    return 0


def run_ls(args: argparse.Namespace) -> int:
    """List the preference sets."""
    from workbench.preferences import list_preference_sets

    sets, problems = list_preference_sets(workspace_of(args))
    for problem in problems:
        note(problem)
    if args.json:
        write_json({"schema": SCHEMA, "preference_sets": [_as_json(one) for one in sets]})
        return 0
    columns = [
        Column("preference set"), Column("train", right=True), Column("held out", right=True),
        Column("from", shrinks=True), Column("frozen", shrinks=True),
    ]  # fmt: skip
    rows = [
        [
            one.name, f"{one.info.counts['train']:,}", f"{one.info.counts['eval']:,}",
            ", ".join(source["name"] for source in one.info.sources), local_time(one.info.created),
        ]
        for one in sets
    ]  # fmt: skip
    write_table(columns, rows, empty="No preference sets yet. Freeze one: workbench prefs freeze PAIRS --to P")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Describe one preference set."""
    from workbench.command_data import readable
    from workbench.preferences import open_preference_set

    frozen = open_preference_set(workspace_of(args), args.name)
    rows = list(islice(frozen.rows("train"), args.rows))
    if args.json:
        write_json({"schema": SCHEMA, **_as_json(frozen), "first_rows": rows})
        return 0
    info = frozen.info
    rule = ", ".join(f"{name} {value}" for name, value in info.rule.to_toml().items() if value not in ("", [], {}))
    fields = {
        "preference set": frozen.name,
        "rows": f"{info.counts['train']:,} to train on, {info.counts['eval']:,} held out",
        "left out": _left_out(info.counts) or "none",
        "rule": rule,
        "from": "\n".join(
            f"{s['name']}, {counted(s['pairs'], 'pair')}, {counted(len(s['journals']), 'journal')}"
            for s in info.sources
        ),
        "written": f"{info.written:,} answers" if info.written else "",
        "verdicts": ", ".join(f"{count:,} {_origin(origin)}" for origin, count in info.origins.items()),
        "sha256": info.content_sha256,
        "frozen": local_time(info.created),
        "note": info.note,
    }
    write_fields({name: value for name, value in fields.items() if value})
    for row in rows:
        say()
        write_fields(
            {name: readable(row[name]) for name in ("id", "prompt", "chosen", "rejected", "tags") if row[name]}
        )
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write the rows in TRL's columns."""
    from workbench.preference_export import export, export_rows
    from workbench.preferences import open_preference_set

    frozen = open_preference_set(workspace_of(args), args.name)
    if args.to:
        count = export(frozen, args.to, args.split, args.format)
        note(f"{counted(count, 'row')} written to {args.to}.")
        return 0
    if args.format in ("parquet", "datasets"):
        raise UsageError(f"--format {args.format} needs --to; stdout gets JSON lines")
    from workbench.terminal_output import json_line

    for row in export_rows(frozen, args.split, args.format if args.format in ("kto", "openai") else "trl"):
        print(json_line(row))
    return 0


def _left_out(counts: dict[str, int]) -> str:
    words = CAUSES | ({"ties": "tie"} if counts.get("ties") == 1 else {})
    return ", ".join(f"{counts[cause]:,} {word}" for cause, word in words.items() if counts.get(cause))


def _origin(origin: str) -> str:
    from workbench.pair_words import ORIGINS

    return ORIGINS.get(origin, origin)


def _as_json(frozen: PreferenceSet) -> dict[str, Any]:
    fields = {name: value for name, value in frozen.info.__dict__.items() if name != "rule"}
    return {"name": frozen.name, "rule": frozen.info.rule.to_toml(), **fields}
