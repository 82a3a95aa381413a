"""`workbench runs`: list, show, watch, read the log of, stop, resume, clone, export and delete runs."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from workbench import command_run_numbers, command_run_tags
from workbench.command_arguments import add_verb, add_verbs, agreed, positive_integer, workspace_of
from workbench.command_train import GPUS_HELP, add_ways_to_start
from workbench.terminal_output import (
    Column,
    counted,
    duration,
    local_time,
    note,
    number,
    say,
    write_fields,
    write_json,
    write_table,
)

if TYPE_CHECKING:
    from workbench.run_list import Run, RunSummary

SCHEMA = 1
LOG_LINES = 40


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `runs`."""
    parser.epilog = "RUN is an ID, a unique beginning of one, a run's name, or - for the latest."
    verbs = add_verbs(parser)
    command_run_numbers.configure(verbs)
    add_verb(verbs, "ls", "list the runs, the newest last", run_ls)
    show = add_verb(verbs, "show", "what a run was asked to do and what came of it", run_show)
    show.add_argument("run", metavar="RUN")
    logs = add_verb(verbs, "logs", "the end of a run's log", run_logs)
    logs.add_argument("run", metavar="RUN")
    logs.add_argument("-n", "--lines", type=positive_integer, default=LOG_LINES, metavar="N", help=f"({LOG_LINES})")
    stop = add_verb(verbs, "stop", "finish the step, write a checkpoint, end", run_stop)
    stop.add_argument("run", metavar="RUN")
    stop.add_argument("--wait", action="store_true", help="return when it has ended")
    resume = add_verb(verbs, "resume", "go on from the newest checkpoint", run_resume)
    resume.add_argument("run", metavar="RUN")
    resume.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="change a setting that cannot change the loss; may be repeated",
    )  # fmt: skip
    resume.add_argument("--gpus", metavar="INDEX,…", help="which NVIDIA devices: as many as it began with")
    add_ways_to_start(resume, previews=False)
    clone = add_verb(verbs, "clone", "start a new run with the settings of another", run_clone)
    clone.add_argument("run", metavar="RUN")
    clone.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting; may be repeated"
    )
    clone.add_argument("--name", default="", metavar="X", help="what to call the new run; part of its ID")
    clone.add_argument("--model", default="", metavar="M", help="another model")
    clone.add_argument("--data", action="append", default=[], metavar="D", help="other data; may be repeated")
    clone.add_argument(
        "--reward", action="append", default=[], metavar="FUNCTION[:WEIGHT]",
        help="other Python functions in place of all that the run has; may be repeated",
    )  # fmt: skip
    clone.add_argument("--device", choices=("auto", "cpu", "cuda"), default="", help="where to train")
    clone.add_argument("--gpus", metavar="INDEX,…", help=GPUS_HELP)
    add_ways_to_start(clone)
    exported = add_verb(verbs, "export", "write a checkpoint as a folder that transformers or peft loads", run_export)
    exported.add_argument("run", metavar="RUN[@STEP|@best|@last]")
    exported.add_argument("--to", required=True, metavar="FOLDER", help="a new folder")
    form = exported.add_mutually_exclusive_group()
    form.add_argument("--merge", action="store_true", help="one whole model, an adapter merged into its base (default)")
    form.add_argument("--adapter", action="store_true", help="the adapter alone, as peft loads it")
    command_run_tags.configure(verbs)
    remove = add_verb(verbs, "rm", "delete a run with its checkpoints", run_rm)
    remove.add_argument("run", metavar="RUN")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    prune = add_verb(verbs, "prune", "delete tokenised and frozen examples that no run uses any more", run_prune)
    prune.add_argument("--dry-run", action="store_true", help="say what would go; nothing is deleted")
    prune.add_argument("--yes", action="store_true", help="do not ask")


def run_ls(args: argparse.Namespace) -> int:
    """List the runs."""
    from workbench.run_list import age, all_runs, summarise

    summaries = [summarise(run) for run in all_runs(workspace_of(args))]
    if args.json:
        write_json({"schema": SCHEMA, "runs": [asdict(summary) for summary in summaries]})
        return 0
    now = datetime.now(UTC)
    columns = [
        Column("run"), Column("state", shrinks=True), Column("step", right=True), Column("result", shrinks=True),
        Column("left", right=True), Column("age", right=True),
    ]  # fmt: skip
    rows = [
        [
            " ".join((s.id, *(f"#{tag}" for tag in s.tags))),
            s.state + (" · alarm" if s.alarm else ""),
            _step(s),
            _result(s),
            duration(s.seconds_left),
            age(s.created, now),
        ]
        for s in summaries
    ]
    write_table(columns, rows, empty="No runs yet. Start one: workbench train METHOD --model M --data D")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Describe one run."""
    from engine.run.reference_policy import reference_words
    from workbench.alarm_words import alarm_fields
    from workbench.data_weights import as_written
    from workbench.launch_rewards import as_written as rewards_as_written
    from workbench.launch_weights import adapter_words
    from workbench.left_out import left_out_told
    from workbench.reward_words import report_fields
    from workbench.run_list import summarise
    from workbench.run_sources import source_fields, sources_told

    run = _run(args)
    summary, steps = summarise(run), run.checkpoint_steps()
    if args.json:
        from engine.run.config_toml import to_toml

        config = run.config()
        facts = {"schema": SCHEMA, **asdict(summary), "config": asdict(config), "run_toml": to_toml(config)}
        write_json({**facts, "checkpoints": steps, "events": list(run.events())})
        return 0
    config = run.config()
    if config.run.imported:
        return command_run_numbers.show_imported(run)
    best = summary.best
    fields = {
        "run": summary.id,
        "state": summary.state + (f": {summary.reason}" if summary.reason else ""),
        "method": f"{config.run.method}, {adapter_words(config.adapter)}, on {summary.device or config.train.device}",
        "model": config.model.source,
        "reference": reference_words(config),
        "rewards": ", ".join(rewards_as_written(config)),
        "data": (
            f"{', '.join(as_written(config.data))}: {counted(config.data.train_rows, 'row')}, "
            f"{config.data.eval_rows:,} held out"
        ),
        **source_fields(sources_told(run.events())),
        **left_out_told(run.events()),
        "note": summary.note,
        **alarm_fields(run.events(), run.id),
        "step": _step(summary),
        "result": _result(summary),
        "best": f"{best['metric']} {number(best['value'], 4)} at step {best['step']}" if best else "",
        **report_fields(run.events()),
        "checkpoints": f"step {', '.join(map(str, steps))}" if steps else "none",
        "memory": _memory(run, summary),
        "tags": ", ".join(summary.tags),
        "created": local_time(summary.created),
        "folder": str(run.folder.path),
        "next": _next_step(summary, bool(steps)),
    }
    write_fields({name: value for name, value in fields.items() if value})
    return 0


def run_logs(args: argparse.Namespace) -> int:
    """Print the last lines of engine.log."""
    from collections import deque

    run = _run(args)
    try:
        with open(run.folder.log_path, encoding="utf-8", errors="replace", newline="\n") as log:
            last = deque(log, maxlen=args.lines)
    except FileNotFoundError:
        last = deque()
    lines = [line.rstrip("\n") for line in last]
    if args.json:
        write_json({"schema": SCHEMA, "run": run.id, "lines": lines})
        return 0
    for line in lines:
        say(line)
    if not lines:
        note(f"The log of {run.id} is empty.")
    return 0


def run_stop(args: argparse.Namespace) -> int:
    """Ask the run to stop."""
    from workbench.run_control import stop_run
    from workbench.run_watch import wait_for_end

    workspace_of(args, writable=True)
    run = _run(args)
    queued = run.state().state == "queued"
    stop_run(run)
    if args.wait:
        wait_for_end(run)
    state = run.state().state
    if args.json:
        write_json({"schema": SCHEMA, "run": run.id, "state": state})
    elif args.wait:
        note(f"{run.id} is {state}.")
    elif queued:
        note(f"{run.id} leaves the queue.")
    else:
        note(f"{run.id} will stop after its step, with a checkpoint.")
    return 0


def run_resume(args: argparse.Namespace) -> int:
    """Go on with a run that ended before its end."""
    from engine.run.resume_settings import change_settings, changes_of
    from workbench.command_train import gpu_indices, launch
    from workbench.run_control import prepare_resume

    workspace_of(args, writable=True)
    run = _run(args)
    gpus = gpu_indices(args.gpus)
    changes = changes_of(run.config(), args.set, run.id)
    prepare_resume(run, gpus, changes)
    change_settings(run.folder, changes)
    for name, (now, then) in changes.items():
        note(f"{name}: {now} -> {then}")
    return launch(run, args, gpus=gpus)


def run_clone(args: argparse.Namespace) -> int:
    """Start a new run that asks for what another one asked for; stdout is its ID."""
    from dataclasses import replace

    from workbench.command_train import gpu_indices, launch_request
    from workbench.run_clone import clone_request

    workspace = workspace_of(args, writable=not (args.dry_run or args.print_config))
    asked = clone_request(_run(args))
    request = replace(
        asked,
        model=args.model or asked.model,
        data=tuple(args.data) or asked.data,
        rewards=tuple(args.reward) or asked.rewards,
        settings=(*asked.settings, *args.set),
        device=args.device or ("" if args.gpus else asked.device),
        gpus=gpu_indices(args.gpus),
        name=args.name or asked.name,
    )
    return launch_request(workspace, request, args)


def run_rm(args: argparse.Namespace) -> int:
    """Delete a run, once the person has seen what goes."""
    from workbench.run_removal import removal_of, remove_run

    workspace_of(args, writable=True)
    run = _run(args)
    removal = removal_of(run)
    if not args.yes:
        note(f"{run.id}: {removal.words()}")
        if not agreed(
            "Delete it?", f"runs rm deletes for good, and here is no terminal to ask on; add --yes to delete {run.id}"
        ):
            return 1
    removed = remove_run(run)
    if args.json:
        write_json({"schema": SCHEMA, "run": run.id, "freed_bytes": removed.freed_bytes, "stays": removed.stays})
    else:
        note(f"Deleted {run.id}. {removed.words()}")
    return 0


def run_prune(args: argparse.Namespace) -> int:
    """Delete what lies in blobs/ and no run uses, once the person has seen how much it is."""
    from workbench.blob_collection import collect, unused_blobs, words_of

    workspace = workspace_of(args, writable=not args.dry_run)
    found = unused_blobs(workspace)
    if found and not args.dry_run:
        if not args.yes:
            note(words_of(found))
            if not agreed("Delete them?", "runs prune deletes, and here is no terminal to ask on; add --yes"):
                return 1
        found = collect(workspace, found)
    if args.json:
        blobs = [asdict(blob) for blob in found]
        write_json(
            {"schema": SCHEMA, "deleted": not args.dry_run, "bytes": sum(b.bytes for b in found), "blobs": blobs}
        )
    elif not found:
        note("Nothing to delete: runs use all of it.")
    else:
        note(f"{'Would delete' if args.dry_run else 'Deleted'} {words_of(found)}")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write a checkpoint for other programs."""
    from pathlib import Path

    from workbench.model_export import export_model
    from workbench.model_names import resolve_model
    from workbench.run_list import find_run

    workspace = workspace_of(args)
    named = args.run.removeprefix("run:")
    run = find_run(workspace, named.partition("@")[0])
    model = resolve_model(workspace, f"run:{named}")
    base = workspace.resolve(run.config().model.path)
    done = export_model(model, Path(args.to), adapter_alone=args.adapter, like=base if base.is_dir() else None)
    if args.json:
        write_json({"schema": SCHEMA, "model": model.source, **asdict(done), "folder": str(done.folder)})
        return 0
    say(str(done.folder))
    words = [done.what, done.dtype, f"{done.bytes / 1e6:,.1f} MB", model.note]
    note(f"{model.source}: {', '.join(word for word in words if word)}")
    return 0


def _run(args: argparse.Namespace) -> Run:
    from workbench.run_list import find_run

    return find_run(workspace_of(args), args.run)


def _state(summary: RunSummary) -> str:
    return f"{summary.state} · alarm" if summary.alarm else summary.state


def _step(summary: RunSummary) -> str:
    return f"{summary.step:,}/{summary.total_steps:,}" if summary.total_steps else "-"


def _result(summary: RunSummary) -> str:
    """The one figure that says most about a run."""
    for name in ("eval_loss", "objective/scores", "reward", "loss"):
        if name in summary.last:
            return f"{name} {number(summary.last[name], 4)}"
    return "-"


def _memory(run: Run, summary: RunSummary) -> str:
    """The peak beside the estimate that the run began with."""
    from workbench.run_cost import estimate_of
    from workbench.run_preview import megabytes

    peak, estimate = summary.last.get("peak_memory_bytes"), estimate_of(run)
    if not peak:
        return ""
    than = f", {peak / estimate:.2f}x the estimate of {megabytes(estimate)}" if estimate else ""
    return f"{megabytes(peak)} at its peak{than}"


def _next_step(summary: RunSummary, has_checkpoint: bool) -> str:
    """The command a person most likely wants now."""
    from workbench.run_list import RESUMABLE

    resume = f"workbench runs resume {summary.id}"
    if summary.state == "failed" and "was not finite" in summary.reason:
        return f"workbench runs clone {summary.id} --set optim.lr=…   (smaller; a resume keeps it)"
    if summary.state == "failed" and summary.reason.startswith("reward ") and ".py) " in summary.reason:
        clone = f"workbench runs clone {summary.id} --reward FILE.py:NAME"
        return f"workbench runs logs {summary.id}\n{clone}   (mended; a resume calls the copy that failed)"
    if summary.state == "failed":
        return f"workbench runs logs {summary.id}\n{resume}"
    if summary.state in RESUMABLE and summary.state != "unknown-here":  # it may be alive on another host
        return resume
    if summary.state == "done" and has_checkpoint:
        return f"--reward-model run:{summary.id}" if summary.method == "reward" else f"--model run:{summary.id}"
    return ""
