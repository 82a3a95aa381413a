"""What lint can find in a dataset: the kinds, and a report of what was found with the rows to jump to.

Owns the words of each kind, the set of rows that a kind was found in (a bit a row), and the report as JSON. Refuses to
know how anything is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import UsageError

SCHEMA = 1
ROWS_KEPT = 1000
"""Of each finding so many rows are told with what was seen there; all of them are counted and can be dropped."""


@dataclass(frozen=True)
class Kind:
    """One thing that can be wrong."""

    title: str
    remedy: str
    """What a person does about it."""
    of_rows: bool = True
    """Rows can be dropped for it; else it is true of the whole dataset."""


_DROP = "drop them into a new dataset: --drop {name} --to NEW"
KINDS: dict[str, Kind] = {
    "unreadable": Kind("rows that cannot be read", "mend the file; they are never used"),
    "equal-answers": Kind("both answers say the same", f"they teach nothing; {_DROP}"),
    "empty-turns": Kind("an empty prompt, turn or answer", f"they are never used; {_DROP}"),
    "prompt-differs": Kind(
        "the prompt differs between chosen and rejected",
        "such a pair compares answers to different questions; mend the export that wrote it, or drop it",
    ),
    "role-order": Kind("turns in a broken order", "most chat templates refuse or garble them; mend the turns, or drop"),
    "speaker-marker": Kind("a speaker's name inside an answer", f"an answer that goes on for both sides; {_DROP}"),
    "not-used": Kind("rows that cannot be used for another reason", "see: workbench data show {dataset} --rejected"),
    "duplicates": Kind("the same row again", f"the first of each stays; {_DROP}"),
    "near-duplicates": Kind("nearly the same row again", f"look at a few, then {_DROP}"),
    "contradictions": Kind("the same two answers preferred both ways", "judge them again, or drop them"),
    "leaked-rows": Kind("rows that are in {against}, too", f"what is measured on them says nothing; {_DROP}"),
    "leaked-prompts": Kind("prompts that are in {against}, too", f"split by prompt; {_DROP}"),
    "near-leaked-prompts": Kind("prompts that are nearly in {against}, too", f"look at a few, then {_DROP}"),
    "lost-difference": Kind(
        "the difference between the answers is cut off at {max_length} tokens", "raise data.max_length, or drop them"
    ),
    "no-room": Kind("the prompt leaves no room for an answer", "raise data.max_length above {max_length}, or drop"),
    "cut": Kind("rows that lose their end at {max_length} tokens", "raise data.max_length, or shorten the texts"),
    "refused": Kind("rows that the chat template of {model} refuses", "mend the turns, or choose another template"),
    "control-characters": Kind("control or invisible characters, or damaged text", "clean the texts at their source"),
    "secrets": Kind("what looks like a key or a password", f"a model repeats it: revoke it; {_DROP}"),
    "emails": Kind("e-mail addresses", f"a model repeats them: replace them; {_DROP}"),
    "length-bias": Kind(
        "length alone tells which answer is preferred",
        "a model may learn length instead: watch lengths in the run, balance the pairs, or judge with length in mind",
        of_rows=False,
    ),
}


@dataclass(frozen=True)
class FoundRow:
    """One row that a finding is about."""

    number: int
    """Its line (JSON lines, CSV) or ordinal in the file, from 1."""
    ordinal: int
    """Its place among the readable rows, from 0; -1 where it cannot be read."""
    detail: str
    """What was seen there. May quote the row: text from strangers."""


class RowBits:
    """A set of row indices that only grows; a bit a row."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.count = 0

    def add(self, index: int) -> bool:
        """Put one in; whether it is new."""
        place, bit = index >> 3, 1 << (index & 7)
        if place >= len(self._bytes):
            self._bytes.extend(bytes(max(place + 1 - len(self._bytes), len(self._bytes) >> 1)))
        new = not self._bytes[place] & bit
        self._bytes[place] |= bit
        self.count += new
        return new

    def __contains__(self, index: int) -> bool:
        place = index >> 3
        return place < len(self._bytes) and bool(self._bytes[place] & (1 << (index & 7)))

    def __iter__(self) -> Iterator[int]:
        for place, byte in enumerate(self._bytes):
            if byte:
                yield from (place * 8 + bit for bit in range(8) if byte & (1 << bit))


@dataclass
class Finding:
    """One kind of thing that was found."""

    kind: str
    rows: list[FoundRow] = field(default_factory=list)
    """The first ROWS_KEPT of them, in the order of the file."""
    bits: RowBits = field(default_factory=RowBits)
    """The indices (unreadable rows counted) of all of them."""
    details: dict[str, int] = field(default_factory=dict)
    """How many rows for each of a few reasons, where the kind has several."""
    words: dict[str, str] = field(default_factory=dict)
    """What stands for the names in braces of the kind's title and remedy."""

    @property
    def count(self) -> int:
        """Rows; 1 for what is true of the whole dataset."""
        return self.bits.count if KINDS[self.kind].of_rows else 1

    @property
    def title(self) -> str:
        return _filled(KINDS[self.kind].title, self.words)

    @property
    def remedy(self) -> str:
        return _filled(KINDS[self.kind].remedy, {"name": self.kind, **self.words})


def _filled(text: str, words: dict[str, str]) -> str:
    for name, word in words.items():
        text = text.replace("{" + name + "}", word)
    return text


@dataclass
class LintReport:
    """What was found in a dataset, and what was not looked for."""

    name: str
    rows: int
    """Rows that were looked at, those that cannot be used among them."""
    usable: int
    findings: list[Finding]
    """In the order of KINDS; only what was found."""
    measures: dict[str, Any]
    """Figures of the whole dataset, whether or not they are findings."""
    not_looked_for: dict[str, str]
    """Kind → why."""
    parameters: dict[str, Any]
    """What decides what is found: thresholds, model, max_length, the dataset's sha256."""
    place: str = "row"
    """What a row's number counts: "line" or "row"."""

    def finding(self, kind: str) -> Finding | None:
        """The finding of a kind, if there is one."""
        return next((one for one in self.findings if one.kind == kind), None)

    def as_json(self) -> dict[str, Any]:
        """For a program, and for the cache."""
        findings = [
            {
                "kind": one.kind,
                "title": one.title,
                "count": one.count,
                "details": one.details,
                "what_to_do": one.remedy,
                "rows": [{"row": row.number, "ordinal": row.ordinal, "detail": row.detail} for row in one.rows],
            }
            for one in self.findings
        ]
        return {
            "schema": SCHEMA,
            "dataset": self.name,
            "rows": self.rows,
            "usable": self.usable,
            "place": self.place,
            "findings": findings,
            "measures": self.measures,
            "not_looked_for": self.not_looked_for,
            "parameters": self.parameters,
        }


def kinds_named(text: str, option: str, *, of_rows: bool = False) -> tuple[str, ...]:
    """Kinds from "a,b"; UsageError for one that does not exist or, with `of_rows`, that is not about rows."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    known = [name for name, kind in KINDS.items() if kind.of_rows or not of_rows]
    for name in names:
        if name not in known:
            raise UsageError(f"{option} {name}: there is no such finding. There are: {', '.join(known)}.")
    if not names:
        raise UsageError(f"{option}: name at least one of {', '.join(known)}.")
    return names
