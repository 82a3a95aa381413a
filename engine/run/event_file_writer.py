"""TensorBoard event files: the scalars of a run, written as bytes.

Owns the writing of the two formats: TFRecord (length, masked CRC-32C of the length, data, masked CRC-32C of the data)
and the protobuf messages Event and Summary of tensorflow/core/framework, of which a scalar needs five fields.
Invariant: a record is written whole, by one write. Nothing but the standard library is needed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

_MASK = 0xA282EAD8


class EventFileWriter:
    """Appends the scalars of steps to one new file in `folder`, whose name tells it from earlier ones."""

    def __init__(self, folder: Path, time: float) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The clock may have stood still or gone back since the file before: TensorBoard reads files by their names.
        last = max((int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")), default=0)
        self.path = folder / f"events.out.tfevents.{max(int(time), last + 1)}.workbench.{os.getpid()}.0"
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._write(_double(1, time) + _bytes(3, b"brain.Event:2"))

    def write(self, step: int, time: float, scalars: Mapping[str, float]) -> None:
        """One event with all scalars of a step; a value may be nan or infinite."""
        values = b"".join(_bytes(1, _bytes(1, tag.encode()) + _float(2, value)) for tag, value in scalars.items())
        self._write(_double(1, time) + _varint_field(2, step) + _bytes(5, values))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _write(self, event: bytes) -> None:
        head = struct.pack("<Q", len(event))
        record = head + struct.pack("<I", masked_crc32c(head)) + event + struct.pack("<I", masked_crc32c(event))
        if os.write(self._descriptor, record) != len(record):
            raise OSError(f"{self.path}: the disk took a part of a record alone")


def _varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _float(number: int, value: float) -> bytes:
    try:
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    except OverflowError:  # beyond a 32-bit float
        return _varint(number << 3 | 5) + struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def _table() -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        entries.append(byte)
    return tuple(entries)


_CRC = _table()


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli, RFC 3720), rotated and shifted as TFRecord stores it."""
    crc, table = 0xFFFF_FFFF, _CRC
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFF_FFFF
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFF_FFFF
