"""Files that a kill, a full disk or a second writer cannot tear.

Owns the two ways in which the engine writes text: a whole file replaced in one step, and a JSON line appended with one
`write`. Invariants: a reader sees the old file or the new one, never a part; an appended line is whole or it is a torn
tail, which the next append closes with a newline and every reader skips and counts. Refuses to know what the files
mean. Operating-system errors leave here as OSError; `disk_faults_named` turns them into a RunFolderError that says how
much space is free and what to do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from engine.errors import RunFolderError

PRIVATE = 0o600
_NO_SPACE = {errno.ENOSPC: "no space left", errno.EDQUOT: "the disk quota is used up", errno.EFBIG: "file-size limit"}


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data` in one step, mode 0600. On an OSError the old file stays and nothing is left behind.

    `durable` also survives a power cut (file and folder are synced); without it only kills are survived, in a
    hundredth of the time, which is right for what is rewritten every few seconds.
    """
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}-{os.urandom(4).hex()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    try:
        try:
            _write_all(descriptor, data)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)


def append_line(target: Path | int, line: bytes, *, durable: bool = False) -> None:
    """Append one line (its newline is added) to a file or to a descriptor of `open_for_append`, in one `write`.

    A torn tail, left by a kill or a full disk, is closed with a newline first, so the new line is always whole. A short
    write raises OSError (ENOSPC): the caller knows that this line does not count.
    """
    if isinstance(target, Path):
        descriptor = open_for_append(target)
        try:
            append_line(descriptor, line, durable=durable)
        finally:
            os.close(descriptor)
        return
    if b"\n" in line:
        raise ValueError("one line at a time: it must hold no newline")
    size = os.fstat(target).st_size
    torn = size > 0 and os.pread(target, 1, size - 1) != b"\n"
    whole = (b"\n" if torn else b"") + line + b"\n"
    written = os.write(target, whole)
    if written != len(whole):
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({written} of {len(whole)} bytes were written)")
    if durable:
        os.fdatasync(target) if hasattr(os, "fdatasync") else os.fsync(target)


def open_for_append(path: Path) -> int:
    """A descriptor for `append_line`; the file is made, mode 0600, where it is missing. The caller closes it."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)


def encode_line(value: dict[str, Any]) -> bytes:
    """`value` as JSON on one line. What JSON or UTF-8 cannot hold is made to fit: see `_fitting`."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(_fitting(value))


class JsonLines:
    """An iterator over (line number, object) of a JSON-lines file; what is not a whole object is skipped and counted.

    A missing file has no lines. Reading never raises over the content, only over a file that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.malformed: list[int] = []
        """Numbers of the lines that are no JSON object, known once iteration has passed them."""
        self.torn = False
        """True where the last line is no whole object and has no newline: a write cut short, or under way."""
        self._rows = self._read(path)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return self

    def __next__(self) -> tuple[int, dict[str, Any]]:
        return next(self._rows)

    def _read(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        try:
            stream = open(path, "rb")  # noqa: SIM115 (a missing file is no fault; only opening it is tried)
        except FileNotFoundError:
            return
        with stream:
            for number, line in enumerate(stream, start=1):
                try:
                    value = orjson.loads(line)
                except orjson.JSONDecodeError:
                    if line.isspace():
                        continue
                    value = None
                if isinstance(value, dict):
                    yield number, value
                elif line.endswith(b"\n"):
                    self.malformed.append(number)
                else:
                    self.torn = True


def read_jsonl(path: Path) -> JsonLines:
    """The lines of `path`; see JsonLines."""
    return JsonLines(path)


def read_json_object(path: Path) -> dict[str, Any] | None:
    """The object in a small JSON file; None where it is missing, torn or something else."""
    try:
        value = orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
        return None
    return value if isinstance(value, dict) else None


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE filesystems cannot sync a folder; there is nothing better to do on them.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def disk_faults_named(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a RunFolderError that says where, how much is free, and what to do."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(_explained(doing, path, error)) from error


def free_megabytes(place: Path) -> int:
    """Space that this account may still fill, in MB of 2**20 bytes, on the disk of `place` or its nearest parent."""
    while True:
        try:
            disk = os.statvfs(place)
        except (FileNotFoundError, NotADirectoryError):
            if place == place.parent:
                return 0
            place = place.parent
            continue
        return disk.f_bavail * disk.f_frsize // 2**20


def _explained(doing: str, path: Path, error: OSError) -> str:
    if error.errno in _NO_SPACE:
        return (
            f"{doing}: {_NO_SPACE[error.errno]} for {path}: {free_megabytes(path.parent)} MB are free there. What was "
            "there before is unharmed; free some space (or raise the quota or limit), then resume the run"
        )
    reason = error.strerror or str(error)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return (
            f"{doing}: {path} cannot be written ({reason}). Give this account the right to write there, then try again"
        )
    return f"{doing}: {path}: {reason}"


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        written = os.write(descriptor, rest)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = rest[written:]


def _fitting(value: Any) -> Any:
    """`value` with lone surrogates as U+FFFD, integers beyond 64 bits as floats, and unknown things as their text."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_fitting(str(key)): _fitting(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_fitting(item) for item in value]
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else float(value)
    return _fitting(str(value))
