"""Which files of reward functions a person has approved on this machine.

Owns $XDG_STATE_HOME/workbench/rewards/: a journal of approvals, and a copy of each approved file beside it, so that a
changed file can be compared with what was approved. An approval is of a content, by its sha256, and of a machine.
Invariants: nothing in a workspace can approve anything, so a workspace that comes from somebody else cannot run its
code here; an approval that others could have written does not count. Torch-free.
"""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from engine.errors import NotApproved, RewardError
from engine.run.durable_files import append_line, disk_faults_named, encode_line, read_jsonl, write_atomically

SCHEMA = 1
_MACHINE_ID = Path("/etc/machine-id")


@dataclass(frozen=True)
class Approval:
    """One file that was approved here."""

    sha256: str
    file: str
    """Where it lay then."""
    time: str
    """ISO 8601, UTC."""


def state_folder() -> Path:
    """Where approvals are kept, whether or not there are any."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base) / "workbench" / "rewards"


def journal_path() -> Path:
    """The journal of approvals."""
    return state_folder() / "approved.jsonl"


def approvals() -> dict[str, Approval]:
    """The approvals in force on this machine, by sha256, the oldest first. Raises RewardError where others may have
    written them."""
    _require_private()
    found: dict[str, Approval] = {}
    for _, line in read_jsonl(journal_path()):
        sha256, file, time = (line.get(key) for key in ("sha256", "file", "time"))
        if not isinstance(sha256, str) or line.get("machine") != this_machine():
            continue
        found.pop(sha256, None)
        if line.get("approved") is True:
            found[sha256] = Approval(sha256, str(file), str(time))
    return found


def approve(path: Path, content: bytes, sha256: str) -> Approval:
    """Approve a content on this machine. Raises RewardError where it cannot be kept."""
    approval = Approval(sha256, str(path), datetime.now(UTC).isoformat(timespec="seconds"))
    with disk_faults_named("keeping an approval", journal_path()):
        state_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private()
        write_atomically(copy_of(sha256), content)
        _append(approval, approved=True)
    return approval


def revoke(approval: Approval) -> None:
    """Take an approval back."""
    with disk_faults_named("taking an approval back", journal_path()):
        _append(approval, approved=False)
        copy_of(approval.sha256).unlink(missing_ok=True)


def require_approved(sha256: str, path: Path) -> None:
    """Raises NotApproved, with the command that approves, where the content was not approved on this machine."""
    known = approvals()
    if sha256 in known:
        return
    before = earlier_of(path, known)
    how = f"has changed since it was approved on {before.time[:10]}" if before else "is not approved on this machine"
    raise NotApproved(
        f"{path} {how}, and a file of reward functions is run only after somebody read and approved it. "
        f"Its sha256 is {sha256}. Read it, then: {approving_command(path, sha256)}"
    )


def approving_command(path: Path, sha256: str) -> str:
    """What a person types to approve the content that they have read."""
    import shlex

    return f"workbench rewards approve {shlex.quote(str(path))} --sha256 {sha256}"


def earlier_of(path: Path, known: Mapping[str, Approval]) -> Approval | None:
    """The newest approval of another content of the same file."""
    return next((one for one in reversed(list(known.values())) if one.file == str(path)), None)


def copy_of(sha256: str) -> Path:
    """Where the approved content is kept."""
    return state_folder() / f"{sha256}.py"


@cache
def this_machine() -> str:
    """What tells this machine from others that may share the home folder."""
    try:
        found = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        found = ""
    return found or platform.node()


def _append(approval: Approval, *, approved: bool) -> None:
    line = {
        "schema": SCHEMA,
        "approved": approved,
        "sha256": approval.sha256,
        "file": approval.file,
        "machine": this_machine(),
        "time": approval.time if approved else datetime.now(UTC).isoformat(timespec="seconds"),
    }
    append_line(journal_path(), encode_line(line), durable=True)


def _require_private() -> None:
    """Raises RewardError where somebody else could have written an approval."""
    for path in (state_folder(), journal_path()):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise RewardError(
                f"{path}: can be written by others (owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}), so "
                f"the approvals in it do not count. Look at what is in it, then: chmod go-w {path}"
            )
