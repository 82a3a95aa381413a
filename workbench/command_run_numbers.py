"""`workbench runs import` and what else has to do with a run's numbers outside the app.

Parses, calls one function of the domain, prints.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from engine.run.safe_text import safe
from workbench.command_arguments import add_verb, positive_integer, workspace_of
from workbench.terminal_output import counted, local_time, note, number, say, write_fields, write_json, write_table

if TYPE_CHECKING:
    from workbench.run_frame import FrameLook, RunFrame
    from workbench.run_list import Run

SCHEMA = 1


def configure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs that read, show and hand on numbers."""
    watch = add_verb(
        verbs, "watch", "its panels until it ends, without the app; exit code 0 done, 1 failed, 3 stopped", run_watch
    )
    watch.add_argument("run", metavar="RUN")
    watch.add_argument("--once", action="store_true", help="one frame, then return; with --json last values")
    watch.add_argument("--all", action="store_true", help="every metric as a line, not the panels")
    watch.add_argument("--lines", action="store_true", help="a line a step instead of panels, as in a pipe")
    watch.add_argument("--size", type=_size, metavar="WxH", help="cells of the frame (the terminal's, else 80x24)")
    watch.add_argument("--page", type=positive_integer, default=1, metavar="N", help="which page of panels (1)")
    watch.add_argument("--log", action="store_true", help="a logarithmic axis of values where these allow it")
    watch.add_argument("--ascii", action="store_true", help="ASCII alone, as without UTF-8")
    watch.add_argument("--low-bandwidth", action="store_true", help="renewed once a second, not four times")
    drawn = add_verb(verbs, "curves", "panels as a picture (.svg, .png), metrics as a table (.csv)", run_curves)
    drawn.add_argument("runs", metavar="RUN", nargs="+", help="several are overlaid, the first is the baseline")
    drawn.add_argument("--to", required=True, metavar="FILE", help="a new file; its ending says what it becomes")
    drawn.add_argument(
        "--panel", action="append", default=[], metavar="P", help="a title or a metric of it; may be repeated"
    )
    drawn.add_argument("--metric", action="append", default=[], metavar="M", help="of a table: a name or eval_*")
    drawn.add_argument("--log", action="store_true", help="a logarithmic axis of values where these allow it")
    compared = add_verb(verbs, "diff", "runs beside each other: settings that differ, best and last values", run_diff)
    compared.add_argument("runs", metavar="RUN", nargs="+", help="the first is the baseline")
    compared.add_argument(
        "--metric", action="append", default=[], metavar="M", help="a name or eval_*; may be repeated"
    )
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


def run_watch(args: argparse.Namespace) -> int:
    """One frame, or panels that renew themselves, or lines, until the run ends."""
    import sys

    from workbench import run_watch as watching
    from workbench.live_frame import can_renew
    from workbench.run_stream import stream
    from workbench.terminal_output import json_line

    run = _run(args)
    if args.once:
        if args.json:
            write_json(watching.as_json(run))
        else:
            _write_frame(run, args)
        return 0
    with watching.leaving_is_told(run, note):
        if args.json:
            return stream(run, lambda line: print(json_line(line), flush=True))
        if can_renew(sys.stdout) and not (args.lines or args.all):
            code = _renew(run, args)
        else:
            code = watching.wait_for_end(run, watching.follow(say))
    _write_frame(run, args)
    return code


def _write_frame(run: Run, args: argparse.Namespace) -> None:
    from workbench.run_watch import frame

    for line in frame(run, every_metric=True) if args.all else _frame_of(run).lines(_look(args, *_size_of(args))):
        say(line)


def _renew(run: Run, args: argparse.Namespace) -> int:
    import sys

    from workbench.live_frame import OFTEN_S, RARELY_S, renew
    from workbench.run_list import ALIVE, exit_code_of

    drawn, state = _frame_of(run), ""

    def over() -> bool:
        nonlocal state
        state = run.state().state
        return state not in ALIVE

    renew(
        lambda width, height: [safe(line) for line in drawn.lines(_look(args, width, height))],
        over, sys.stdout, every_s=RARELY_S if args.low_bandwidth else OFTEN_S,
        size=(lambda: args.size) if args.size else None,
    )  # fmt: skip
    return exit_code_of(state)


def _frame_of(run: Run) -> RunFrame:
    """The panels as the person has arranged them on the Curves screen."""
    from workbench.run_frame import RunFrame
    from workbench.user_settings import read_settings

    return RunFrame(run, read_settings().curves)


def _look(args: argparse.Namespace, width: int, height: int) -> FrameLook:
    import sys

    from workbench.ascii_text import lacks_utf8
    from workbench.run_frame import FrameLook
    from workbench.run_watch import lacks_bars

    plain = args.ascii or lacks_utf8() or lacks_bars(sys.stdout)
    return FrameLook(width, height, args.page, args.log, plain)


def _size_of(args: argparse.Namespace) -> tuple[int, int]:
    """The size that was asked for, else the terminal's but for the line of the next prompt, else 80x24."""
    import shutil
    import sys

    if args.size:
        return args.size  # type: ignore[no-any-return]
    if not sys.stdout.isatty():
        return 80, 24
    found = shutil.get_terminal_size((80, 24))
    return found.columns, found.lines - 1


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and 0 < int(width) < 10_000 and 0 < int(height) < 10_000):
        raise argparse.ArgumentTypeError(f"{text!r}: expected columns and lines, such as 80x24")
    return int(width), int(height)


def run_curves(args: argparse.Namespace) -> int:
    """Write a picture or a table of a run's metrics."""
    from pathlib import Path

    from workbench.errors import UsageError
    from workbench.run_list import find_run
    from workbench.run_picture import check_target, write_csv, write_picture

    workspace, to = workspace_of(args), Path(args.to).expanduser()
    check_target(to)
    runs = [find_run(workspace, run) for run in dict.fromkeys(args.runs)]
    table = to.suffix.lower() == ".csv"
    if (args.panel and table) or (args.metric and not table):
        raise UsageError("--panel is for pictures (.svg, .png), --metric for tables (.csv)")
    if table:
        count, what = write_csv(runs, to, args.metric), "line"
    else:
        count, what = write_picture(runs, to, args.panel, log=args.log), "panel"
    if args.json:
        write_json({"schema": SCHEMA, "runs": [run.id for run in runs], "file": str(to), f"{what}s": count})
    else:
        say(str(to))
        note(counted(count, what))
    return 0


def run_diff(args: argparse.Namespace) -> int:
    """Hold runs against the first."""
    from workbench.comparison_table import marks_told, metric_table, setting_table
    from workbench.errors import UsageError
    from workbench.run_comparison import compare, facts_of
    from workbench.run_list import find_run

    workspace = workspace_of(args)
    runs = list({run.id: run for run in (find_run(workspace, name) for name in args.runs)}.values())
    if len(runs) < 2:
        raise UsageError("runs diff needs two runs or more; see: workbench runs ls")
    found = compare([facts_of(run) for run in runs])
    if args.json:
        write_json(found.as_json())
        return 0
    for place, run in enumerate(runs, 1):
        say(f"{place}  {run.id}")
    say()
    write_table(*setting_table(found), empty="No setting differs.")
    say()
    write_table(*metric_table(found, args.metric), empty="No metric to compare.")
    for told in (*marks_told(found), *found.warnings):
        note(told)
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
