"""The lines that let an annotator in: one for authorized_keys, and one for sudo.

Owns their quoting. Invariants: every path is absolute and quoted for the shell that sshd starts, the whole command for
sshd's own parser; what cannot be quoted for both is refused, never guessed. Refuses to know who may see what: a line is
printed, and the owner puts it where it belongs.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

from workbench import label_door
from workbench.errors import NotFound, UsageError
from workbench.pair_sets import PairSet
from workbench.workspace import check_name

PLACE_FOR_THE_KEY = "PUBLIC-KEY-OF-"
_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
    r" [A-Za-z0-9+/]{40,4096}={0,3}( [^\x00-\x1f\x7f]{0,200})?"
)
_UNQUOTABLE = re.compile(r'[\x00-\x1f\x7f"\\]')


def door_command(pair_set: PairSet, annotator: str) -> list[str]:
    """The restricted program as arguments: this Python, apart from the user's variables, on this workspace."""
    check_name(annotator, "annotator")
    door = os.path.abspath(label_door.__file__)
    words = [os.path.abspath(sys.executable), "-I", door, pair_set.name, "--as", annotator]
    words += ["--workspace", str(pair_set.workspace.root)]
    for word in words:
        if _UNQUOTABLE.search(word):
            raise UsageError(
                f"{word!r} has a quote, a backslash or a control character, which an authorized_keys line cannot hold "
                "safely. Move the workspace or the program to a plainer path."
            )
    return words


def authorized_keys_line(pair_set: PairSet, annotator: str, public_key: str = "") -> str:
    """One line for ~/.ssh/authorized_keys of the account that owns the workspace."""
    command = " ".join(map(_always_quoted, door_command(pair_set, annotator)))
    return f'restrict,pty,command="exec {command}" {public_key or PLACE_FOR_THE_KEY + annotator}'


def sudo_lines(pair_set: PairSet, annotator: str, account: str, owner: str) -> tuple[str, str]:
    """(the sudoers rule, what the annotator types) for an annotator with an account of their own on this machine."""
    words = door_command(pair_set, annotator)
    rule = " ".join(re.sub(r"([,:=\s*?\[\]!#])", r"\\\1", word) for word in words)
    return (
        f"{account} ALL=({owner}) NOPASSWD: {rule}",
        f"sudo -u {shlex.quote(owner)} {' '.join(map(shlex.quote, words))}",
    )


def read_public_key(path: Path) -> str:
    """The one line of a .pub file. UsageError where it is anything else, a private key above all."""
    try:
        lines = path.read_text("utf-8").strip().splitlines()
    except OSError as error:
        raise NotFound(
            f"--key {path}: {error.strerror}. Name the annotator's file of the kind id_ed25519.pub."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--key {path}: is no text. Name a public key, such as id_ed25519.pub.") from error
    if len(lines) != 1 or not _KEY.fullmatch(lines[0]):
        what = (
            "a PRIVATE key; it must never leave its owner" if lines and "PRIVATE KEY" in lines[0] else "no public key"
        )
        raise UsageError(f"--key {path}: is {what}. Expected one line: ssh-ed25519 AAAA… NAME.")
    return lines[0]


def _always_quoted(word: str) -> str:
    return "'" + word.replace("'", "'\"'\"'".replace('"', '\\"')) + "'"
