"""Rows that come again: the same, nearly the same, contradicting, or standing in another dataset, too.

Owns what makes two rows the same (all they say, white space and letter case aside) and the hashes by which they are
compared: 32 bytes a row in files of a folder that goes with them, and the sketches of `near_duplicates`. Findings are
made when every row has been seen; of rows that are alike the first stays.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.array_files import GrowingArray, open_array
from workbench.canonical_rows import CanonicalRow, Prompt, prompt_of, said_in
from workbench.lint_rows import SourceRow
from workbench.near_duplicates import Sketches, hash_of, normal

Check = Callable[[], None]
Report = Callable[[str, int, str], None]
"""(kind, index of the row, what was seen)"""
_ANSWERS = ("completion", "chosen", "rejected", "a", "b", "text")
_SEPARATOR = b"\x1f"
_NOTHING = 0
"""The hash of what a row has not; no row is compared by it."""


def prompt_text(row: CanonicalRow) -> bytes:
    """The prompt of a row as it is compared; a plain string and a single user turn of its words are one prompt."""
    return _words(prompt_of(row))


def answer_text(row: CanonicalRow) -> bytes:
    """All that a row says behind its prompt, as it is compared."""
    fields: Mapping[str, Any] = row
    if "messages" in fields:
        before = prompt_of(row) or []
        return _words(fields["messages"][len(before) :])
    return _SEPARATOR.join(_words(fields[name]) for name in _ANSWERS if name in fields)


def _words(value: Prompt | None) -> bytes:
    if value is None or isinstance(value, str):
        return normal(value or "")
    if len(value) == 1:
        return normal(said_in(value[0]))
    return _SEPARATOR.join(turn["role"].encode() + b":" + normal(said_in(turn)) for turn in value)


class Repeats:
    """The rows of a dataset, and of others that it is compared with, as hashes and sketches."""

    def __init__(self, folder: Path, *, near: bool, against: bool) -> None:
        """Files are made in `folder`; with `near` sketches are made, with `against` those of prompts, too."""
        self._hashes = {name: GrowingArray(folder / f"{name}.npy", "q") for name in ("row", "prompt", "pair", "number")}
        self._other: dict[str, GrowingArray] = {}
        if against:
            self._other = {name: GrowingArray(folder / f"other-{name}.npy", "q") for name in ("row", "prompt")}
        self._unusable = array("q")
        self._unreadable = array("q")
        self._numbers: Any = None
        self._sketches = Sketches(folder / "rows.sketches", 2) if near else None
        self._prompts = Sketches(folder / "prompts.sketches", 1) if near and against else None
        self._others = 0

    def add_other(self, row: CanonicalRow) -> None:
        """A row of a dataset that this one is compared with; before all rows of this one."""
        prompt, answer = prompt_text(row), answer_text(row)
        self._other["row"].extend([hash_of(prompt + _SEPARATOR + answer)])
        self._other["prompt"].extend([hash_of(prompt) if prompt else _NOTHING])
        if self._prompts is not None and prompt:
            self._prompts.add(prompt)
            self._others += 1

    def add(self, source: SourceRow) -> None:
        """The next row; one that cannot be used is only counted."""
        row = source.row
        self._hashes["number"].extend([source.number])
        if row is None:
            self._unusable.append(source.index)
            if source.raw is None:
                self._unreadable.append(source.index)
            prompt = answer = b""
            for name in ("row", "prompt", "pair"):
                self._hashes[name].extend([_NOTHING])
        else:
            prompt, answer = prompt_text(row), answer_text(row)
            self._hashes["row"].extend([hash_of(prompt + _SEPARATOR + answer)])
            self._hashes["prompt"].extend([hash_of(prompt) if prompt else _NOTHING])
            self._hashes["pair"].extend([_pair_hash(row, prompt)])
        if self._sketches is not None:
            self._sketches.add(prompt, answer)
        if self._prompts is not None:
            self._prompts.add(prompt)

    def find(self, report: Report, place: str, check: Check) -> None:
        """Report every row that comes again; `place` is what a number counts ("line" or "row")."""
        opened = {name: open_array(one.path, one.close()) for name, one in self._hashes.items()}
        numbers = self._numbers = opened["number"]

        def where(index: int) -> str:
            return f"{place} {int(numbers[index]):,}"

        again = _repeats_of(opened["row"])
        for index, first in again:
            report("duplicates", index, f"as {where(first)}")
        both_ways = list(_contradictions(opened["pair"]))
        for index, first in both_ways:
            report("contradictions", index, f"{where(first)} prefers the other one")
        check()
        same: Any = np.zeros(len(numbers), bool)
        same[[index for index, _ in (*again, *both_ways)]] = True
        same[np.frombuffer(self._unusable, np.int64)] = True
        if self._other:
            self._find_leaks(opened, same, report, check)
        if self._sketches is not None:
            found = self._sketches.near_pairs(lambda early, late: ~(same[early] | same[late]), check)
            for index, first, share in found:
                report("near-duplicates", int(index), f"{share:.2f} like {where(int(first))}")

    def places(self, indices: Iterable[int]) -> dict[int, tuple[int, int]]:
        """For each index of a readable row its number in the file and its ordinal; after `find`."""
        return {index: (int(self._numbers[index]), index - bisect_left(self._unreadable, index)) for index in indices}

    def close(self) -> None:
        """Let go of the files."""
        self._numbers = None
        for one in (*self._hashes.values(), *self._other.values()):
            one.discard()
        for sketches in (self._sketches, self._prompts):
            if sketches is not None:
                sketches.close()

    def _find_leaks(self, opened: Mapping[str, Any], same: Any, report: Report, check: Check) -> None:
        others = {name: np.sort(open_array(one.path, one.close())) for name, one in self._other.items()}
        rows = _stands_in(opened["row"], others["row"])
        prompts = _stands_in(opened["prompt"], others["prompt"])
        for index in np.flatnonzero(rows):
            report("leaked-rows", int(index), "the whole row")
        for index in np.flatnonzero(prompts & ~rows):
            report("leaked-prompts", int(index), "the prompt, with another answer")
        check()
        if self._prompts is None:
            return
        count = self._others
        without = rows | prompts | (np.asarray(opened["prompt"]) == _NOTHING)

        def between(early: Any, late: Any) -> Any:
            crosses = (early < count) & (late >= count)
            crosses[crosses] = ~without[late[crosses] - count]
            return crosses

        for row, _, share in self._prompts.near_pairs(between, check):
            report("near-leaked-prompts", int(row) - count, f"{share:.2f} like a prompt there")


def _pair_hash(row: CanonicalRow, prompt: bytes) -> int:
    """Equal for two rows that judge the same two answers; the lowest bit says which way. Nothing for other shapes."""
    fields: Mapping[str, Any] = row
    if "chosen" not in fields:
        return _NOTHING
    chosen, rejected = _words(fields["chosen"]), _words(fields["rejected"])
    both = _SEPARATOR.join([prompt, *sorted((chosen, rejected))])
    return (hash_of(both) | 1) ^ int(chosen > rejected)


def _repeats_of(hashes: Any) -> list[tuple[int, int]]:
    """(index, index of the first row with the same hash) of every row but the first, in order."""
    order = np.argsort(hashes, kind="stable")
    ordered = np.asarray(hashes)[order]
    begins: Any = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else []
    found = []
    for begin, end in zip(begins, [*begins[1:], len(ordered)], strict=True):
        if end - begin > 1 and ordered[begin] != _NOTHING:
            found += [(int(index), int(order[begin])) for index in order[begin + 1 : end]]
    return sorted(found)


def _contradictions(hashes: Any) -> Iterator[tuple[int, int]]:
    """(index, index of the first row that says otherwise) of rows whose pair is judged both ways, in order."""
    pairs = np.asarray(hashes)
    keys = np.where(pairs == _NOTHING, _NOTHING, pairs | 1)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins: Any = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else []
    found = []
    for begin, end in zip(begins, [*begins[1:], len(ordered)], strict=True):
        members = order[begin:end]
        ways = pairs[members] & 1
        if end - begin > 1 and ordered[begin] != _NOTHING and ways.min() != ways.max():
            firsts = {way: int(members[ways == way][0]) for way in (0, 1)}
            found += [(int(index), firsts[1 - int(way)]) for index, way in zip(members, ways, strict=True)]
    yield from sorted(found)


def _stands_in(hashes: Any, ordered: Any) -> Any:
    """For each hash, whether it is among the ordered ones."""
    values = np.asarray(hashes)
    if not len(ordered):
        return np.zeros(len(values), bool)
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return (ordered[place] == values) & (values != _NOTHING)
