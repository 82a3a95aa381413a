"""The command line: which commands exist, and what a person sees when one of them cannot do what was asked.

Owns the table of commands, the options they share and the turning of errors into one line on stderr and an exit code:
0 done, 1 failed, 2 wrong use, 3 stopped before its end (130 after Ctrl+C, 141 where the reader of a pipe went away).
Invariant: only the module of the command that runs is imported, so that a short command starts fast. Refuses to know
what any command does: a command module parses, calls one function of the domain, and prints.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from engine.errors import ConfigError, EngineError
from engine.run.safe_text import safe
from workbench.errors import UsageError, WorkbenchError, disk_full, is_out_of_space

WRONG_USE = 2
INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 128 + signal.SIGPIPE
TRACEBACK_VARIABLE = "WORKBENCH_TRACEBACK"

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module that adds its arguments by `configure(command, parser)`, what it does)
    "demo": (
        "workbench.command_demo",
        "the whole loop on the sample data: guided in a terminal, by itself without one",
    ),
    "init": ("workbench.command_workspace", "make a workspace"),
    "data": (
        "workbench.command_data",
        "datasets: add ls show inspect profile lint convert sample split concat remake rm",
    ),
    "sql": ("workbench.command_sql", "any question about data, verdicts and runs, as a query that reads"),
    "pairs": ("workbench.command_pairs", "pairs of answers and their verdicts: make judge ls show status keyline"),
    "label": ("workbench.command_label", "judge pairs on the screen, one key each"),
    "prefs": ("workbench.command_prefs", "preference sets: freeze ls show export"),
    "train": ("workbench.command_train", "train a model: sft reward dpo simpo cpo orpo kto ppo grpo rloo"),
    "runs": ("workbench.command_runs", "runs: ls show watch diff curves logs stop resume clone import export rm"),
    "rewards": ("workbench.command_rewards", "Python reward functions: show approve revoke ls"),
    "generate": ("workbench.command_models", "let a model answer prompts; makes a dataset"),
    "eval": ("workbench.command_models", "held-out loss, or accuracy on preferences, of a model"),
    "arena": ("workbench.command_arena", "compare two models on the same prompts: make judge ls show report"),
    "models": ("workbench.command_models", "the models that --model can name here"),
    "gpus": ("workbench.command_machine", "NVIDIA GPUs and who leases them"),
    "doctor": ("workbench.command_machine", "what this machine has and lacks, with the remedy"),
}


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and whose options are never abbreviated."""

    def __init__(self, *args: object, **keywords: object) -> None:
        keywords.setdefault("allow_abbrev", False)
        keywords.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **keywords)  # type: ignore[arg-type]  # argparse's own signature, passed through

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}{_nearest_choice(message)}. See: {self.prog} --help")


def _nearest_choice(message: str) -> str:
    """What was probably meant, where argparse says that something is none of its choices."""
    import re

    found = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message)
    near = _nearest(found[1], re.findall(r"[\w-]+", found[2])) if found else ""
    return f" (did you mean {near}?)" if near else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _make_streams_forgiving()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _silence_stdout()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:  # argparse after --help
        return stop.code if isinstance(stop.code, int) else WRONG_USE
    except Exception as error:
        if _is_an_interrupt(error):
            print(file=sys.stderr)
            return INTERRUPTED
        return _explain(error)


def _is_an_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl+C stands behind an error that is none of ours: a library's import may turn it into its own."""
    if isinstance(error, (WorkbenchError, EngineError)):
        return False
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _run(arguments: list[str]) -> int:
    workspace, mouse, rest = _leading_options(arguments)
    if not rest:
        return _open_app(workspace, mouse)
    command = rest[0]
    if command in ("-h", "--help", "help"):
        print(overview())
        return 0
    if command in ("-V", "--version"):
        print(f"workbench {_version()}")
        return 0
    if command not in COMMANDS:
        raise UsageError(_unknown_command(command))
    module_name, summary = COMMANDS[command]
    parser = CommandParser(prog=f"workbench {command}", description=summary[0].upper() + summary[1:] + ".")
    import_module(module_name).configure(command, parser)
    known, unknown = parser.parse_known_args(rest[1:])
    if unknown:
        where = f"workbench {command} {getattr(known, 'verb', '')}".rstrip()
        raise UsageError(f"unrecognized arguments: {' '.join(unknown)}. See: {where} --help")
    if getattr(known, "workspace", None) is None:
        known.workspace = workspace
    result: int = known.action(known)
    return result


def _open_app(path: str | None, mouse: bool) -> int:
    """`workbench` alone: the app where there is a terminal, else what the commands are."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(overview(), file=sys.stderr)
        return WRONG_USE
    from workbench.app_opening import open_app
    from workbench.workspace import open_workspace

    return open_app(open_workspace(path), mouse=mouse)


def overview() -> str:
    """The commands, a line each: what `--help` says, and `workbench` alone where there is no terminal."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "workbench: from a file of answers to a better model, in a terminal.",
            "",
            "workbench alone opens the app. Commands (workbench COMMAND --help says more; wb is the same program):",
            *lines,
            "",
            "Options: --workspace PATH (else $WORKBENCH_WORKSPACE, else upward from here), --no-mouse, --version,",
            "  --help",
            "Start with: workbench demo",
        ]
    )


def _leading_options(arguments: list[str]) -> tuple[str | None, bool, list[str]]:
    """`--workspace PATH` and `--no-mouse` before the command, and what is left."""
    workspace, mouse = None, True
    while arguments:
        if arguments[0] == "--workspace":
            if len(arguments) < 2:
                raise UsageError("--workspace needs a PATH")
            workspace, arguments = arguments[1], arguments[2:]
        elif arguments[0].startswith("--workspace="):
            workspace, arguments = arguments[0].partition("=")[2], arguments[1:]
        elif arguments[0] == "--no-mouse":
            mouse, arguments = False, arguments[1:]
        else:
            break
    return workspace, mouse, arguments


def _unknown_command(command: str) -> str:
    near = _nearest(command, COMMANDS)
    hint = f"Did you mean {near}?" if near else f"There are: {' '.join(COMMANDS)}."
    what = "option" if command.startswith("-") else "command"
    return f"no {what} {command!r}. {hint}"


def _nearest(word: str, choices: Iterable[str]) -> str:
    """The choice that was probably meant; empty where none is near."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, choices, n=1, cutoff=0.7)), "")


def _explain(error: Exception) -> int:
    """One safe line on stderr; the exit code."""
    if os.environ.get(TRACEBACK_VARIABLE):
        print(safe("".join(traceback.format_exception(error)), newlines=True), file=sys.stderr)
    code, message = 1, str(error)
    if isinstance(error, WorkbenchError):
        code = error.exit_code
    elif isinstance(error, ConfigError):
        code = WRONG_USE
    elif isinstance(error, EngineError):
        pass
    elif is_out_of_space(error):
        message = str(disk_full("writing", _place_of(error)))
    elif isinstance(error, OSError):
        message = f"{error.filename or 'a file'}: {error.strerror or error}"
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        message = (
            f"a fault in this program: {type(error).__name__}: {error} ({os.path.basename(last.filename)}, line "
            f"{last.lineno}). Please report it; {TRACEBACK_VARIABLE}=1 shows where it came from."
        )
    print(f"workbench: {safe(' '.join(message.split()))}", file=sys.stderr)
    return code


def _place_of(error: BaseException) -> Path:
    name = getattr(error, "filename", None)
    return Path(name) if isinstance(name, str) else Path.cwd()


def _make_streams_forgiving() -> None:
    """A character that the terminal's encoding lacks is written as an escape instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    """The reader is gone: what is still buffered must not raise again when the interpreter ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("workbench")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
