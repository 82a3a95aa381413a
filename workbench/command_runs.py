"""`workbench runs`: list, show, watch, read the log of, stop and resume runs."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from workbench.command_arguments import add_verb, add_verbs, positive_integer, workspace_of
from workbench.errors import UsageError, WorkbenchError
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
    add_verb(verbs, "ls", "list the runs, the newest last", run_ls)
    show = add_verb(verbs, "show", "what a run was asked to do and what came of it", run_show)
    show.add_argument("run", metavar="RUN")
    watch = add_verb(verbs, "watch", "follow a run until it ends; exit code 0 done, 1 failed, 3 stopped", run_watch)
    watch.add_argument("run", metavar="RUN")
    watch.add_argument("--once", action="store_true", help="one frame, then return")
    watch.add_argument("--all", action="store_true", help="every metric in the frame, not the main ones")
    logs = add_verb(verbs, "logs", "the end of a run's log", run_logs)
    logs.add_argument("run", metavar="RUN")
    logs.add_argument("-n", "--lines", type=positive_integer, default=LOG_LINES, metavar="N", help=f"({LOG_LINES})")
    stop = add_verb(verbs, "stop", "finish the step, write a checkpoint, end", run_stop)
    stop.add_argument("run", metavar="RUN")
    stop.add_argument("--wait", action="store_true", help="return when it has ended")
    resume = add_verb(verbs, "resume", "go on from the newest checkpoint", run_resume)
    resume.add_argument("run", metavar="RUN")
    resume.add_argument("--gpus", metavar="INDEX", help="which NVIDIA device (one)")
    ending = resume.add_mutually_exclusive_group()
    ending.add_argument("--wait", action="store_true", help="return when the run has ended")
    ending.add_argument("--follow", action="store_true", help="the same, with a line on stderr now and then")
    ending.add_argument("--foreground", action="store_true", help="train in this process group")


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
    rows = [[s.id, s.state, _step(s), _result(s), duration(s.seconds_left), age(s.created, now)] for s in summaries]
    write_table(columns, rows, empty="No runs yet. Start one: workbench train METHOD --model M --data D")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Describe one run."""
    from workbench.run_list import summarise

    run = _run(args)
    summary, steps = summarise(run), run.checkpoint_steps()
    if args.json:
        from engine.run.config_toml import to_toml

        config = run.config()
        facts = {"schema": SCHEMA, **asdict(summary), "config": asdict(config), "run_toml": to_toml(config)}
        write_json({**facts, "checkpoints": steps, "events": list(run.events())})
        return 0
    config = run.config()
    adapter = f"LoRA, rank {config.adapter.r}" if config.adapter.kind == "lora" else "all weights"
    best = summary.best
    fields = {
        "run": summary.id,
        "state": summary.state + (f": {summary.reason}" if summary.reason else ""),
        "method": f"{config.run.method}, {adapter}, on {summary.device or config.train.device}",
        "model": config.model.source,
        "reward model": config.model.reward_source,
        "data": (
            f"{', '.join(config.data.names)}: {counted(config.data.train_rows, 'row')}, "
            f"{config.data.eval_rows:,} held out"
        ),
        "step": _step(summary),
        "result": _result(summary),
        "best": f"{best['metric']} {number(best['value'], 4)} at step {best['step']}" if best else "",
        "checkpoints": ", ".join(map(str, steps)) or "none",
        "created": local_time(summary.created),
        "folder": str(run.folder.path),
        "next": _next_step(summary, bool(steps)),
    }
    write_fields({name: value for name, value in fields.items() if value})
    return 0


def run_watch(args: argparse.Namespace) -> int:
    """One frame, or a line a step until the run ends."""
    from workbench import run_watch as watching

    run = _run(args)
    if args.once:
        if args.json:
            write_json(watching.as_json(run))
            return 0
        for line in watching.frame(run, every_metric=args.all):
            say(line)
        return 0
    if args.json:
        return watching.wait_for_end(run, _print_json_line)
    code = watching.wait_for_end(run, watching.follow(say))
    for line in watching.frame(run, every_metric=args.all):
        say(line)
    return code


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
    from engine.run.control import request
    from engine.run.events import append_event
    from workbench.run_list import require_alive
    from workbench.run_watch import wait_for_end

    workspace_of(args, writable=True)
    run = _run(args)
    require_alive(run)
    request(run.folder, "stop")
    append_event(run.folder, "stop_requested")
    if args.wait:
        wait_for_end(run)
    state = run.state().state
    if args.json:
        write_json({"schema": SCHEMA, "run": run.id, "state": state})
    elif args.wait:
        note(f"{run.id} is {state}.")
    else:
        note(f"{run.id} will stop after its step, with a checkpoint.")
    return 0


def run_resume(args: argparse.Namespace) -> int:
    """Go on with a run that ended before its end."""
    from engine.run.control import clear
    from workbench.command_train import gpu_index, launch
    from workbench.run_launch import choose_device
    from workbench.run_list import ALIVE, RESUMABLE

    workspace_of(args, writable=True)
    run = _run(args)
    state = run.state()
    if state.state in ALIVE and state.state not in RESUMABLE:
        raise WorkbenchError(f"run {run.id} is running already; watch it with: workbench runs watch {run.id}")
    if state.state not in RESUMABLE:
        why = {"done": "it reached its end; start another run from its checkpoint with --model run:" + run.id}
        raise WorkbenchError(f"run {run.id} cannot be resumed: {why.get(state.state, f'it is {state.state}')}")
    gpu = gpu_index(args.gpus)
    device = run.config().train.device
    if gpu is not None and device == "cpu":
        raise UsageError(f"run {run.id} trains on the CPU; --gpus has no meaning for it")
    choose_device(device, gpu)
    clear(run.folder, "stop")
    return launch(run, args, gpu=gpu)


def _run(args: argparse.Namespace) -> Run:
    from workbench.run_list import find_run

    return find_run(workspace_of(args), args.run)


def _step(summary: RunSummary) -> str:
    return f"{summary.step:,}/{summary.total_steps:,}" if summary.total_steps else "-"


def _result(summary: RunSummary) -> str:
    """The one figure that says most about a run."""
    for name in ("eval_loss", "objective/scores", "loss"):
        if name in summary.last:
            return f"{name} {number(summary.last[name], 4)}"
    return "-"


def _next_step(summary: RunSummary, has_checkpoint: bool) -> str:
    """The command a person most likely wants now."""
    from workbench.run_list import RESUMABLE

    resume = f"workbench runs resume {summary.id}"
    if summary.state == "failed":
        return f"workbench runs logs {summary.id}\n{resume}"
    if summary.state in RESUMABLE and summary.state != "unknown-here":  # it may be alive on another host
        return resume
    if summary.state == "done" and has_checkpoint:
        return f"--model run:{summary.id}"
    return ""


def _print_json_line(summary: RunSummary) -> None:
    from workbench.terminal_output import json_line

    print(json_line({"schema": SCHEMA, **asdict(summary)}), flush=True)
