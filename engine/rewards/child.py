"""The program that holds and calls reward functions, apart from the training that asks it.

It is started by path, imports the standard library alone, and talks in JSON lines on the pipes that were its stdin and
stdout; these are then taken away from the functions, whose prints go to stderr. First it is told which sources to load:

    {"memory_limit_mb": 0, "functions": [{"file", "source", "name"}, …]}
    -> {"ready": [{"takes": ["answer", …], "needs": […], "any": false}, …]}   or {"fault": {…}}

then, as often as it is asked, to call one of them:

    {"function": 0, "prompts": […], "completions": […], "fields": {"answer": […]}}
    -> {"scores": [0.5, …]}   or {"fault": {"what", "where", "row"?}}

Owns what counts as a score: one finite number for each completion. Invariant: a fault of a function is an answer, never
the end of this process; only the parent ends it, or the parent's end.
"""

from __future__ import annotations

import ctypes
import inspect
import json
import linecache
import math
import os
import resource
import signal
import sys
import traceback
import types
from typing import Any

MOST_CHARACTERS = 400
GIVEN = ("prompts", "completions")


class Fault(Exception):
    """What a function did that it must not."""

    def __init__(self, what: str, where: str = "", row: int | None = None) -> None:
        super().__init__(what)
        self.told = {"what": what, "where": where, **({} if row is None else {"row": row})}


def main() -> None:
    """Load, then answer until the parent closes the pipe."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    die_with_parent()
    functions: list[Any] = []
    for line in asked:
        request = json.loads(line)
        try:
            if "functions" in request:
                limit_memory(request["memory_limit_mb"])
                functions = loaded(request["functions"])
                answer: dict[str, Any] = {"ready": [signature_of(function) for function in functions]}
            else:
                answer = {"scores": call(functions[request["function"]], request)}
        except Fault as fault:
            answer = {"fault": fault.told}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies, whatever a function is doing then."""
    if sys.platform.startswith("linux"):
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def limit_memory(megabytes: int) -> None:
    """No core dumps, and no more data than this; 0 for any amount."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if megabytes > 0:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = megabytes << 20
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def loaded(asked: list[dict[str, str]]) -> list[Any]:
    """The functions that were asked for; a fault says with `row` which of them cannot be had."""
    functions = []
    for number, one in enumerate(asked):
        try:
            functions.append(load(number, **one))
        except Fault as fault:
            fault.told["row"] = number
            raise
    return functions


def load(number: int, file: str, source: str, name: str) -> Any:
    """The function `name` of a source, run as a module of its own that no import finds."""
    title = f"reward_function_{number}"
    module = types.ModuleType(title)
    module.__file__ = file
    sys.modules[title] = module
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    try:
        exec(compile(source, file, "exec"), module.__dict__)
    except BaseException as error:
        raise raised(error, file) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise Fault(f"is no function: {name} is {described(function)}")
    return function


def signature_of(function: Any) -> dict[str, Any]:
    """Which fields of a row a function takes, which of them it cannot do without, and whether it takes any."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {"takes": [], "needs": [], "any": False}
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in GIVEN]
    return {
        "takes": [p.name for p in named],
        "needs": [p.name for p in named if p.default is p.empty],
        "any": any(p.kind == p.VAR_KEYWORD for p in parameters),
    }


def call(function: Any, request: dict[str, Any]) -> list[float]:
    """The scores that a function gives to some completions."""
    completions = request["completions"]
    try:
        returned = function(prompts=request["prompts"], completions=completions, **request["fields"])
    except BaseException as error:
        raise raised(error, inspect.getfile(function) if inspect.isfunction(function) else "") from error
    if inspect.iscoroutine(returned):
        returned.close()
    return scores_of(returned, len(completions))


def scores_of(returned: Any, count: int) -> list[float]:
    """What a function returned as numbers. Raises Fault where it is not one finite number for each completion."""
    if isinstance(returned, str | bytes | dict | set | frozenset) or not hasattr(returned, "__iter__"):
        raise Fault(f"returned {described(returned)}, expected a list of {count} numbers")
    values = list(returned)
    if len(values) != count:
        raise Fault(f"returned {len(values)} scores for {count} completions, expected one for each")
    scores = []
    for row, value in enumerate(values):
        number = number_of(value)
        if number is None:
            raise Fault(f"returned {described(value)}, expected a number", row=row)
        if not math.isfinite(number):
            raise Fault(f"returned {number}, expected a finite number", row=row)
        scores.append(number)
    return scores


def number_of(value: Any) -> float | None:
    """A number, true or false, or an array of one number, as a float; None for anything else."""
    if value is None or isinstance(value, str | bytes):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def raised(error: BaseException, file: str) -> Fault:
    """An exception of a function in a line, with the place in its own file; the traceback goes to the log."""
    traceback.print_exception(error)
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        where = f"line {error.lineno}"
    else:
        where = f"line {places[-1].lineno}" if places else ""
    return Fault(f"raised {type(error).__name__}: {shortened(str(error))}".rstrip(": "), where)


def described(value: Any) -> str:
    """What a value is, for a person."""
    if value is None:
        return "nothing (None)"
    return f"{type(value).__name__} {shortened(repr(value))}"


def shortened(text: str) -> str:
    """A text in one line that is not too long."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else line[:MOST_CHARACTERS] + "…"


if __name__ == "__main__":
    main()
