"""A workspace: one private folder that holds everything the program makes.

Owns where things lie, who may write, which names are allowed, and how a new named thing becomes visible: it is built
in a hidden folder beside its place, synced, and renamed there in one step, so that a crash never leaves half of one.
Invariants: folders are 0700, files 0600; paths inside are relative, so a moved workspace opens; nothing is overwritten.
Refuses to know what is inside a dataset, a pair set or a run.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
import tomllib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import tomli_w

from engine.run.durable_files import fsync_folder, write_atomically
from workbench.errors import NameTaken, NotFound, ReadOnly, UsageError, WorkbenchError, explain_os_errors, some_of

SCHEMA = 1
MARKER = "workspace.toml"
ENVIRONMENT_VARIABLE = "WORKBENCH_WORKSPACE"
Kind = Literal["datasets", "pairs", "prefs", "runs", "arena", "blobs"]
KINDS: tuple[Kind, ...] = ("datasets", "pairs", "prefs", "runs", "arena", "blobs")
SINGULAR: dict[Kind, str] = {
    "datasets": "dataset",
    "pairs": "pair set",
    "prefs": "preference set",
    "runs": "run",
    "arena": "arena",
    "blobs": "blob",
}
# `--data NAME` means a dataset or a preference set, so the two share their names.
_SAME_NAMESPACE: dict[Kind, tuple[Kind, ...]] = {"datasets": ("datasets", "prefs"), "prefs": ("datasets", "prefs")}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HIDDEN_PREFIX = ".new-"


@dataclass(frozen=True)
class Workspace:
    """An open workspace: its paths, and whether it may be written."""

    root: Path
    """Absolute."""
    id: str
    """Random hex, made once; tells two workspaces of the same name apart."""
    schema: int
    """Format version found in workspace.toml; above SCHEMA the workspace is read-only."""
    read_only_reason: str = ""
    """Empty when the workspace may be written, else why it may not and what to do."""

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def pairs(self) -> Path:
        return self.root / "pairs"

    @property
    def prefs(self) -> Path:
        return self.root / "prefs"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def arena(self) -> Path:
        return self.root / "arena"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    def folder(self, kind: Kind) -> Path:
        """The folder that holds all things of one kind."""
        return self.root / kind

    def require_writable(self) -> None:
        """Raises ReadOnly where this workspace may not be written."""
        if self.read_only_reason:
            raise ReadOnly(f"workspace {self.root} is read-only: {self.read_only_reason}")

    def names(self, kind: Kind) -> list[str]:
        """The names of all finished things of one kind, sorted; hidden and stray entries are not among them."""
        folder = self.folder(kind)
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if _NAME.fullmatch(entry.name) and entry.is_dir())

    def existing(self, kind: Kind, name: str) -> Path:
        """The folder of a thing that must exist; NotFound names what there is instead."""
        check_name(name, SINGULAR[kind])
        folder = self.folder(kind) / name
        if not folder.is_dir():
            there = some_of(self.names(kind))
            raise NotFound(f"no {SINGULAR[kind]} named {name} in {self.root}. There are: {there}.")
        return folder

    def require_free(self, kind: Kind, name: str) -> None:
        """Raises NameTaken where `name` is occupied; datasets and preference sets share one namespace."""
        for other in _SAME_NAMESPACE.get(kind, (kind,)):
            if os.path.lexists(self.folder(other) / name):
                shared = "" if other == kind else " (datasets and preference sets share their names)"
                raise NameTaken(
                    f"the name {name} is taken by {with_article(SINGULAR[other])} in this workspace{shared}. "
                    "Choose another name; nothing is overwritten."
                )

    @contextmanager
    def new_folder(self, kind: Kind, name: str) -> Iterator[Path]:
        """A hidden folder to fill; it becomes KIND/NAME when the block ends well, and is removed when it does not.

        What a killed process left behind is swept here: a builder holds a flock on its hidden folder, so one that can
        be locked has no builder any more.
        """
        self.require_writable()
        check_name(name, SINGULAR[kind])
        self.require_free(kind, name)
        parent = self.folder(kind)
        with explain_os_errors(f"making {SINGULAR[kind]} {name}", parent):
            parent.mkdir(mode=0o700, exist_ok=True)
            _sweep_abandoned(parent)
            hidden, lock = _make_locked_folder(parent, name)
            try:
                yield hidden
                _make_private_and_sync(hidden)
                self.require_free(kind, name)
                os.rename(hidden, parent / name)
                fsync_folder(parent)
            except FileExistsError as error:
                raise NameTaken(f"the name {name} was taken by another process in the meantime.") from error
            finally:
                shutil.rmtree(hidden, ignore_errors=True)
                os.close(lock)

    def relative(self, path: Path) -> str:
        """`path` as it is written into a file of this workspace: relative where it lies inside, else absolute."""
        path = Path(os.path.abspath(path))
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def resolve(self, written: str) -> Path:
        """The inverse of `relative`, in the workspace as it lies now."""
        return self.root / written


def check_name(name: str, what: str) -> str:
    """Returns `name` if it may name a `what`; else raises UsageError that says what is allowed."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise UsageError(
            f"{name[:80]!r} cannot name {with_article(what)}: a name is 1 to 64 letters, digits, '.', '_' or '-', "
            "starts with a letter or digit, and has no '..' or '/'."
        )
    return name


def name_problem(workspace: Workspace, kind: Kind, name: str) -> str:
    """Why a new thing cannot be called so; empty where it can."""
    try:
        check_name(name, SINGULAR[kind])
        workspace.require_free(kind, name)
    except WorkbenchError as error:
        return str(error)
    return ""


def free_name(taken: Collection[str], stem: str) -> str:
    """`stem`, or the first of stem-2, stem-3 … that is not taken."""
    name, number = stem[:60], 1
    while name in taken:
        number += 1
        name = f"{stem[:60]}-{number}"
    return name


def with_article(noun: str) -> str:
    """a run, an arena."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def init(path: str | os.PathLike[str]) -> Workspace:
    """Makes a workspace at `path` (made if missing) and opens it.

    A new or empty folder becomes 0700. A folder that already holds other files keeps its mode, so that nothing of the
    person's is changed; what the workspace makes inside is private all the same.
    """
    root = Path(os.path.abspath(path))
    if (root / MARKER).exists():
        raise NameTaken(f"{root} is a workspace already; open it with --workspace {root}.")
    if root.exists() and not root.is_dir():
        raise NameTaken(f"{root} is a file; name a folder for the workspace.")
    with explain_os_errors("making a workspace", root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(root.iterdir()):
            root.chmod(0o700)
        if reason := _why_not_private(root):
            raise WorkbenchError(f"cannot make a workspace in {root}: {reason}")
        for kind in KINDS:
            (root / kind).mkdir(mode=0o700, exist_ok=True)
        content = {"schema": SCHEMA, "id": secrets.token_hex(8), "created": now()}
        write_atomically(root / MARKER, tomli_w.dumps(content).encode())
    return open_workspace(root)


def open_workspace(path: str | os.PathLike[str] | None = None) -> Workspace:
    """Opens the workspace at `path`, else $WORKBENCH_WORKSPACE, else the first one upward from the current folder."""
    root, how = _find(path)
    marker = root / MARKER
    if not marker.is_file():
        where = f"{root} ({how})" if how else str(root)
        raise NotFound(f"no workspace at {where}: it has no {MARKER}. Make one with: workbench init {root}")
    content = read_toml(marker)
    schema = content.get("schema")
    if not isinstance(schema, int) or not isinstance(content.get("id"), str):
        raise WorkbenchError(f"{marker}: has no schema number or id; it is not a workspace file of this program.")
    reason = _why_not_private(root)
    if schema > SCHEMA:
        reason = f"its format is version {schema} and this program writes version {SCHEMA}; update the program."
    elif not reason and not os.access(root, os.W_OK):
        reason = "the file system or its permissions allow no writing."
    return Workspace(root=root, id=content["id"], schema=schema, read_only_reason=reason)


def now() -> str:
    """The present time as it is written into files: ISO 8601, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file of the workspace; a damaged one raises an error that names file and place."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"{path} is missing; what it described cannot be opened. Restore it from a copy.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorkbenchError(f"{path}: not readable as TOML ({error}). Restore it from a copy.") from error
    except OSError as error:
        raise WorkbenchError(f"{path}: cannot be read ({error.strerror}).") from error


def write_toml(path: Path, content: dict[str, Any]) -> None:
    """Writes a TOML file of the workspace in one step."""
    write_atomically(path, tomli_w.dumps(content).encode("utf-8"))


def _find(path: str | os.PathLike[str] | None) -> tuple[Path, str]:
    if path is not None:
        return Path(os.path.abspath(path)), ""
    if named := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(os.path.abspath(named)), f"${ENVIRONMENT_VARIABLE}"
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / MARKER).is_file():
            return folder, "found upward from the current folder"
    raise NotFound(
        f"no workspace here: neither --workspace nor ${ENVIRONMENT_VARIABLE} is given, and {here} and the folders "
        f"above it have no {MARKER}. Make one with: workbench init PATH"
    )


def _why_not_private(root: Path) -> str:
    """Why others could change what lies here, or the empty string."""
    me = os.geteuid()
    for folder in (root, *(root / kind for kind in KINDS)):
        try:
            found = folder.stat()
        except FileNotFoundError:
            continue
        if found.st_uid != me:
            return f"{folder} belongs to uid {found.st_uid}, and you are uid {me}; only its owner writes to it."
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return (
                f"{folder} can be written by others (mode {stat.S_IMODE(found.st_mode):04o}); run: chmod go-w {folder}"
            )
    return ""


def _make_locked_folder(parent: Path, name: str) -> tuple[Path, int]:
    while True:
        hidden = parent / f"{_HIDDEN_PREFIX}{name}-{secrets.token_hex(4)}"
        hidden.mkdir(mode=0o700)
        try:
            lock = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # swept between mkdir and open
        fcntl.flock(lock, fcntl.LOCK_EX)
        if hidden.exists():
            return hidden, lock
        os.close(lock)  # swept between open and flock


def _sweep_abandoned(parent: Path) -> None:
    for hidden in parent.glob(f"{_HIDDEN_PREFIX}*"):
        try:
            lock = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(hidden, ignore_errors=True)
        except OSError:
            pass  # its builder is alive
        finally:
            os.close(lock)


def _make_private_and_sync(folder: Path) -> None:
    for place, _, files in os.walk(folder):
        os.chmod(place, 0o700)
        for file in files:
            path = os.path.join(place, file)
            os.chmod(path, 0o600)
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_folder(Path(place))
