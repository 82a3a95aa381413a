"""What a GGUF file says before its tensors are read: its settings and the shape, type and place of every tensor.

The format is llama.cpp's (versions 2 and 3, little-endian). Only the header is read, with every count and length
checked against the size of the file, so a torn, foreign or hostile one gives a ModelError in milliseconds.
Arrays (the vocabulary) are skipped, not kept.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelError

MAGIC = b"GGUF"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LEAST_BYTES_OF_A_SETTING = 8 + 4 + 1
_LEAST_BYTES_OF_A_TENSOR = 8 + 4 + 4 + 8
_MOST_DIMENSIONS = 4

Setting = str | int | float | bool


@dataclass(frozen=True)
class GgufHeader:
    """The header of one file."""

    settings: Mapping[str, Setting]
    """Every setting that is one number, truth value or text; arrays are left out."""
    elements: Mapping[str, int]
    """Name of each tensor -> how many numbers it holds."""

    @property
    def architecture(self) -> str:
        """Such as "llama"."""
        return str(self.settings.get("general.architecture", ""))

    @property
    def parameters(self) -> int:
        """Numbers in all tensors together."""
        return sum(self.elements.values())


def read_gguf_header(file: Path) -> GgufHeader:
    """Raises ModelError where the file is missing, of another kind, torn, or one part of several."""
    try:
        with file.open("rb") as opened:
            first = opened.read(4)
            if first != MAGIC:
                found = f"begins with {first!r}" if first else "is empty"
                raise ModelError(f"{file}: not a GGUF file (it {found}): expected a model in llama.cpp's GGUF format")
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                header = _Reader(whole, file).header()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}): check the path and its permissions") from error
    parts = header.settings.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise ModelError(f"{file}: one of {parts} parts: join them with llama.cpp's `llama-gguf-split --merge` first")
    return header


class _Reader:
    """Reads forward through the header of an open file."""

    def __init__(self, data: mmap.mmap, file: Path) -> None:
        self._data = data
        self._file = file
        self._at = 4

    def header(self) -> GgufHeader:
        version = self._number("I")
        if version not in (2, 3):
            kind = "big-endian" if version in (2 << 24, 3 << 24) else f"version {version}"
            raise ModelError(
                f"{self._file}: GGUF of {kind}: versions 2 and 3, little-endian, are read; convert it anew"
            )
        tensors, settings = self._number("Q"), self._number("Q")
        self._expect(tensors * _LEAST_BYTES_OF_A_TENSOR + settings * _LEAST_BYTES_OF_A_SETTING)
        read: dict[str, Setting] = {}
        for _ in range(settings):
            name = self._text()
            value = self._setting(self._number("I"))
            if value is not None:
                read[name] = value
        elements, end = self._tensors(tensors)
        alignment = read.get("general.alignment", 32)
        step = alignment if isinstance(alignment, int) and alignment > 0 else 32
        if end:
            self._at = -(-self._at // step) * step
            self._expect(end)
        return GgufHeader(read, elements)

    def _tensors(self, count: int) -> tuple[dict[str, int], int]:
        """(elements of each tensor, bytes of data that they need)."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        elements: dict[str, int] = {}
        end = 0
        for _ in range(count):
            name = self._text()
            dimensions = self._number("I")
            if dimensions > _MOST_DIMENSIONS:
                raise ModelError(
                    f"{self._file}: damaged: tensor {name!r} has {dimensions} dimensions: download it again"
                )
            shape = [self._number("Q") for _ in range(dimensions)]
            kind, offset = self._number("I"), self._number("Q")
            try:
                block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            except (KeyError, ValueError) as error:
                raise ModelError(
                    f"{self._file}: tensor {name!r} is stored in a way that is not known here (type {kind}): use a "
                    "file of another quantisation, such as Q8_0 or F16"
                ) from error
            elements[name] = math.prod(shape)
            end = max(end, offset + elements[name] // block * block_bytes)
        return elements, end

    def _setting(self, kind: int) -> Setting | None:
        """The value of a setting, None for an array, which is stepped over."""
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            self._skip_array()
            return None
        value: Setting = self._number(self._format(kind))
        return value

    def _skip_array(self) -> None:
        kind, count = self._number("I"), self._number("Q")
        if kind == _STRING:
            self._expect(8 * count)
            for _ in range(count):
                self._skip(self._number("Q"))
        elif kind == _ARRAY:
            self._expect(12 * count)
            for _ in range(count):
                self._skip_array()
        else:
            self._skip(struct.calcsize("<" + self._format(kind)) * count)

    def _format(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise ModelError(f"{self._file}: damaged: a setting of unknown kind {kind}: copy or download it again")
        return _SCALARS[kind]

    def _number(self, kind: str) -> int:
        start = self._at
        self._skip(struct.calcsize("<" + kind))
        value: int = struct.unpack_from("<" + kind, self._data, start)[0]
        return value

    def _text(self) -> str:
        length = self._number("Q")
        start = self._at
        self._skip(length)
        return self._data[start : self._at].decode("utf-8", "replace")

    def _skip(self, count: int) -> None:
        self._expect(count)
        self._at += count

    def _expect(self, count: int) -> None:
        if self._at + count > len(self._data):
            raise ModelError(
                f"{self._file}: cut short: {len(self._data):,} bytes, at least {self._at + count:,} expected: copy or "
                "download it again"
            )
