"""`workbench train METHOD`: start a run. stdout carries the run's ID and nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.command_arguments import add_usual_options, share_or_none, workspace_of
from workbench.errors import UsageError
from workbench.terminal_output import note, say, write_fields, write_json

if TYPE_CHECKING:
    from workbench.run_launch import Plan
    from workbench.run_list import Run

METHODS = {
    "sft": "supervised fine-tuning on demonstrations",
    "reward": "a reward model on preferences",
    "dpo": "direct preference optimisation",
    "ppo": "proximal policy optimisation against a reward model",
}
FOLLOW_EVERY_S = 5.0
EXAMPLES = """\
examples:
  workbench train sft --model sample --data demonstrations
  workbench train dpo -f recipe.toml --model run:1124-sft-sample-k3f --data prefs --set dpo.beta=0.2
  workbench train ppo --model run:ID --reward-model run:ID2 --prompts questions --wait

A bare name after --model is `sample`, else a run (ID, name or beginning of an ID),
else a folder or .gguf file here. run:ID alone is the best checkpoint, or the last.
A recipe is a partial run.toml; any run.toml is one. --print-config shows every key.
exit codes of --wait, --follow and --foreground: 0 done, 1 failed, 3 stopped before its end
"""


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `train`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "method", choices=METHODS, metavar="METHOD", help="; ".join(f"{name}: {what}" for name, what in METHODS.items())
    )
    parser.add_argument("-f", "--recipe", type=Path, metavar="FILE", help="settings to start from (TOML)")
    parser.add_argument(
        "--model", default="", metavar="M", help="sample, ./folder, ./file.gguf, hf:ORG/NAME, run:ID[@STEP]"
    )
    parser.add_argument(
        "--data", action="append", default=[], metavar="D", help="a dataset or a preference set; may be repeated"
    )
    parser.add_argument("--prompts", action="append", default=[], metavar="D", help="ppo: what to answer; as --data")
    parser.add_argument("--reward-model", default="", metavar="M", help="ppo: a run of train reward over the same base")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; may be repeated")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="", help="where to train")
    parser.add_argument("--gpus", metavar="INDEX", help="which NVIDIA device (one); see workbench gpus")
    parser.add_argument("--name", default="", metavar="X", help="what to call the run; part of its ID")
    parser.add_argument(
        "--eval-share", type=share_or_none, default=0.1, metavar="S",
        help="share of the prompts of a plain dataset that is held out (0.1)",
    )  # fmt: skip
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--wait", action="store_true", help="return when the run has ended")
    ending.add_argument("--follow", action="store_true", help="the same, with a line on stderr now and then")
    ending.add_argument("--foreground", action="store_true", help="train in this process group; Ctrl+C stops the run")
    ending.add_argument("--dry-run", action="store_true", help="say rows, tokens and steps; write and start nothing")
    ending.add_argument("--print-config", action="store_true", help="the full config with origins; start nothing")
    add_usual_options(parser)
    parser.set_defaults(action=run_train)


def run_train(args: argparse.Namespace) -> int:
    """Plan, create and start the run."""
    from workbench.run_launch import LaunchRequest, create_run, plan_run

    preview = args.dry_run or args.print_config
    if args.prompts and args.method != "ppo":
        raise UsageError(f"--prompts goes with train ppo; for {args.method} use --data")
    workspace = workspace_of(args, writable=not preview)
    request = LaunchRequest(
        method=args.method,
        model=args.model,
        data=(*args.data, *args.prompts),
        reward_model=args.reward_model,
        recipe=args.recipe,
        settings=tuple(args.set),
        device=args.device,
        gpu=gpu_index(args.gpus),
        name=args.name,
        eval_share=args.eval_share,
    )
    plan = plan_run(workspace, request)
    for text in plan.notes:
        note(text)
    if preview:
        return _preview(plan, args)
    run = create_run(plan)
    return launch(run, args, gpu=request.gpu)


def launch(run: Run, args: argparse.Namespace, *, gpu: int | None) -> int:
    """Start a created or resumed run in the way that was asked for, and print its ID."""
    from workbench.run_launch import gpu_environment, start_run
    from workbench.run_watch import follow, wait_for_end

    if args.foreground:
        import os

        from engine.run.supervisor import run_supervised

        say(run.id)
        os.environ.update(gpu_environment(gpu))
        return run_supervised(run.folder.path)
    start_run(run, gpu=gpu)
    if args.json:
        write_json({"schema": 1, "run": run.id, "folder": str(run.folder.path)})
    else:
        say(run.id)
    if not (args.wait or args.follow):
        return 0
    import sys

    sys.stdout.flush()
    code = wait_for_end(run, follow(note) if args.follow else None, every_s=FOLLOW_EVERY_S)
    if code != 0:
        state = run.state()
        note(f"run {run.id}: {state.state}{f': {state.reason}' if state.reason else ''}")
    return code


def gpu_index(text: str | None) -> int | None:
    """--gpus as one index."""
    if text is None:
        return None
    if "," in text:
        raise UsageError(f"--gpus {text}: a run uses one device; name one index, for example --gpus 0")
    if not text.isdecimal():
        raise UsageError(f"--gpus {text!r}: expected the index of a device, for example --gpus 0. See: workbench gpus")
    return int(text)


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
