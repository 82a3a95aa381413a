"""`workbench pairs`: make pairs, judge them, see how far they are judged."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.command_arguments import (
    add_machine_options,
    add_sampling_options,
    add_verb,
    add_verbs,
    positive_integer,
    share,
    share_or_none,
    workspace_of,
)
from workbench.command_label import add_form_options, form_from
from workbench.errors import UsageError
from workbench.pair_words import judge, pair_set_json, say_made, show_pairs, status_fields
from workbench.terminal_output import Column, counted, local_time, note, say, write_fields, write_json, write_table

if TYPE_CHECKING:
    from workbench.pair_making import PairRequest
    from workbench.pair_sets import PairSet
    from workbench.pair_sharing import Sharing

SCHEMA = 1
VERDICTS = ("a", "b", "tie", "both-bad", "skip")


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pairs`."""
    verbs = add_verbs(parser)
    make = add_verb(verbs, "make", "make a pair set from a dataset, or from the answers of models", run_make)
    make.add_argument("name", metavar="N")
    source = make.add_mutually_exclusive_group(required=True)
    source.add_argument("--from", dest="dataset", metavar="DATASET", help="of shape preference or answers")
    source.add_argument(
        "--prompts", metavar="D", help="prompts for a model to answer, of a dataset or a preference set"
    )
    make.add_argument("--model", metavar="M", help="who answers; or url:http://HOST/v1#NAME, a model behind a URL")
    make.add_argument("--model2", metavar="M2", help="a second model: its answers stand beside the first one's")
    make.add_argument(
        "--pairing", choices=("each", "all", "best-worst"), default="each",
        help="which answers become a pair: one from each model (of one model two by two), all with all, or the best "
        "with the worst by --reward-model (each)",
    )  # fmt: skip
    make.add_argument("--reward-model", metavar="M", help="who says which answer is best, for --pairing best-worst")
    make.add_argument("--limit", type=positive_integer, default=0, metavar="N", help="ask only the first N prompts")
    add_form_options(make)
    add_sharing_options(make)
    add_sampling_options(make, samples=2)
    add_verb(verbs, "ls", "list the pair sets", run_ls)
    show = add_verb(verbs, "show", "pairs as an annotator sees them", run_show)
    add_show_options(show)
    status = add_verb(verbs, "status", "how far a pair set is judged, by whom and how alike", run_status)
    status.add_argument("name", metavar="N")
    agreement = add_verb(verbs, "agreement", "how far annotators agree, with each other and themselves", run_agreement)
    agreement.add_argument("name", metavar="N")
    rank = add_verb(verbs, "rank", "find the hard pairs, for a set made with --next active", run_rank)
    rank.add_argument("name", metavar="N")
    by = rank.add_mutually_exclusive_group(required=True)
    by.add_argument("--model", metavar="M", help="a reward model; or a tuned model, with --reference")
    by.add_argument("--votes", action="store_true", help="the annotators so far: where they disagree most")
    rank.add_argument("--reference", metavar="M", help="what the model was tuned from: its implicit reward ranks")
    add_machine_options(rank)
    export = add_verb(verbs, "export", "write verdicts as Chatbot Arena battles, with their models", run_export)
    add_export_options(export)
    keyline = add_verb(verbs, "keyline", "the line that lets a person label this set over SSH", run_keyline)
    keyline.add_argument("name", metavar="N")
    keyline.add_argument("annotator", metavar="WHO", help="under whose name")
    keyline.add_argument("--key", metavar="FILE", help="their public key (id_ed25519.pub), to complete the line")
    keyline.add_argument("--account", metavar="NAME", default="", help="their account on this machine, for sudo (WHO)")
    judging = add_verb(verbs, "judge", "give a verdict, take one back, or let the sample rule judge", run_judge)
    add_judge_options(judging)


def add_sharing_options(parser: argparse.ArgumentParser) -> None:
    """How a new set is shared out among annotators."""
    group = parser.add_argument_group("several annotators")
    group.add_argument(
        "--overlap", type=positive_integer, default=0, metavar="K",
        help="K people judge each pair, and none is shown to more at once (everyone judges every pair)",
    )  # fmt: skip
    group.add_argument(
        "--repeat-share", type=share_or_none, default=0.0, metavar="S",
        help="share of pairs that return once, swapped, to the same person (0)",
    )  # fmt: skip
    group.add_argument(
        "--calibration", metavar="FILE", help="pairs with known answers (prompt, chosen, rejected), mixed in unseen"
    )
    group.add_argument(
        "--next", dest="next_pair", choices=("order", "random", "active"), default="order",
        help="which pair comes next: as the set lies, shuffled, or the smallest margin first (order)",
    )  # fmt: skip
    group.add_argument(
        "--random-share",
        type=share,
        default=0.2,
        metavar="S",
        help="with active: share of random pairs (0.2)",
    )


def sharing_of(args: argparse.Namespace) -> Sharing:
    """How the options want a set shared out."""
    from workbench.pair_sharing import Sharing

    return Sharing(args.overlap, args.repeat_share, args.next_pair, args.random_share)


def add_show_options(parser: argparse.ArgumentParser) -> None:
    """Which pairs to show; shared with `arena show`."""
    parser.add_argument("name", metavar="N")
    parser.add_argument("--pair", metavar="ID", help="this pair (a beginning of its ID will do)")
    parser.add_argument("--rows", type=positive_integer, default=3, metavar="K", help="pairs to show (3)")
    parser.add_argument("--open", action="store_true", help="only pairs without a verdict")


def add_judge_options(parser: argparse.ArgumentParser) -> None:
    """How to judge; shared with `arena judge`."""
    parser.add_argument("name", metavar="N")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--rule", choices=("sample",), help="the sample data's own rule judges every open pair (synthetic)"
    )
    how.add_argument("--verdict", choices=VERDICTS, help="which answer is better")
    how.add_argument("--undo", action="store_true", help="take this annotator's verdict back")
    parser.add_argument("--pair", metavar="ID", help="the pair (a beginning of its ID will do)")
    parser.add_argument("--as", dest="annotator", metavar="WHO", help="whose verdict it is")
    parser.add_argument("--comment", default="", metavar="TEXT", help="kept with the verdict")


def run_make(args: argparse.Namespace) -> int:
    """Make a pair set."""
    from workbench.command_models import note_too_long
    from workbench.pair_making import make_pair_set

    if args.dataset and (args.model or args.model2):
        raise UsageError("--from takes the answers of the dataset; --model goes with --prompts")
    if args.dataset and (args.pairing != "each" or args.reward_model):
        raise UsageError("--from takes the pairs of the dataset; --pairing and --reward-model go with --prompts")
    if args.dataset and args.limit:
        raise UsageError("--from takes every pair of the dataset; --limit goes with --prompts")
    made = make_pair_set(workspace_of(args, writable=True), _request_of(args))
    note_too_long(made.info.source.get("prompts", {}))
    if args.json:
        write_json({"schema": SCHEMA, **pair_set_json(made)})
    else:
        say_made(made)
    return 0


def run_ls(args: argparse.Namespace) -> int:
    """List the pair sets."""
    return list_sets(args, "pairs")


def list_sets(args: argparse.Namespace, kind: str) -> int:
    """List pair sets or arenas."""
    from workbench.pair_sets import list_pairs

    sets, problems = list_pairs(workspace_of(args), "arena" if kind == "arena" else "pairs")
    for problem in problems:
        note(problem)
    statuses = [(one, one.status()) for one in sets]
    if args.json:
        write_json({"schema": SCHEMA, kind: [pair_set_json(one, status) for one, status in statuses]})
        return 0
    columns = [
        Column(kind), Column("pairs", right=True), Column("judged", right=True), Column("open", right=True),
        Column("made", shrinks=True), Column("note", shrinks=True),
    ]  # fmt: skip
    rows = [
        [one.name, f"{s.pairs:,}", f"{s.judged:,}", f"{s.open:,}", local_time(one.info.created), one.info.note]
        for one, s in statuses
    ]
    empty = "No arenas yet. Make one: workbench arena make N --models M,M2 --prompts DATASET"
    write_table(
        columns,
        rows,
        empty=empty if kind == "arena" else "No pairs yet. Make some: workbench pairs make N --from DATASET",
    )
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Show pairs without saying where their answers come from."""
    from workbench.pair_sets import open_pairs

    return show_pairs(open_pairs(workspace_of(args), args.name), args)


def run_status(args: argparse.Namespace) -> int:
    """Count what is judged, and by whom."""
    from workbench.annotator_report import report_of
    from workbench.annotator_words import write_report
    from workbench.pair_sets import open_pairs

    pair_set = open_pairs(workspace_of(args), args.name)
    status, people = pair_set.status(), report_of(pair_set)
    if args.json:
        write_json({"schema": SCHEMA, **pair_set_json(pair_set, status), **people.as_json()})
    else:
        write_fields(status_fields(pair_set, status))
        say()
        write_report(people)
    return 0


def run_agreement(args: argparse.Namespace) -> int:
    """Only how far people agree."""
    from workbench.annotator_report import report_of
    from workbench.annotator_words import write_agreement
    from workbench.pair_sets import open_pairs

    pair_set = open_pairs(workspace_of(args), args.name)
    report = report_of(pair_set)
    if args.json:
        write_json({"schema": SCHEMA, "name": pair_set.name, **report.as_json()})
    elif any(one.nominal.units for one in report.criteria):
        write_agreement(report)
    else:
        note("No pair has the verdicts of two people yet, so there is nothing to compare.")
    return 0


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """What `pairs export` and `arena export` take."""
    parser.add_argument("name", metavar="N")
    parser.add_argument("--to", metavar="FILE", required=True, help="a new file: .jsonl has lines, .json an array")
    parser.add_argument("--criterion", default="", metavar="NAME", help="of a set with several questions (the first)")


def export_battles(pair_set: PairSet, args: argparse.Namespace) -> int:
    """Write the verdicts of a pair set or arena as battles."""
    from workbench.battle_export import battles
    from workbench.preference_export import write_lines, write_new

    path = Path(args.to).absolute()
    if path.suffix not in (".json", ".jsonl"):
        raise UsageError(f"{path}: battles are written as .jsonl (lines) or .json (one array).")
    rows = list(battles(pair_set, args.criterion))
    if not rows:
        raise UsageError(f"{pair_set.name} has no verdicts yet, so there are no battles to write.")
    count = write_new(path, lambda aside: write_lines(aside, rows, as_array=path.suffix == ".json"))
    note(f"{counted(count, 'battle')} written to {args.to}, with the models' names.")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write battles."""
    from workbench.pair_sets import open_pairs

    return export_battles(open_pairs(workspace_of(args), args.name), args)


def run_rank(args: argparse.Namespace) -> int:
    """Rank pairs by how hard they are."""
    from workbench.model_names import resolve_model
    from workbench.pair_ranking import rank_by_model, rank_by_votes
    from workbench.pair_sets import open_pairs

    workspace = workspace_of(args, writable=True)
    pair_set = open_pairs(workspace, args.name)
    dropped: dict[str, int] = {}
    if args.votes:
        ranked = rank_by_votes(pair_set)
    else:
        model, reference = (resolve_model(workspace, one) if one else None for one in (args.model, args.reference))
        assert model is not None
        ranked, dropped = rank_by_model(pair_set, model, reference, device=args.device, threads=args.threads)
    if args.json:
        write_json({"schema": SCHEMA, "name": pair_set.name, "ranked": ranked, "not_measured": dropped})
        return 0
    say(f"{pair_set.name}  {counted(ranked, 'pair')} ranked")
    for reason, count in dropped.items():
        note(f"{counted(count, 'pair')} not measured: {reason}")
    if pair_set.sharing.next_pair != "active":
        note(
            f"{pair_set.name} shows its pairs in another order ({pair_set.sharing.next_pair}); make one --next active."
        )
    return 0


def run_keyline(args: argparse.Namespace) -> int:
    """Print the lines that let an annotator in."""
    import getpass

    from workbench.keyline import PLACE_FOR_THE_KEY, authorized_keys_line, read_public_key, sudo_lines
    from workbench.pair_sets import open_pairs

    pair_set = open_pairs(workspace_of(args), args.name)
    key = read_public_key(Path(args.key)) if args.key else ""
    line = authorized_keys_line(pair_set, args.annotator, key)
    rule, typed = sudo_lines(pair_set, args.annotator, args.account or args.annotator, getpass.getuser())
    if args.json:
        write_json({"schema": SCHEMA, "authorized_keys": line, "sudoers": rule, "command": typed})
        return 0
    print(line)
    if not key:
        note(f"It is not complete: put their public key in the place of {PLACE_FOR_THE_KEY}{args.annotator}, or --key.")
    if os.geteuid() == 0:
        note("This account is root: whoever found a way out of the label screen would be, too. Use one of its own.")
    note("That is one line for ~/.ssh/authorized_keys of the account that owns this workspace.")
    note("With an account of their own, instead, in sudoers (visudo -f /etc/sudoers.d/workbench):")
    note(f"  {rule}")
    note(f"and they type: {typed}")
    return 0


def run_judge(args: argparse.Namespace) -> int:
    """Judge."""
    from workbench.pair_sets import open_pairs

    return judge(open_pairs(workspace_of(args, writable=True), args.name), args)


def _request_of(args: argparse.Namespace) -> PairRequest:
    from workbench.command_models import sampling_of
    from workbench.generation import Sampling
    from workbench.pair_making import PairRequest

    samples = 1 if args.model2 and args.samples == 2 else args.samples
    return PairRequest(
        name=args.name,
        dataset=args.dataset or "",
        prompts=args.prompts or "",
        models=tuple(written for written in (args.model, args.model2) if written),
        sampling=Sampling() if args.dataset else sampling_of(args, samples=samples),
        limit=args.limit,
        pairing=args.pairing,
        reward_model=args.reward_model or "",
        form=form_from(args),
        sharing=sharing_of(args),
        calibration=args.calibration or "",
    )
