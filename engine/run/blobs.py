"""Blobs: frozen and tokenised examples under the hash of what they are, shared by the runs of a workspace.

    blobs/SHA256            a file of frozen examples, named by its content; the runs that use it hold hard links to it
    blobs/KEY/              a store of tokenised examples, named by what decides its content

Owns where a run's blobs lie and the run's note of the stores that it uses (data/blobs.json), which is written before a
store is made, so that collecting never takes what a run is about to use. Invariant: a run whose blobs are gone still
opens: its frozen examples are its own link or copy, and a store is made again. Refuses to know what a store holds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import orjson

from engine.errors import DataError
from engine.run.durable_files import disk_faults_named, fsync_folder, read_json_object, write_atomically
from engine.run.folder import RunFolder

SCHEMA = 1
NOTE = "blobs.json"
_WORKSPACE_MARKER = "workspace.toml"


def blobs_folder(folder: RunFolder) -> Path:
    """Where the blobs of a run lie: the workspace's folder, or one of its own where it lies in no workspace."""
    root = folder.path.absolute().parent.parent
    return root / "blobs" if (root / _WORKSPACE_MARKER).is_file() else folder.data / "blobs"


def note_blobs(folder: RunFolder, used: Mapping[str, str]) -> None:
    """Write down which stores the run uses: {"train": KEY, "eval": KEY …}."""
    if blobs_used_by(folder) == dict(used):
        return
    with disk_faults_named("noting the run's examples", folder.data / NOTE):
        content = {"schema": SCHEMA, "blobs": dict(used)}
        write_atomically(folder.data / NOTE, orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")


def blobs_used_by(folder: RunFolder) -> dict[str, str]:
    """The stores that the run noted; empty where it has noted none."""
    content = read_json_object(folder.data / NOTE) or {}
    used = content.get("blobs")
    return {str(k): str(v) for k, v in used.items()} if isinstance(used, dict) else {}


def share_file(file: Path, sha256: str, blobs: Path) -> bool:
    """Make `file`, whose content has this hash, and the blob of that name one file on the disk. False where it cannot.

    A blob that is there and is not what its name says is replaced. Without hard links (another filesystem, or one that
    has none) `file` stays as it is, and there is no blob.
    """
    blob = blobs / sha256
    aside = file.with_name(f".{file.name}.shared")
    try:
        if _is(blob, sha256):
            os.link(blob, aside)
            os.replace(aside, file)
        else:
            spare = blobs / f".{sha256}.{os.getpid()}.new"
            os.link(file, spare)
            os.replace(spare, blob)
            fsync_folder(blobs)
    except OSError:
        aside.unlink(missing_ok=True)
        return False
    return True


def require_unchanged(file: Path, sha256: str) -> str:
    """The hash of a frozen file. Raises DataError where it is not `sha256` (empty: unknown, anything will do)."""
    found = sha256_of(file)
    if sha256 and found != sha256:
        raise DataError(
            f"{file}: its content has changed since it was frozen (sha256 {found[:12]}…, and run.toml says "
            f"{sha256[:12]}…): restore it from a copy, or start anew from the data with: workbench runs clone"
        )
    return found


def sha256_of(file: Path) -> str:
    """Hash of a file's content. Raises DataError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as stream:
            while part := stream.read(1 << 20):
                digest.update(part)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}): check that the file is there") from error
    return digest.hexdigest()


def _is(blob: Path, sha256: str) -> bool:
    try:
        return blob.is_file() and not blob.is_symlink() and sha256_of(blob) == sha256
    except DataError:
        return False
