"""The restricted program behind an SSH key: `python -I …/workbench/label_door.py N --as WHO --workspace PATH`.

Owns what of its surroundings the program believes: nothing but a terminal's name from a list, a language, and who runs
it. It is the command that `workbench pairs keyline` writes into authorized_keys, and what `label --only` becomes.
Invariants: whatever the client asks for (SSH_ORIGINAL_COMMAND) is not looked at; every variable that is not allowed is
gone before anything else is imported; stop and quit signals do nothing; no file of this process is readable by others,
and no core of it is written. With -I Python itself reads no variable and no folder of the user.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
from collections.abc import Mapping

_NAMES = """
    alacritty foot ghostty gnome-256color konsole-256color linux putty putty-256color rxvt-unicode rxvt-unicode-256color
    screen screen-256color st st-256color tmux tmux-256color vt220 vte-256color wezterm xterm xterm-256color xterm-color
    xterm-ghostty xterm-kitty
"""
TERMS = frozenset(_NAMES.split())
PLAIN_TERM = "xterm"
"""For a terminal that is not on the list: what nearly all of them understand."""
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}([_.@-][A-Za-z0-9]{1,16}){0,3}")
_KEPT = ("HOME", "USER", "LOGNAME")
_LANGUAGES = ("LANG", "LC_ALL", "LC_CTYPE")
_SEARCHED = "/usr/local/bin:/usr/bin:/bin"


def allowed_environment(given: Mapping[str, str]) -> dict[str, str]:
    """The variables that the restricted program runs with, of those that it was given."""
    kept = {name: given[name] for name in _KEPT if given.get(name)}
    kept |= {name: given[name] for name in _LANGUAGES if _LANGUAGE.fullmatch(given.get(name, ""))}
    if "NO_COLOR" in given:
        kept["NO_COLOR"] = "1"
    if given.get("COLORTERM") in ("truecolor", "24bit"):
        kept["COLORTERM"] = "truecolor"
    named = given.get("TERM", "")
    if named:
        kept["TERM"] = named if named in TERMS or named == "dumb" else PLAIN_TERM
    return kept | {"PATH": _SEARCHED}


def close_door() -> None:
    """Make this process the restricted program: its variables, its signals, its limits. Nothing takes it back."""
    allowed = allowed_environment(os.environ)
    os.environ.clear()
    os.environ.update(allowed)
    os.umask(0o077)
    for ignored in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGQUIT):
        signal.signal(ignored, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    """The program; its exit code."""
    close_door()
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from workbench.cli import main as run

    return run(["label", *sys.argv[1:], "--only"])


if __name__ == "__main__":
    sys.exit(main())
