"""Tokenised examples on the disk: written once as columns of arrays, read back one example at a time.

Owns the folder of a store: an array file or two for each field of the example's dataclass, and MANIFEST.json, which is
written last, so that its existence means that the store is whole. Any dataclass whose fields are texts, numbers, ids
(`tuple[int, ...]`) or masks (`tuple[bool, ...]`) can be stored: ids are int32, a mask is the lengths of its runs,
beginning with a run of False. Invariant: an example read back equals the one that was written. Neither writing nor
reading holds more than a few examples in memory. Torch-free; knows nothing of tokenizers and runs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, get_type_hints, overload, runtime_checkable

import numpy as np
import orjson

from engine.data.array_files import GrowingArray, open_array, verify_array
from engine.errors import DataError
from engine.run.durable_files import fsync_folder, write_atomically

MANIFEST = "MANIFEST.json"
SCHEMA = 1
ROW = ".row"
"""The column of the row that each example was made of; no field of a dataclass can be called so."""

E = TypeVar("E")
_RAGGED = {"ids": "i", "runs": "i", "text": "B"}
"""Columns of varying length: their values, and the places where each example's begin."""
_KINDS: dict[Any, str] = {
    tuple[int, ...]: "ids",
    tuple[bool, ...]: "runs",
    str: "text",
    int: "whole",
    bool: "flag",
    float: "number",
    float | None: "maybe",
}
_CODES = {"whole": "q", "flag": "B", "number": "d", "maybe": "d"}


class StoreWriter(Generic[E]):
    """Takes examples one by one; `finish` makes the folder a store."""

    def __init__(self, folder: Path, kind: type[E]) -> None:
        """`folder` exists and is empty."""
        self._folder = folder
        self._columns = {ROW: "whole", **_columns_of(kind)}
        self._kind = kind.__name__
        self._row = -1
        self._count = 0
        self._arrays: dict[str, GrowingArray] = {}
        for name, what in self._columns.items():
            if what in _RAGGED:
                self._arrays[f"{name}.values"] = GrowingArray(folder / f"{name}.values.npy", _RAGGED[what])
                self._arrays[f"{name}.starts"] = GrowingArray(folder / f"{name}.starts.npy", "q")
                self._arrays[f"{name}.starts"].extend((0,))
            else:
                self._arrays[name] = GrowingArray(folder / f"{name}.npy", _CODES[what])

    def __len__(self) -> int:
        return self._count

    def add_row(self, examples: Sequence[E]) -> None:
        """Add what the next row gave: any number of examples. Raises OSError where the disk is full."""
        self._row += 1
        for example in examples:
            self._append(example)

    def _append(self, example: E) -> None:
        for name, what in self._columns.items():
            value: Any = self._row if name == ROW else getattr(example, name)
            if what not in _RAGGED:
                self._arrays[name].extend((math.nan if value is None else value,))
                continue
            values = self._arrays[f"{name}.values"]
            if what == "text":
                values.extend_bytes(value.encode())
            else:
                values.extend(runs_of(value) if what == "runs" else value)
            self._arrays[f"{name}.starts"].extend((values.length,))
        self._count += 1

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Close all files and write the manifest with `facts`, which the reader gets back."""
        manifest = {
            "schema": SCHEMA,
            "kind": self._kind,
            "examples": self._count,
            "rows": self._row + 1,
            "columns": self._columns,
            "arrays": {name: file.close() for name, file in self._arrays.items()},
            "facts": dict(facts),
        }
        fsync_folder(self._folder)
        write_atomically(self._folder / MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")

    def discard(self) -> None:
        """Let go of the files; the folder is the caller's to remove."""
        for file in self._arrays.values():
            file.discard()


@dataclass(frozen=True)
class Origin:
    """The whole set that some examples are a part of."""

    sha256: str
    """Of the content of the whole set, of the examples in use and the others."""
    count: int
    """Examples of the whole set."""
    places: Sequence[int]
    """Of each example in the whole set."""


class StoredExamples(Sequence[E]):
    """The examples of a store, or some of them: each is built when it is asked for."""

    def __init__(
        self,
        kind: type[E],
        columns: Mapping[str, _Column],
        places: Sequence[int] | Any,
        described: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Use `open_store`. `places` are positions in the store, `described` its array files."""
        self._kind = kind
        self._columns = columns
        self._places = places
        self._described = described

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> E: ...
    @overload
    def __getitem__(self, index: slice) -> StoredExamples[E]: ...
    def __getitem__(self, index: int | slice) -> E | StoredExamples[E]:
        if isinstance(index, slice):
            return StoredExamples(self._kind, self._columns, self._places[index], self._described)
        place = int(self._places[index])
        return self._kind(**{name: column[place] for name, column in self._columns.items() if name != ROW})

    def take(self, indices: Sequence[int]) -> StoredExamples[E]:
        """The examples at `indices`, in that order, as a view."""
        places = np.asarray(self._places)[np.asarray(indices, dtype=np.int64)]
        return StoredExamples(self._kind, self._columns, places, self._described)

    def origin(self, *names: str) -> Origin:
        """The store that these examples are of; its hash is of the fields `names` alone."""
        arrays = {array: self._described[array] for array in sorted(self._described) if array.split(".")[0] in names}
        digest = hashlib.sha256(orjson.dumps([self._kind.__name__, arrays], option=orjson.OPT_SORT_KEYS))
        return Origin(digest.hexdigest(), len(self._columns[ROW].values), [int(place) for place in self._places])

    def lengths(self, name: str) -> Any:
        """Tokens of the field `name` in each example, as an int64 array, without building any."""
        return self._columns[name].lengths()[np.asarray(self._places, dtype=np.int64)]

    def numbers(self, name: str) -> Any:
        """The field `name`, a number or a flag, of each example, as a float64 array."""
        return np.asarray(self._columns[name].values, np.float64)[np.asarray(self._places, dtype=np.int64)]

    def rows(self) -> Any:
        """The number of the row (from 0, of the file) that each example was made of, as an int64 array."""
        return np.asarray(self._columns[ROW].values)[np.asarray(self._places, dtype=np.int64)]


class _Column:
    """One field of all examples of a store."""

    def __init__(self, what: str, values: Any, starts: Any = None) -> None:
        self._what = what
        self.values = values
        self._starts = starts

    def __getitem__(self, place: int) -> Any:
        if self._starts is None:
            value = self.values[place].item()
            if self._what == "flag":
                return bool(value)
            return None if self._what == "maybe" and math.isnan(value) else value
        part = self.values[self._starts[place] : self._starts[place + 1]]
        if self._what == "text":
            return part.tobytes().decode()
        return mask_of(part.tolist()) if self._what == "runs" else tuple(part.tolist())

    def lengths(self) -> Any:
        """Values of each example."""
        return np.diff(self._starts)


def open_store(folder: Path, kind: type[E]) -> tuple[StoredExamples[E], dict[str, Any]]:
    """The examples in `folder` and the facts that were written with them. Raises DataError where it is not whole."""
    manifest = _manifest(folder)
    columns = {ROW: "whole", **_columns_of(kind)}
    if manifest.get("kind") != kind.__name__ or manifest.get("columns") != columns:
        raise DataError(f"{folder}: holds {manifest.get('kind')} examples of another form, expected {kind.__name__}")
    described = manifest["arrays"]

    def opened(name: str) -> Any:
        return open_array(folder / f"{name}.npy", described.get(name, {}))

    found = {
        name: _Column(what, opened(f"{name}.values"), opened(f"{name}.starts"))
        if what in _RAGGED
        else _Column(what, opened(name))
        for name, what in columns.items()
    }
    return StoredExamples(kind, found, range(int(manifest["examples"])), described), dict(manifest["facts"])


def verify_store(folder: Path) -> None:
    """Read every byte of a store. Raises DataError where a file is missing, torn or altered."""
    for name, described in _manifest(folder)["arrays"].items():
        verify_array(folder / f"{name}.npy", described)


@runtime_checkable
class Takeable(Protocol):
    """A sequence that gives some of its examples without building them."""

    def take(self, indices: Sequence[int]) -> Sequence[Any]:
        """The examples at `indices`, in that order, as a view."""
        ...


def taken_from(examples: Sequence[E], indices: Sequence[int]) -> Sequence[E]:
    """The examples at `indices`, in that order. Stored examples stay on the disk until they are asked for."""
    return examples.take(indices) if isinstance(examples, Takeable) else [examples[i] for i in indices]


def weighted_lengths(examples: Sequence[Any], weights: Mapping[str, int]) -> list[int]:
    """Tokens of each example: the lengths of its fields, each times its weight ({"prompt": 2, "chosen": 1 …}).

    Stored examples are not built for it.
    """
    if isinstance(examples, StoredExamples):
        total: Any = sum(weight * examples.lengths(name) for name, weight in weights.items())
        counts: list[int] = total.tolist()
        return counts
    return [sum(weight * len(getattr(e, name)) for name, weight in weights.items()) for e in examples]


def numbers_of(examples: Sequence[Any], name: str) -> list[float]:
    """A field of each example that is a number or true and false. Stored examples are not built for it."""
    if isinstance(examples, StoredExamples):
        found: list[float] = examples.numbers(name).tolist()
        return found
    return [float(getattr(e, name)) for e in examples]


def runs_of(mask: Sequence[bool]) -> list[int]:
    """Lengths of the runs of a mask, the first of them of False (0 where it begins with True)."""
    runs = [len(list(group)) for _, group in groupby(mask)]
    return [0, *runs] if mask and mask[0] else runs


def mask_of(runs: Sequence[int]) -> tuple[bool, ...]:
    """The inverse of `runs_of`."""
    mask: list[bool] = []
    for number, length in enumerate(runs):
        mask += [number % 2 == 1] * length
    return tuple(mask)


def _columns_of(kind: type[Any]) -> dict[str, str]:
    hints = get_type_hints(kind)
    return {field.name: _KINDS[hints[field.name]] for field in fields(kind)}


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise DataError(f"{folder}: no whole store of examples ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA or "arrays" not in manifest:
        raise DataError(f"{folder}: a store of another format, expected schema {SCHEMA}")
    return manifest
