"""Opening the app on a terminal: what must be true of the terminal, and what the exit code is.

Owns the refusal where there is no terminal to draw on, and the order of shutting down. The command line calls
`open_app`.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from engine.run.safe_text import safe
from workbench.errors import UsageError, WorkbenchError
from workbench.rows_ahead import RowsAhead
from workbench.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from screens.app import WorkbenchApp

SWITCH_S = 0.0005
"""How long a thread that has something to do waits for one that works on; Python's own is 5 ms."""
_NO_SCREENS = ("dumb", "unknown", "")


def require_terminal(environment: Mapping[str, str] = os.environ) -> None:
    """Raises UsageError where the app cannot be drawn: no terminal, or one that cannot move its cursor."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the app needs a terminal, and this is none; the same things are commands: workbench --help")
    if environment.get("TERM", "") in _NO_SCREENS:
        name = environment.get("TERM", "")
        raise UsageError(f"the app cannot draw on a terminal with TERM={name!r}; set TERM, or see: workbench --help")


def open_app(
    workspace: Workspace,
    *,
    station: str = "home",
    subject: str = "",
    annotator: str = "",
    mouse: bool = True,
    guided: bool = False,
    only: bool = False,
) -> int:
    """Run the app until it is left; its exit code. `annotator` is who judges, instead of who the settings name.

    With `only` there is the one station, and this process can start no program any more.
    """
    require_terminal()
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    # What is imported stays: looking through it for garbage again and again is a tenth of the time to the first frame.
    gc.set_threshold(100_000)
    # A frame is written by a thread of its own, and a verdict saved in one: neither waits long for what goes on here.
    sys.setswitchinterval(SWITCH_S)
    sys.__stderr__ = written_whole(sys.__stderr__)  # type: ignore[misc, assignment]  # what Textual draws on
    ahead = RowsAhead(workspace, subject) if station == "inspect" else None
    from screens.app import WorkbenchApp
    from workbench.user_settings import read_settings

    settings = read_settings()
    if annotator:
        settings = replace(settings, annotator=annotator)
    guide = None
    if guided:
        from screens.guide import Guide

        guide = Guide(workspace)
    kind = _only_label() if only else WorkbenchApp
    app = kind(workspace, settings=settings, station=station, subject=subject, guide=guide, ahead=ahead)
    code = app.run(mouse=mouse)
    if app.crash is not None:
        raise app.crash
    return code if isinstance(code, int) else app.return_code or 0


def written_whole(stream: TextIO | None) -> TextIO | None:
    """The stream, or, where it has no buffer (PYTHONUNBUFFERED), one with a buffer on the same file.

    A signal, as a resize is one, may end a write to a terminal early; only a buffer writes the rest.
    """
    if stream is None or not isinstance(getattr(stream, "buffer", None), io.RawIOBase):
        return stream
    return open(stream.fileno(), "w", encoding=stream.encoding, errors=stream.errors, closefd=False)


def _only_label() -> type[WorkbenchApp]:
    from screens.only_label import OnlyLabelApp, forbid_programs

    forbid_programs()
    return OnlyLabelApp


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m screens.start WORKSPACE`: the app without the command line."""
    parser = argparse.ArgumentParser(prog="screens.start")
    parser.add_argument("workspace")
    parser.add_argument("--station", default="home")
    parser.add_argument("--subject", default="")
    parser.add_argument("--no-mouse", action="store_true")
    parser.add_argument("--guided", action="store_true")
    args = parser.parse_args(argv)
    try:
        workspace = open_workspace(args.workspace)
        return open_app(
            workspace, station=args.station, subject=args.subject, mouse=not args.no_mouse, guided=args.guided
        )
    except WorkbenchError as error:
        print(f"workbench: {safe(' '.join(str(error).split()))}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
