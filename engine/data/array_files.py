"""Arrays that grow on the disk and are read back memory-mapped: one-dimensional .npy files, without pickle.

Owns the layout of one file: numpy's own (format 1.0), with a header of fixed length, so that the length of the array
can be written when it is known. Invariant: a file that `close` has returned from is whole and synced; `open_array`
refuses one that is not what its description says. Torch-free; knows nothing of examples.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import DataError

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER_BYTES = 128
_FLUSH_AT = 1 << 16
_DTYPES = {"i": "<i4", "q": "<i8", "d": "<f8", "B": "|u1"}
"""Type code of the standard library's arrays -> numpy's name of it; torch runs on little-endian machines."""


class GrowingArray:
    """An array that is appended to. Holds a few hundred kilobytes of it in memory."""

    def __init__(self, path: Path, code: str) -> None:
        """`code` is one of i (int32), q (int64), d (float64), B (uint8)."""
        self.path = path
        self.length = 0
        """Values so far."""
        self._dtype = _DTYPES[code]
        self._buffer = array(code)
        self._digest = hashlib.sha256()
        self._file = open(path, "xb", opener=_private)  # noqa: SIM115 (open until `close`)
        self._file.write(b" " * _HEADER_BYTES)

    def extend(self, values: Iterable[Any]) -> None:
        """Append values. Raises OSError where the disk is full, OverflowError for one that does not fit."""
        before = len(self._buffer)
        self._buffer.extend(values)
        self._grown(before)

    def extend_bytes(self, values: bytes) -> None:
        """Append bytes to an array of bytes."""
        before = len(self._buffer)
        self._buffer.frombytes(values)
        self._grown(before)

    def close(self) -> dict[str, Any]:
        """Write what is left and the header, sync, and describe the file: {"dtype", "length", "sha256"}."""
        self._flush()
        text = f"{{'descr': '{self._dtype}', 'fortran_order': False, 'shape': ({self.length},), }}".encode()
        room = _HEADER_BYTES - len(_MAGIC) - 2
        header = text.ljust(room - 1) + b"\n"
        self._file.seek(0)
        self._file.write(_MAGIC + room.to_bytes(2, "little") + header)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {"dtype": self._dtype, "length": self.length, "sha256": self._digest.hexdigest()}

    def discard(self) -> None:
        """Let go of the file without finishing it."""
        self._buffer = array(self._buffer.typecode)
        self._file.close()

    def _grown(self, before: int) -> None:
        self.length += len(self._buffer) - before
        if len(self._buffer) >= _FLUSH_AT:
            self._flush()

    def _flush(self) -> None:
        data = self._buffer.tobytes()
        self._buffer = array(self._buffer.typecode)
        self._digest.update(data)
        self._file.write(data)


def open_array(path: Path, described: dict[str, Any]) -> Any:
    """The array, memory-mapped and read-only. Raises DataError where it is not as `described`."""
    try:
        values: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a whole array ({error})") from error
    if values.dtype.str != described.get("dtype") or values.shape != (described.get("length"),):
        raise DataError(
            f"{path}: holds {values.shape} of {values.dtype.str}, expected ({described.get('length')},) of "
            f"{described.get('dtype')}"
        )
    return values


def verify_array(path: Path, described: dict[str, Any]) -> None:
    """Read the whole file and compare its hash. Raises DataError where it is not as `described`."""
    open_array(path, described)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(_HEADER_BYTES)
        while part := file.read(1 << 20):
            digest.update(part)
    if digest.hexdigest() != described.get("sha256"):
        raise DataError(f"{path}: its content is not what was written (its sha256 differs)")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
