"""`workbench rewards`: read, approve and revoke files of Python reward functions on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.command_arguments import Action
from workbench.errors import NotFound, UsageError
from workbench.terminal_output import Column, local_time, note, say, write_json, write_table

if TYPE_CHECKING:
    from engine.rewards.approvals import Approval

SCHEMA = 1
HASH_CHARACTERS = 12
DESCRIPTION = """\
A reward function is Python that a run calls to judge answers. Its file is run only after
somebody read and approved it on this machine; a file that changes needs approval again.

  workbench rewards show lexicon.py             read it: its hash, and its source
  workbench rewards approve lexicon.py          asks, in a terminal; else with --sha256 of what was read
  workbench train grpo … --reward lexicon.py:positive:0.3
"""


def configure(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `rewards`."""
    parser.epilog = DESCRIPTION
    verbs = parser.add_subparsers(required=True, metavar="VERB", dest="verb")
    _verb(verbs, "ls", "the files that were approved on this machine", run_ls)
    show = _verb(verbs, "show", "a file with its hash and source; nothing of it is run", run_show)
    show.add_argument("file", metavar="FILE", help="a .py file")
    approve = _verb(verbs, "approve", "let runs on this machine call the functions of a file", run_approve)
    approve.add_argument("file", metavar="FILE", help="a .py file")
    approve.add_argument("--sha256", default="", metavar="HASH", help="of the content that you have read")
    revoke = _verb(verbs, "revoke", "take an approval back", run_revoke)
    revoke.add_argument("what", metavar="FILE|HASH", help="a file that was approved, or the beginning of a hash")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, action: Action
) -> argparse.ArgumentParser:
    """A verb that needs no workspace."""
    parser = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.add_argument("--json", action="store_true", help="machine output on stdout")
    parser.set_defaults(action=action)
    return parser


def run_ls(args: argparse.Namespace) -> int:
    """List the approvals in force."""
    from engine.rewards.approvals import approvals

    found = list(approvals().values())
    if args.json:
        rows = [{"sha256": one.sha256, "file": one.file, "time": one.time, "file_now": _state(one)} for one in found]
        write_json({"schema": SCHEMA, "approved": rows})
        return 0
    columns = [Column("sha256"), Column("approved"), Column("file now"), Column("file", shrinks=True)]
    table = [[one.sha256[:HASH_CHARACTERS], local_time(one.time), _state(one), one.file] for one in found]
    write_table(columns, table, empty="No file of reward functions is approved on this machine.")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print a file's hash, whether it is approved, and its source."""
    from engine.rewards.approvals import approvals

    path, content, sha256 = _read(args.file)
    approved = sha256 in approvals()
    if args.json:
        source = content.decode("utf-8", "replace")
        write_json({"schema": SCHEMA, "file": str(path), "sha256": sha256, "approved": approved, "source": source})
        return 0
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        say(f"{number:>4}  {line}")
    note(f"{path}: sha256 {sha256}, {'approved' if approved else 'not approved'} on this machine")
    return 0


def run_approve(args: argparse.Namespace) -> int:
    """Approve a file's content: the one of --sha256, else the one that is shown and confirmed."""
    from engine.rewards.approvals import approve, approving_command
    from engine.rewards.function_files import parsed, require_alone

    path, content, sha256 = _read(args.file)
    require_alone(path, parsed(path, content))
    if args.sha256:
        _require_same(args.sha256.lower(), sha256, path)
    elif sys.stdin.isatty():
        run_show(args)
        note("Runs on this machine may then call its functions. Approve it? [y/N]")
        if input().strip().lower() not in ("y", "yes"):
            note("Nothing was approved.")
            return 1
    else:
        raise UsageError(
            f"rewards approve {args.file}: say which content you have read (workbench rewards show {args.file}): "
            f"{approving_command(path, sha256)}"
        )
    approval = approve(path, content, sha256)
    if args.json:
        write_json({"schema": SCHEMA, "sha256": sha256, "file": approval.file, "time": approval.time})
        return 0
    note(f"{path} is approved on this machine, as it is now ({sha256[:HASH_CHARACTERS]}…).")
    return 0


def run_revoke(args: argparse.Namespace) -> int:
    """Take back the approvals of a file, or of a hash."""
    from engine.rewards.approvals import approvals, revoke

    path = os.path.abspath(os.path.expanduser(args.what))
    known = approvals().values()
    found = [one for one in known if one.file == path or (len(args.what) >= 8 and one.sha256.startswith(args.what))]
    if not found:
        raise NotFound(f"{args.what}: no approval of this machine is of that file or hash. See: workbench rewards ls")
    for one in found:
        revoke(one)
        note(f"{one.file} ({one.sha256[:HASH_CHARACTERS]}…) is no longer approved; a run that began goes on.")
    if args.json:
        write_json({"schema": SCHEMA, "revoked": [one.sha256 for one in found]})
    return 0


def _read(written: str) -> tuple[Path, bytes, str]:
    import hashlib

    from engine.rewards.function_files import read_source

    path = Path(os.path.abspath(os.path.expanduser(written)))
    content = read_source(path)
    return path, content, hashlib.sha256(content).hexdigest()


def _require_same(asked: str, found: str, path: Path) -> None:
    if asked == found:
        return
    raise UsageError(
        f"{path} has the sha256 {found}, not {asked}: it is not the content that you have read, or the hash is cut. "
        f"Read it again: workbench rewards show {path}"
    )


def _state(approval: Approval) -> str:
    """What has become of the file where it was approved."""
    import hashlib

    try:
        same = hashlib.sha256(Path(approval.file).read_bytes()).hexdigest() == approval.sha256
    except OSError:
        return "gone"
    return "the same" if same else "changed"
