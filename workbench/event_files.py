"""TensorBoard event files: the scalars in them, read from the bytes.

Owns the two formats: TFRecord (length, masked CRC-32C of the length, data, masked CRC-32C of the data) and, of the
protobuf messages Event, Summary and TensorProto of tensorflow/core/framework, the fields that hold a scalar.
Invariants: a record is handed over once and only when it is whole; a torn end is waited for; a record whose check sum
is wrong ends the reading of its file, and the byte is named. Everything else in a file (histograms, pictures, graphs)
is passed over. Neither tensorflow nor tensorboard is needed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.run.event_file_writer import masked_crc32c
from workbench.errors import UnreadableData

PREFIX = "events.out.tfevents."
_HEAD = struct.Struct("<QI")
_LONGEST = 256 * 2**20
"""Bytes of a record; a longer one is no event."""
_FLOAT, _DOUBLE = 1, 2
"""Element types of a TensorProto."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value of one tag."""

    tag: str
    step: int
    time: float
    """Unix seconds."""
    value: float
    """May be nan or infinite."""


class EventFile:
    """One event file that may still be written to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fault = ""
        """Why nothing after what was read is read any more; empty while all is well."""
        self._offset = 0

    def read(self) -> list[Scalar]:
        """The scalars of the records that have become whole since the last call, in order.

        Raises UnreadableData where the file is no event file, or was replaced by a shorter one; OSError where it
        cannot be read. Damage further on ends the reading and is told by `fault`.
        """
        found: list[Scalar] = []
        if self.fault:
            return found
        with open(self.path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size < self._offset:
                raise UnreadableData(
                    f"{self.path}: has become shorter ({size:,} bytes, {self._offset:,} were read): it was replaced"
                )
            stream.seek(self._offset)
            try:
                while (data := self._record(stream, size)) is not None:
                    found += scalars_of(data, self.path)
            except UnreadableData as error:
                if not self._offset:
                    raise
                self.fault = str(error)
        return found

    def _record(self, stream: BinaryIO, size: int) -> bytes | None:
        head = stream.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, check = _HEAD.unpack(head)
        if masked_crc32c(head[:8]) != check or length > _LONGEST:
            raise UnreadableData(
                f"{self.path}, byte {self._offset:,}: no TFRecord: the check sum of its length is wrong. "
                "It is damaged there, or no TensorBoard event file"
            )
        end = self._offset + _HEAD.size + length + 4
        if end > size:
            return None
        content = stream.read(length + 4)
        data = content[:length]
        if masked_crc32c(data) != int.from_bytes(content[length:], "little"):
            raise UnreadableData(
                f"{self.path}, byte {self._offset:,}: a record whose check sum is wrong: it is damaged"
            )
        self._offset = end
        return data


def scalars_of(event: bytes, where: Path) -> list[Scalar]:
    """The scalars of one Event message."""
    time, step, summaries = 0.0, 0, []
    try:
        for number, value in _fields(event):
            if number == 1 and isinstance(value, bytes):
                time = struct.unpack("<d", value)[0]
            elif number == 2 and isinstance(value, int):
                step = _signed(value)
            elif number == 5 and isinstance(value, bytes):
                summaries.append(value)
        found = []
        for summary in summaries:
            for number, value in _fields(summary):
                if number == 1 and isinstance(value, bytes) and (named := _value(value)) is not None:
                    found.append(Scalar(named[0], step, time, named[1]))
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise UnreadableData(
            f"{where}: a record is no Event message ({error}): it is no TensorBoard event file"
        ) from error
    return found


def _value(message: bytes) -> tuple[str, float] | None:
    """(tag, number) of a Summary.Value; None where it is no scalar."""
    tag, number = "", None
    for field, value in _fields(message):
        if field == 1 and isinstance(value, bytes):
            tag = value.decode("utf-8")
        elif field == 2 and isinstance(value, bytes) and len(value) == 4:
            number = struct.unpack("<f", value)[0]
        elif field == 8 and isinstance(value, bytes):
            number = _single(value)
    return None if number is None else (tag, number)


def _single(tensor: bytes) -> float | None:
    """The number in a TensorProto of one float or double; None where it holds anything else."""
    kind, sizes, numbers = 0, [], b""
    for field, value in _fields(tensor):
        if field == 1 and isinstance(value, int):
            kind = value
        elif field == 2 and isinstance(value, bytes):
            sizes = [
                s for n, dim in _fields(value) if n == 2 and isinstance(dim, bytes) for f, s in _fields(dim) if f == 1
            ]
        elif field in (4, 5, 6) and isinstance(value, bytes):
            numbers += value
    form = {_FLOAT: "<f", _DOUBLE: "<d"}.get(kind)
    if form is None or any(size != 1 for size in sizes) or len(numbers) != struct.calcsize(form):
        return None
    number: float = struct.unpack(form, numbers)[0]
    return number


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field: an int of a varint, the bytes of all others. Raises IndexError where torn."""
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise IndexError(f"field type {kind}")
        if place + size > end:
            raise IndexError("a field is longer than its message")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise IndexError("an endless number")


def _signed(value: int) -> int:
    """An int64 as protobuf writes it."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    return value - 2**64 if value >= 2**63 else value
