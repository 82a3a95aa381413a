"""The file that a dataset's rows come from, and the proof that it is still the same file.

Owns the recorded hash and how it is checked: every read looks at the file's stat first, and where that is not exactly
what was recorded (or was recorded too soon after the last change to be trusted) the content is hashed again. Invariant:
no row is ever read from a file whose sha256 is not the recorded one.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workbench.dataset_reading import FileKind
from workbench.errors import SourceChanged, UnreadableData
from workbench.steps import Progress, Steps
from workbench.workspace import Workspace

_CHUNK_BYTES = 1 << 20
_RACY_NS = 2_000_000_000
"""A file that changed less than this before it was recorded may change again without its stat showing it."""


@dataclass(frozen=True)
class DatasetSource:
    """Where the rows are, and what the file was when it was recorded."""

    kind: str
    """"reference" (the person's own file), "copy" (of it), "hub", "saved" or "arrow" (Parquet made of it),
    "files" (joined as JSON lines), or "made" (JSON lines made of other datasets)."""
    origin: str
    """What the person named: an absolute path, or hf:NAME:CONFIG:SPLIT. For showing only."""
    path: str
    """The file that is read: relative to the workspace where it lies inside, else absolute."""
    sha256: str
    bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    recorded_ns: int
    """When the stat was taken; decides whether an unchanged stat proves an unchanged file."""
    format: str
    gzipped: bool
    delimiter: str
    details: dict[str, str]
    """What the Hub or `datasets` said: configuration, split, revision, fingerprint."""

    @property
    def file_kind(self) -> FileKind:
        return FileKind(self.format, self.gzipped, self.delimiter)  # type: ignore[arg-type]

    def to_toml(self) -> dict[str, Any]:
        return asdict(self)

    def verified_path(
        self, workspace: Workspace, dataset: str, always_hash: bool = False, progress: Progress | None = None
    ) -> Path:
        """The file, proved to be the recorded one; UnreadableData where it is gone, SourceChanged where it differs.

        `progress` counts the bytes that are hashed, where they are.
        """
        path = workspace.resolve(self.path)
        try:
            found = path.stat()
        except OSError as error:
            raise UnreadableData(
                f"dataset {dataset}: its file {path} cannot be read ({error.strerror}). Put it back, or add it again "
                "(with --copy the workspace keeps its own copy)."
            ) from error
        if found.st_size != self.bytes:
            raise self._changed(dataset, path, sha256_of(path, progress))
        if always_hash or not self._stat_proves(found):
            actual = sha256_of(path, progress)
            if actual != self.sha256:
                raise self._changed(dataset, path, actual)
        return path

    def _stat_proves(self, found: os.stat_result) -> bool:
        same = (found.st_mtime_ns, found.st_ctime_ns, found.st_ino) == (self.mtime_ns, self.ctime_ns, self.inode)
        return same and self.recorded_ns - self.ctime_ns > _RACY_NS

    def _changed(self, dataset: str, path: Path, actual: str) -> SourceChanged:
        return SourceChanged(
            f"dataset {dataset}: {path} has changed since it was added (sha256 now {actual}, recorded {self.sha256}). "
            "Restore the file, or add it again under a new name; --copy keeps a copy that nothing else writes to."
        )


def record_source(
    file: Path,
    written_path: str,
    kind: str,
    origin: str,
    file_kind: FileKind,
    details: dict[str, str] | None = None,
    progress: Progress | None = None,
) -> DatasetSource:
    """Hashes `file` and records what it is. `written_path` is how it will be found from the workspace.

    `progress` counts the bytes that are hashed.
    """
    before = file.stat()
    sha256 = sha256_of(file, progress)
    after = file.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise SourceChanged(
            f"{file} changed while it was read. Wait until whatever writes it is done, then add it again."
        )
    return DatasetSource(
        kind=kind,
        origin=origin,
        path=written_path,
        sha256=sha256,
        bytes=after.st_size,
        mtime_ns=after.st_mtime_ns,
        ctime_ns=after.st_ctime_ns,
        inode=after.st_ino,
        recorded_ns=time.time_ns(),
        format=file_kind.format,
        gzipped=file_kind.gzipped,
        delimiter=file_kind.delimiter,
        details=details or {},
    )


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """The SHA-256 of a file's content, in hex; `progress` counts its bytes."""
    try:
        with open(path, "rb") as file:
            if progress is None:
                return hashlib.file_digest(file, "sha256").hexdigest()
            steps, digest = Steps(os.fstat(file.fileno()).st_size, progress), hashlib.sha256()
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                steps.add(len(chunk))
            return digest.hexdigest()
    except OSError as error:
        raise UnreadableData(f"{path} cannot be read: {error.strerror}.") from error


def copy_bytes(source: Path, target: Path) -> None:
    """Copies a file's content to a new private file."""
    try:
        original: BinaryIO = open(source, "rb")  # noqa: SIM115 - closed by the block below
    except OSError as error:
        raise UnreadableData(f"{source} cannot be read: {error.strerror}.") from error
    with original, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        while chunk := original.read(_CHUNK_BYTES):
            copy.write(chunk)
