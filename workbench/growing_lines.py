"""The lines of a JSON-lines file that another process goes on appending to.

Owns how far the file has been read. Invariants: a line is handed over once and only when it is whole; what is no JSON
object is left out; a file that was cut, rewritten or replaced is read again from its beginning, and whoever reads is
told so. Never blocks and never holds the file open: the writer does not know that it is watched.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

AT_ONCE_BYTES = 16 * 2**20
"""Read at most this much at a time, so that a reader of a long file can show what it has so far."""
_SEAM_BYTES = 64


@dataclass(frozen=True)
class Batch:
    """What has come since the last reading."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    anew: bool = False
    """Everything handed over before is void: the file is another one, or was cut."""
    more: bool = False
    """There is more to read now."""


class GrowingLines:
    """Reads a file from where the last reading ended up to its last newline."""

    def __init__(self, path: Path, at_once: int = AT_ONCE_BYTES) -> None:
        self.path = path
        self.missing = True
        """No such file, at the last reading. What was read from it stays with the reader."""
        self._at_once = at_once
        self._offset = 0
        self._seam = b""
        """The last bytes before the offset: a file that was rewritten in place no longer has them there."""
        self._inside_endless_line = False
        self._stamp: tuple[int, int, int, int] | None = None

    @property
    def offset(self) -> int:
        """How many bytes were read so far, all of whole lines."""
        return self._offset

    def skip(self, offset: int) -> None:
        """Take the first `offset` bytes, which end a line, as read. Raises OSError where they cannot be looked at."""
        with open(self.path, "rb") as stream:
            stream.seek(max(0, offset - _SEAM_BYTES))
            self._seam = stream.read(offset - max(0, offset - _SEAM_BYTES))
        self._offset = offset

    def read(self) -> Batch:
        """What has come. Raises OSError only over a file that is there and cannot be read."""
        try:
            found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            self.missing, self._stamp = True, None
            return Batch()
        self.missing = False
        stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if stamp == self._stamp or not stat.S_ISREG(found.st_mode):
            return Batch()
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return Batch()
        try:
            anew = self._is_another(descriptor, found.st_size)
            if anew:
                self._offset, self._seam, self._inside_endless_line = 0, b"", False
            content = os.pread(descriptor, self._at_once, self._offset)
        finally:
            os.close(descriptor)
        lines = self._taken(content)
        more = len(content) == self._at_once
        self._stamp = None if more else stamp
        return Batch(lines, anew, more)

    def _is_another(self, descriptor: int, size: int) -> bool:
        if not self._offset:
            return False
        return (
            size < self._offset or os.pread(descriptor, len(self._seam), self._offset - len(self._seam)) != self._seam
        )

    def _taken(self, content: bytes) -> list[dict[str, Any]]:
        end = content.rfind(b"\n") + 1
        if not end:
            if len(content) == self._at_once:
                self._inside_endless_line = True
                self._move(content)
            return []
        whole = content[:end]
        self._move(whole)
        if self._inside_endless_line:
            self._inside_endless_line = False
            whole = whole[whole.index(b"\n") + 1 :]
        return [line for line in map(_object, whole.split(b"\n")) if line is not None]

    def _move(self, content: bytes) -> None:
        self._offset += len(content)
        self._seam = (self._seam + content[-_SEAM_BYTES:])[-_SEAM_BYTES:]


def _object(line: bytes) -> dict[str, Any] | None:
    if not line:
        return None
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
