"""The lines of a judgment journal: what one says, how it is written, and how a journal file is read.

Owns the line format (schema 1) and its checksum: the CRC-32 of the line's canonical JSON (sorted keys, no spaces)
without the field `sum`. Invariant: a line is either read exactly as it was written or becomes a Fault that names file,
line and cause. Refuses to know what a set of lines means together; that is `judgments`.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from workbench.errors import UsageError

SCHEMA = 1
GIVEN_VERDICTS = ("a", "b", "tie", "both_bad", "skip")
VERDICTS = (*GIVEN_VERDICTS, "undone")
ORIGINS = ("imported", "rule", "typed", "screen")
PURPOSES = ("label", "repeat", "calibration", "adjudication")


class Judgment(NamedTuple):
    """One line of a journal."""

    seq: int
    """Position in its journal, from 1."""
    id: str
    """Random hex; unique among all journals."""
    supersedes: str | None
    """The id of an earlier line of the same showing that this one replaces."""
    pair: str
    annotator: str
    repeat: int
    """0 for the first showing of a pair to this annotator; later showings are never merged into it."""
    criterion: str
    verdict: str
    """One of VERDICTS; a and b are the columns of the pair set, whatever was shown on the left."""
    strength: int
    order: str
    """"ab" or "ba": which answer was shown first; empty where nobody was shown anything."""
    origin: str
    """One of ORIGINS. "rule" is synthetic, and is called so wherever it is shown."""
    time: str
    """ISO 8601, for showing only: nothing is ever ordered by it."""
    comment: str
    tags: tuple[str, ...] = ()
    """Reasons, of those that the set declares or free."""
    flagged: bool = False
    """Something is wrong with this pair, and somebody should look."""
    better: str = ""
    """A better answer that the annotator wrote; empty for none."""
    purpose: str = "label"
    """One of PURPOSES: why this pair was shown. What is no "label" is never merged into the first verdicts."""
    picked: str = ""
    """How a first showing was chosen: "order", "random", or "active" (an order that looks for hard pairs, so that
    these pairs stand for no others); empty where nobody was shown anything."""


_TYPES: dict[str, tuple[type, ...]] = {
    "seq": (int,),
    "id": (str,),
    "supersedes": (str, type(None)),
    "pair": (str,),
    "annotator": (str,),
    "repeat": (int,),
    "criterion": (str,),
    "verdict": (str,),
    "strength": (int,),
    "order": (str,),
    "origin": (str,),
    "time": (str,),
    "comment": (str,),
}
_ADDED: dict[str, tuple[type, ...]] = {
    "tags": (list,),
    "flagged": (bool,),
    "better": (str,),
    "purpose": (str,),
    "picked": (str,),
}
"""Fields that a line may lack: one with the default is not written, and an older program ignores one that is there."""
_DEFAULTS = Judgment._field_defaults


class Fault(NamedTuple):
    """One line that cannot be used. It stays in its file."""

    journal: str
    line: int
    cause: str
    """"torn", "not JSON", "foreign", "newer", "checksum" or "doubled"."""
    detail: str

    def __str__(self) -> str:
        return f"{self.journal}:{self.line}: {self.cause}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class JournalText:
    """One journal file as it was read."""

    name: str
    lines: tuple[tuple[int, Judgment], ...]
    """(line number, judgment), in the order of the file."""
    faults: tuple[Fault, ...]
    sha256: str
    """Of exactly the bytes that were read; the file may have grown since."""
    ends_torn: bool
    """The last byte is not a newline: whoever appends must write one first."""


def encode(judgment: Judgment) -> bytes:
    """A judgment as one line with its checksum and newline."""
    said = judgment._asdict()
    fields: dict[str, Any] = {"schema": SCHEMA, **{name: said[name] for name in _TYPES}}
    fields |= {name: said[name] for name in _ADDED if said[name] != _DEFAULTS[name]}
    try:
        return orjson.dumps({**fields, "sum": _checksum(fields)}) + b"\n"
    except TypeError as error:
        raise UsageError(f"this judgment cannot be written: {error}. Comments must be valid Unicode.") from error


def annotator_of(journal_name: str) -> str:
    """The annotator to whom a journal file belongs, by its name ANNOTATOR.ID.jsonl."""
    return journal_name.removesuffix(".jsonl").rpartition(".")[0]


def read_journal(path: Path) -> JournalText:
    """Every usable line of a journal, and a Fault for each that is not. Blank lines are nothing."""
    content = path.read_bytes()
    annotator = annotator_of(path.name)
    ends_torn = bool(content) and not content.endswith(b"\n")
    rows = content.split(b"\n")
    lines: list[tuple[int, Judgment]] = []
    faults: list[Fault] = []
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        parsed = _decode(row, annotator, is_last=number == len(rows))
        if isinstance(parsed, Judgment):
            lines.append((number, parsed))
        else:
            faults.append(Fault(path.name, number, *parsed))
    return JournalText(path.name, tuple(lines), tuple(faults), hashlib.sha256(content).hexdigest(), ends_torn)


def decode_line(row: bytes, annotator: str) -> Judgment | None:
    """The judgment in one line of this annotator's journal; None where it is torn, foreign or not as it was written."""
    parsed = _decode(row, annotator, is_last=False)
    return parsed if isinstance(parsed, Judgment) else None


def _decode(row: bytes, annotator: str, is_last: bool) -> Judgment | tuple[str, str]:
    """The judgment in one line, or (cause, detail)."""
    try:
        fields = orjson.loads(row)
    except orjson.JSONDecodeError:
        return ("torn", "the line ends early") if is_last else ("not JSON", "")
    if not isinstance(fields, dict) or not isinstance(fields.get("schema"), int):
        return "foreign", "not a judgment"
    if fields["schema"] > SCHEMA:
        return "newer", f"schema {fields['schema']}; this program reads up to {SCHEMA}"
    stated = fields.pop("sum", None)
    if stated != _checksum(fields):
        return "checksum", "the line is not as it was written"
    fields.pop("schema")
    wrong = [name for name, kinds in _TYPES.items() if name not in fields or not isinstance(fields[name], kinds)]
    wrong += [name for name, kinds in _ADDED.items() if name in fields and not isinstance(fields[name], kinds)]
    if wrong or fields["verdict"] not in VERDICTS:
        return "foreign", f"unexpected {wrong[0] if wrong else 'verdict'}"
    if fields["annotator"] != annotator:
        return "foreign", "it names another annotator than its file"
    added = {name: fields[name] for name in _ADDED if name in fields}
    if "tags" in added:
        added["tags"] = tuple(map(str, added["tags"]))
    return Judgment(**{name: fields[name] for name in _TYPES}, **added)


def _checksum(fields: dict[str, Any]) -> str:
    return f"{zlib.crc32(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)):08x}"
