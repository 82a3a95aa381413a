"""`workbench models`, `generate` and `eval`: what can be named after --model, and what it answers and scores."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.command_arguments import (
    add_machine_options,
    add_sampling_options,
    add_usual_options,
    positive_integer,
    workspace_of,
)
from workbench.errors import NotFound, UsageError
from workbench.terminal_output import Column, counted, note, number, say, write_fields, write_json, write_table

if TYPE_CHECKING:
    from workbench.generation import Sampling
    from workbench.model_names import ResolvedModel
    from workbench.workspace import Workspace

SCHEMA = 1


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of one of these commands."""
    add_usual_options(parser)
    if command == "models":
        parser.set_defaults(action=run_models)
    elif command == "generate":
        parser.add_argument("--model", required=True, metavar="M", help="who answers")
        parser.add_argument(
            "--prompts", required=True, metavar="D", help="a dataset, or a preference set (its held-out prompts)"
        )
        parser.add_argument("--to", required=True, metavar="N", help="the new dataset of prompts and answers")
        parser.add_argument(
            "--limit", type=positive_integer, default=0, metavar="N", help="ask only the first N prompts"
        )
        add_sampling_options(parser, samples=1)
        parser.set_defaults(action=run_generate)
    else:
        parser.add_argument("model", metavar="M")
        parser.add_argument("--on", required=True, metavar="D", help="a dataset or a preference set")
        parser.add_argument(
            "--reward", action="store_true", help="M is a reward model: what it gives to each answer of D"
        )
        parser.add_argument("--to", metavar="N", help="with --reward: keep the rows and their rewards as a dataset")
        parser.add_argument("--split", choices=("eval", "train", "all"), help="of a preference set: which side (eval)")
        parser.add_argument("--by", metavar="TAG", help="accuracies for each value of a column of the data, too")
        parser.add_argument(
            "--max-length", type=positive_integer, default=1024, metavar="N", help="tokens of a row (1024)"
        )
        add_machine_options(parser)
        parser.set_defaults(action=run_eval)


def sampling_of(args: argparse.Namespace, *, samples: int) -> Sampling:
    """The sampling options of a command."""
    from workbench.generation import Sampling
    from workbench.launch_device import choose_device

    return Sampling(
        samples=samples,
        temperature=args.temperature,
        top_p=args.top_p,
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
        device=choose_device(args.device),
        threads=args.threads,
    )


def note_too_long(source: dict[str, Any]) -> None:
    """Say how many prompts left a model no room to answer."""
    if source.get("too_long"):
        note(f"{source['too_long']:,} of {source['asked']:,} prompts were left out: too long for the model's window")


def run_models(args: argparse.Namespace) -> int:
    """List the models that are stored here, with size and use."""
    from dataclasses import asdict

    from workbench.model_inventory import stored_models

    try:
        workspace = workspace_of(args)
    except NotFound:
        if args.workspace:
            raise
        workspace = None
    models = stored_models(workspace)
    if args.json:
        write_json({"schema": SCHEMA, "models": [asdict(model) for model in models]})
        return 0
    columns = [
        Column("--model"),
        Column("what", shrinks=True),
        Column("MB", right=True),
        Column("used by", shrinks=True),
    ]
    rows = [[m.name, m.what, f"{m.bytes / 1e6:,.1f}", _users(m.used_by)] for m in models]
    write_table(columns, rows, empty="No models.")
    note("Also: ./folder, ./file.gguf, hf:ORG/NAME[@REV]")
    return 0


def _users(runs: Sequence[str]) -> str:
    """The newest run, and how many more there are."""
    if not runs:
        return "-"
    return f"{runs[-1]} and {len(runs) - 1} more" if len(runs) > 1 else runs[0]


def run_generate(args: argparse.Namespace) -> int:
    """Let a model answer prompts and keep the answers as a dataset."""
    from workbench.generated_dataset import add_answers
    from workbench.pair_generation import ask_models
    from workbench.prompt_source import find_prompts
    from workbench.url_model import answering_model
    from workbench.workspace import check_name

    workspace = workspace_of(args, writable=True)
    workspace.require_free("datasets", check_name(args.to, "dataset"))
    asked = find_prompts(workspace, args.prompts)
    model = answering_model(workspace, args.model)
    sampling = sampling_of(args, samples=args.samples)
    answered = ask_models(asked, [model], sampling, limit=args.limit, keep_in=workspace)
    made = add_answers(workspace, args.to, answered)
    answers = answered.answers[0]
    stopped = sum(answer.stopped for answer in answers)
    note_too_long(answered.source)
    if args.json:
        write_json(
            {"schema": SCHEMA, "dataset": made.name, "answers": len(answers), "stopped": stopped, "model": model.source}
        )
        return 0
    say(f"{made.name}  {made.info.rows:,} answers of {model.source} to {len(answered.prompts):,} prompts")
    if stopped < len(answers):
        note(f"{len(answers) - stopped:,} were cut off at {args.max_new_tokens} tokens; --max-new-tokens raises that")
    if made.info.rejected:
        note("not kept: " + ", ".join(f"{count:,} {reason}" for reason, count in made.info.rejected.items()))
    return 0


def run_eval(args: argparse.Namespace) -> int:
    """Measure a model on held-out rows."""
    from workbench.held_out import measure
    from workbench.launch_device import choose_device
    from workbench.model_names import resolve_model
    from workbench.run_examples import find_source

    if args.to and not args.reward:
        raise UsageError("--to keeps the rewards of a reward model; add --reward")
    workspace = workspace_of(args, writable=bool(args.to))
    model = resolve_model(workspace, args.model)
    if args.split and find_source(workspace, args.on).kind == "dataset":
        note(f"--split is ignored: {args.on} is a plain dataset and is measured whole")
    if args.reward:
        return _run_scoring(args, workspace, model)
    result = measure(
        workspace, model, args.on, split=args.split or "eval", by=args.by or "", device=choose_device(args.device),
        threads=args.threads, max_length=args.max_length,
    )  # fmt: skip
    if args.json:
        write_json({"schema": SCHEMA, **result.as_json()})
        return 0
    fields = {
        "model": model.source,
        "on": f"{args.on}, {counted(result.estimate.n, 'row')}",
        **_result_fields(result.as_json()),
    }
    write_fields(fields)
    for reason, count in result.dropped.items():
        note(f"{counted(count, 'row')} not measured: {reason}")
    return 0


def _run_scoring(args: argparse.Namespace, workspace: Workspace, model: ResolvedModel) -> int:
    from workbench.launch_device import choose_device
    from workbench.scoring import keep_scores, score
    from workbench.workspace import check_name

    if args.to:
        workspace.require_free("datasets", check_name(args.to, "dataset"))
    scores = score(
        workspace, model, args.on, split=args.split or "eval", by=args.by or "", device=choose_device(args.device),
        threads=args.threads, max_length=args.max_length,
    )  # fmt: skip
    made = keep_scores(workspace, args.to, scores) if args.to else None
    result = scores.as_json()
    if args.json:
        write_json({"schema": SCHEMA, **result, "dataset": made.name if made else None})
        return 0
    fields = {"model": model.source, "on": f"{args.on}, {counted(len(scores.rows), 'row')}"}
    for answer, one in result["rewards"].items():
        name = "reward" if answer == "completion" else f"reward of {answer}"
        fields[name] = f"{_estimate(one)} raw, {_estimate(result['normalised'][answer])} normalised"
    if result["accuracy"]:
        fields["accuracy"] = f"{_estimate(result['accuracy'])} of pairs where the chosen answer has the higher reward"
    fields |= {f"  {value}": f"{_estimate(one)} ({one['n']:,}) normalised" for value, one in result["by"].items()}
    write_fields(fields | ({"dataset": f"{made.name}, {counted(made.info.rows, 'row')}"} if made else {}))
    for reason, count in scores.not_scored.items():
        note(f"{counted(count, 'answer')} not scored: {reason}")
    return 0


def _result_fields(result: dict[str, Any]) -> dict[str, str]:
    words = {
        "loss": "nats a trained token",
        "logprob": "of pairs where the chosen answer is the more probable",
        "reward": "of pairs where the chosen answer has the higher reward",
    }[result["kind"]]
    name = "loss" if result["kind"] == "loss" else "accuracy"
    fields = {name: f"{_estimate(result['estimate'])} {words}"}
    return fields | {f"  {value}": f"{_estimate(one)} ({one['n']:,})" for value, one in result["by"].items()}


def _estimate(estimate: dict[str, Any]) -> str:
    return f"{number(estimate['mean'], 4)} ± {number(estimate['standard_error'], 4)}"
