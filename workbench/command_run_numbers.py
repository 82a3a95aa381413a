"""`workbench runs import` and what else has to do with a run's numbers outside the app.

Parses, calls one function of the domain, prints.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from workbench.command_arguments import add_verb, workspace_of
from workbench.terminal_output import counted, local_time, note, number, say, write_fields, write_json

if TYPE_CHECKING:
    from workbench.run_list import Run

SCHEMA = 1


def configure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs that read, show and hand on numbers."""
    imported = add_verb(
        verbs, "import", "make a run of what another program logs, or read it on; stdout: the run's ID", run_import
    )
    imported.add_argument(
        "path", metavar="PATH",
        help="trainer_state.json or the output folder of Trainer or TRL, TensorBoard event files or their folder, CSV",
    )  # fmt: skip
    imported.add_argument("--name", default="", metavar="N", help="what to call the run; part of its ID")
    imported.add_argument(
        "--method", default="", metavar="METHOD", help="whose panels it gets (guessed by its metrics)"
    )
    imported.add_argument("--follow", action="store_true", help="go on reading as the other program writes")


def run_import(args: argparse.Namespace) -> int:
    """Make a run of a foreign log, or read it on."""
    from pathlib import Path

    from workbench.foreign_logs import open_log
    from workbench.run_import import follow, import_run
    from workbench.terminal_output import json_line

    workspace = workspace_of(args, writable=True)
    path = Path(args.path).expanduser()
    done = import_run(workspace, path, name=args.name, method=args.method)
    for left_out in done.notes:
        note(left_out)
    if args.json:
        facts = {"steps": done.steps, "new_lines": done.new_lines, "made": done.made, "notes": done.notes}
        line = {"schema": SCHEMA, "run": done.run.id, "method": done.run.method, **facts}
        print(json_line(line), flush=True) if args.follow else write_json(line)
    else:
        say(done.run.id)
        what = f"{counted(done.steps, 'step')} of {done.run.method}"
        note(f"{what} imported." if done.made else f"{what}, {counted(done.new_lines, 'line')} of them new.")
    if not args.follow:
        return 0
    note(f"Reading on; Ctrl+C or workbench runs stop {done.run.id} ends that. The other program does not notice.")

    def tell(lines: int, step: int) -> None:
        if args.json:
            print(json_line({"schema": SCHEMA, "run": done.run.id, "step": step, "new_lines": lines}), flush=True)
        else:
            note(f"step {step:,}: {counted(lines, 'new line')}")

    note(f"{follow(done.run, open_log(path), tell)}.".capitalize())
    return 0


def show_imported(run: Run) -> int:
    """Describe a run of another program: what is known of it is its numbers."""
    from workbench.foreign_logs import KINDS
    from workbench.run_list import summarise

    summary = summarise(run)
    kind, _, path = run.config().run.imported.partition(":")
    figure = next(
        (f"{name} {number(summary.last[name], 4)}" for name in ("eval_loss", "loss") if name in summary.last), ""
    )
    fields = {
        "run": summary.id,
        "state": f"{summary.state}: {summary.reason}",
        "method": f"{summary.method}, trained by another program",
        "source": f"{run.workspace.resolve(path)}, {KINDS.get(kind, kind)}",
        "note": summary.note,
        "step": f"{summary.step:,}/{summary.total_steps:,}" if summary.total_steps else f"{summary.step:,}",
        "result": figure,
        "metrics": ", ".join(summary.last),
        "created": local_time(summary.created),
        "folder": str(run.folder.path),
    }
    write_fields({name: value for name, value in fields.items() if value})
    return 0


def _run(args: argparse.Namespace) -> Run:
    from workbench.run_list import find_run

    return find_run(workspace_of(args), args.run)
