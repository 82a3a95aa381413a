"""`workbench train METHOD`: start a run. stdout carries the run's ID and nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.run.method_names import ON_ROLLOUTS
from workbench.command_arguments import add_usual_options, share_or_none, workspace_of
from workbench.errors import UsageError
from workbench.method_words import METHOD_WORDS
from workbench.terminal_output import note, say, write_fields, write_json

if TYPE_CHECKING:
    from engine.rewards.function_files import FunctionFile
    from workbench.run_launch import LaunchRequest, Plan
    from workbench.run_list import Run
    from workbench.workspace import Workspace

FOLLOW_EVERY_S = 5.0
GPUS_HELP = "which NVIDIA devices, for example 0 or 0,1: one process trains on each; see workbench gpus"
EXAMPLES = """\
examples:
  workbench train sft --model sample --data demonstrations
  workbench train dpo -f recipe.toml --model run:1124-sft-sample-k3f --data prefs --set dpo.beta=0.2
  workbench train sft --model sample --data support:0.7 --data chats:0.3 --set data.weights_by=tokens
  workbench train kto --model run:1124-sft-sample-k3f --data judged_answers
  workbench train ppo --model run:ID --reward-model run:ID2 --prompts questions --wait
  workbench train grpo --model run:ID --reward-model run:ID2 --prompts questions --set grpo.generations=4
  workbench train grpo --model run:ID --reward lexicon.py:positive:0.3 --reward-model run:ID2 --prompts questions

A bare name after --model is `sample`, else a run (ID, name or beginning of an ID),
else a folder or .gguf file here. run:ID alone is the best checkpoint, or the last.
A recipe is a partial run.toml; any run.toml is one. --print-config shows every key.
exit codes of --wait, --follow and --foreground: 0 done, 1 failed, 3 stopped before its end
"""


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `train`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "method",
        choices=METHOD_WORDS,
        metavar="METHOD",
        help="; ".join(f"{name}: {what}" for name, what in METHOD_WORDS.items()),
    )
    parser.add_argument("-f", "--recipe", type=Path, metavar="FILE", help="settings to start from (TOML)")
    parser.add_argument(
        "--model", default="", metavar="M", help="sample, ./folder, ./file.gguf, hf:ORG/NAME, run:ID[@STEP]"
    )
    parser.add_argument(
        "--data", action="append", default=[], metavar="D[:WEIGHT]",
        help="a dataset or a preference set; may be repeated, with shares of training as weights",
    )  # fmt: skip
    parser.add_argument(
        "--prompts",
        action="append",
        default=[],
        metavar="D[:WEIGHT]",
        help="ppo, grpo, rloo: what to answer; as --data",
    )
    parser.add_argument(
        "--reward-model", action="append", default=[], metavar="M[:WEIGHT]",
        help="ppo, grpo, rloo: a run of train reward, best over the same base; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--reward", action="append", default=[], metavar="FUNCTION[:WEIGHT]",
        help="ppo, grpo, rloo: a Python function, FILE.py:NAME or MODULE:NAME; may be repeated; weight 0 watches",
    )  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; may be repeated")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="", help="where to train")
    parser.add_argument("--gpus", metavar="INDEX,…", help=GPUS_HELP)
    parser.add_argument("--name", default="", metavar="X", help="what to call the run; part of its ID")
    parser.add_argument(
        "--eval-share", type=share_or_none, default=0.1, metavar="S",
        help="share of the prompts of a plain dataset that is held out (0.1)",
    )  # fmt: skip
    add_ways_to_start(parser)
    add_usual_options(parser)
    parser.set_defaults(action=run_train)


def add_ways_to_start(parser: argparse.ArgumentParser, *, previews: bool = True) -> None:
    """How a run is started, or only looked at."""
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--queue", action="store_true", help="begin when no other run here has the device; return now")
    ending.add_argument("--wait", action="store_true", help="return when the run has ended")
    ending.add_argument("--follow", action="store_true", help="the same, with a line on stderr now and then")
    ending.add_argument("--foreground", action="store_true", help="train in this process group; Ctrl+C stops the run")
    if previews:
        ending.add_argument(
            "--dry-run", action="store_true", help="say rows, tokens, steps, memory and disk; write and start nothing"
        )
        ending.add_argument("--print-config", action="store_true", help="the full config with origins; start nothing")


def run_train(args: argparse.Namespace) -> int:
    """Plan, create and start the run."""
    from workbench.run_launch import LaunchRequest

    preview = args.dry_run or args.print_config
    if args.prompts and args.method not in ON_ROLLOUTS:
        raise UsageError(f"--prompts goes with train {', '.join(ON_ROLLOUTS)}; for {args.method} use --data")
    workspace = workspace_of(args, writable=not preview)
    request = LaunchRequest(
        method=args.method,
        model=args.model,
        data=(*args.data, *args.prompts),
        reward_models=tuple(args.reward_model),
        rewards=tuple(args.reward),
        recipe=args.recipe,
        settings=tuple(args.set),
        device=args.device,
        gpus=gpu_indices(args.gpus),
        name=args.name,
        eval_share=args.eval_share,
    )
    return launch_request(workspace, request, args)


def launch_request(workspace: Workspace, request: LaunchRequest, args: argparse.Namespace) -> int:
    """Start what was asked for in the way that was asked for, or show what it would be."""
    from workbench.launch_rewards import Unapproved
    from workbench.left_out import left_out_told
    from workbench.run_launch import create_run, plan_run

    try:
        plan = plan_run(workspace, request)
    except Unapproved as unapproved:
        _show_unapproved(unapproved.function)
        raise
    for text in plan.notes:
        note(text)
    if args.dry_run or args.print_config:
        return _preview(plan, args)
    run = create_run(plan)
    for name, words in left_out_told(run.events()).items():
        note(f"{name}: {words}")
    return launch(run, args, gpus=request.gpus)


def _show_unapproved(function: FunctionFile) -> None:
    """What a person is to read before they approve it."""
    from workbench.launch_rewards import lines_to_read

    note(f"{function.name} in {function.path}, sha256 {function.sha256}:")
    for line in lines_to_read(function):
        note(line)


def launch(run: Run, args: argparse.Namespace, *, gpus: Sequence[int]) -> int:
    """Start a created or resumed run in the way that was asked for, and print its ID."""
    from workbench.alarm_words import alarm_lines
    from workbench.launch_device import gpu_environment
    from workbench.run_launch import start_run
    from workbench.run_watch import follow, leaving_is_told, wait_for_end

    if args.foreground:
        import os

        from engine.run.supervisor import run_supervised

        say(run.id)
        os.environ.update(gpu_environment(gpus))
        return run_supervised(run.folder.path)
    start_run(run, gpus=gpus, queued=args.queue)
    if args.json:
        write_json({"schema": 1, "run": run.id, "folder": str(run.folder.path)})
    else:
        say(run.id)
    if not (args.wait or args.follow):
        return 0
    import sys

    sys.stdout.flush()
    before = len(alarm_lines(run.events(), run.id))
    with leaving_is_told(run, note):
        code = wait_for_end(run, follow(note) if args.follow else None, every_s=FOLLOW_EVERY_S)
    for line in alarm_lines(run.events(), run.id)[before:]:
        note(line)
    if code != 0:
        state = run.state()
        note(f"run {run.id}: {state.state}{f': {state.reason}' if state.reason else ''}")
    return code


def gpu_indices(text: str | None) -> tuple[int, ...]:
    """--gpus as indices, in the order given."""
    if text is None:
        return ()
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise UsageError(
            f"--gpus {text!r}: expected indices of devices, for example --gpus 0 or --gpus 0,1. See: workbench gpus"
        )
    if len(set(words)) < len(words):
        raise UsageError(f"--gpus {text}: a device is named twice, but each process has one of its own")
    return tuple(map(int, words))


def _preview(plan: Plan, args: argparse.Namespace) -> int:
    from workbench.run_preview import config_with_origins, dry_run, dry_run_fields

    if args.print_config:
        from dataclasses import asdict

        if args.json:
            resolved = plan.resolved
            write_json({"schema": 1, "config": asdict(resolved.config), "origins": resolved.origins})
            return 0
        for line in config_with_origins(plan.resolved).split("\n"):
            say(line)
        return 0
    facts = dry_run(plan)
    if args.json:
        write_json(facts)
    else:
        write_fields(dry_run_fields(facts))
        note("Nothing was written.")
    return 0
