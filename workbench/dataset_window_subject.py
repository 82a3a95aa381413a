"""What a person inspects by name, and how one of its rows reads: a chat, a pair of answers, or fields.

Owns finding the file of a dataset or a preference set, and turning one raw row into turns by the same conversion that
training uses, so that what is shown is what would be trained on. A row that the conversion refuses is shown as it is,
with the reason. The file is not hashed here: browsing must begin at once, and whatever trains on it verifies it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from workbench.canonical_rows import RowRejected, said_in
from workbench.dataset_reading import FileKind
from workbench.dataset_shapes import Recognition
from workbench.dataset_window import cell_of
from workbench.errors import NotFound, UnreadableData
from workbench.row_conversion import to_canonical
from workbench.workspace import Workspace

SIDES = ("train", "eval")
_PAIRS = (("chosen", "rejected"), ("a", "b"))
_NOT_FIELDS = {"id", "prompt", "completion", "messages", "text", "chosen", "rejected", "a", "b", "tags", "group"}


@dataclass(frozen=True)
class Subject:
    """A file of rows, and what is known of it."""

    name: str
    path: Path
    file_kind: FileKind
    recognition: Recognition | None
    """How its rows become canonical; None where they are, as in a preference set."""
    shape: str
    side: str = ""
    """train or eval of a preference set; empty for a dataset."""
    note: str = ""
    """Such as "synthetic"."""
    warning: str = ""
    """Where the file is not the one that was added."""


@dataclass(frozen=True)
class Turn:
    """Who says what."""

    role: str
    text: str


@dataclass(frozen=True)
class RowReading:
    """One row as a person reads it."""

    turns: tuple[Turn, ...] = ()
    """The conversation, or what both answers answer."""
    answers: tuple[tuple[str, tuple[Turn, ...]], ...] = ()
    """Two answers with their names, where the row is a pair."""
    fields: tuple[tuple[str, str], ...] = ()
    """What else it has; everything, where it is not recognised."""
    reason: str = ""
    """Why it is shown as it is in the file; empty where it is not."""


def find_subject(workspace: Workspace, name: str, side: str = "train") -> Subject:
    """The dataset or preference set called `name`; the first one where `name` is empty."""
    if not name:
        names = [*workspace.names("datasets"), *workspace.names("prefs")]
        if not names:
            raise NotFound("no dataset yet: a adds one.")
        name = names[0]
    if name in workspace.names("prefs"):
        return _preference_set(workspace, name, side)
    return _dataset(workspace, name)


def read_row(subject: Subject, row: dict[str, Any], place: str) -> RowReading:
    """`row` of the file as it would be trained on, or as it is with the reason why that cannot be."""
    if subject.recognition is None:
        return canonical_reading(row) if "prompt" in row else RowReading(fields=_fields(row))
    try:
        return canonical_reading(dict(to_canonical(row, subject.recognition, place)))
    except RowRejected as error:
        reason = error.reason + (f" ({error.detail})" if error.detail else "")
        return RowReading(fields=_fields(row), reason=f"not used: {reason}")


def canonical_reading(row: dict[str, Any]) -> RowReading:
    """How a canonical row of any shape reads."""
    turns = [*_turns("text", row.get("text")), *_turns("prompt", row.get("prompt"))]
    turns += [*_turns("", row.get("messages")), *_turns("completion", row.get("completion"))]
    answers = next(
        (tuple((name, _turns("", row[name])) for name in pair) for pair in _PAIRS if all(name in row for name in pair)),
        (),
    )
    others = {name: value for name, value in row.items() if name not in _NOT_FIELDS and value is not None}
    if others.get("weight") == 1:
        del others["weight"]  # every verdict counts the same
    tags = row.get("tags") or {}
    return RowReading(tuple(turns), answers, _fields({**others, **tags}))


def raw_json(row: dict[str, Any]) -> str:
    """A row as indented JSON."""
    try:
        return orjson.dumps(row, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # an integer of more than 64 bits, or half of a surrogate pair
        return repr(row)


def _turns(role: str, value: Any) -> tuple[Turn, ...]:
    """The turns of a prompt or an answer; a plain text is one turn of `role`."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (Turn(role, value),)
    return tuple(Turn(str(turn["role"]), said_in(turn)) for turn in value)


def _fields(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, "∅" if value is None else cell_of(value) or "") for name, value in row.items())


def _dataset(workspace: Workspace, name: str) -> Subject:
    from workbench.dataset_store import open_dataset

    info = open_dataset(workspace, name).info
    path = workspace.resolve(info.source.path)
    try:
        found = path.stat()
    except OSError as error:
        raise UnreadableData(
            f"dataset {name}: its file {path} cannot be read ({error.strerror}). Put it back, or add it again."
        ) from error
    same = (found.st_size, found.st_mtime_ns) == (info.source.bytes, info.source.mtime_ns)
    warning = "" if same else f"{path.name} was written to since it was added; training on it may be refused"
    return Subject(name, path, info.source.file_kind, info.recognition, info.recognition.shape, "", info.note, warning)


def _preference_set(workspace: Workspace, name: str, side: str) -> Subject:
    path = workspace.existing("prefs", name) / f"{side}.jsonl"
    if not path.is_file():
        raise UnreadableData(f"preference set {name}: {path} is missing. Restore it from a copy.")
    return Subject(name, path, FileKind("jsonl"), None, "preference", side)
