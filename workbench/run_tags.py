"""Words that a person puts on runs, to find them again: baseline, keep, paper.

Owns tags.json in a run's folder, so that tags travel with the run; run.toml stays as it was launched. Invariants: a
tag is a word that a person can type, once for a run, in the order in which it came; a file that is damaged is no tags
and is replaced by the next change; a person alone writes here, never a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.run.durable_files import encode_line, read_json_object, write_atomically
from engine.run.folder import RunFolder
from workbench.errors import UsageError, explain_os_errors

if TYPE_CHECKING:
    from workbench.run_list import Run

MOST_TAGS = 16
LONGEST_TAG = 32
SCHEMA = 1
TAGS_FILE = "tags.json"
_TAG = re.compile(rf"\w[\w.-]{{0,{LONGEST_TAG - 1}}}")


def tags_of(folder: RunFolder) -> tuple[str, ...]:
    """The tags of a run; what is none in the file is left out."""
    try:
        found = read_json_object(_path(folder))
    except OSError:
        return ()
    tags = found.get("tags") if found is not None else None
    good = [tag for tag in tags if isinstance(tag, str) and _TAG.fullmatch(tag)] if isinstance(tags, list) else []
    return tuple(dict.fromkeys(good))[:MOST_TAGS]


def typed_tags(text: str) -> tuple[str, ...]:
    """The tags in what a person typed, between spaces or commas, with # before them or not. Raises UsageError."""
    return checked(word.removeprefix("#") for word in re.split(r"[\s,]+", text) if word)


def checked(words: Iterable[str]) -> tuple[str, ...]:
    """The words, each once. Raises UsageError for one that can be no tag, or too many."""
    tags = tuple(dict.fromkeys(words))
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise UsageError(
                f"{tag!r} can be no tag: letters, digits, _ . and -, beginning with a letter or digit, "
                f"{LONGEST_TAG} at most"
            )
    if len(tags) > MOST_TAGS:
        raise UsageError(f"{len(tags)} tags: a run has {MOST_TAGS} at most. Leave some out.")
    return tags


def set_tags(run: Run, tags: Sequence[str]) -> tuple[str, ...]:
    """Give a run exactly these tags. Raises UsageError for what is none, WorkbenchError where it cannot be written."""
    run.workspace.require_writable()
    found = checked(tags)
    with explain_os_errors(f"writing the tags of {run.id}", run.folder.path):
        if found:
            write_atomically(_path(run.folder), encode_line({"schema": SCHEMA, "tags": list(found)}))
        else:
            _path(run.folder).unlink(missing_ok=True)
    return found


def change_tags(run: Run, add: Sequence[str] = (), remove: Sequence[str] = ()) -> tuple[str, ...]:
    """Put tags on a run and take others away; the tags it then has. Raises as `set_tags`, and for one it has not."""
    before = tags_of(run.folder)
    if missing := [tag for tag in remove if tag not in before]:
        raise UsageError(f"{run.id} has no tag {missing[0]!r}. It has: {', '.join(before) or 'none'}")
    return set_tags(run, [*(tag for tag in before if tag not in remove), *add])


def _path(folder: RunFolder) -> Path:
    return folder.path / TAGS_FILE
