"""What others have judged so far, followed as their journals grow.

Owns the count by which something is full: the people besides this annotator with a verdict of theirs on it (no skip,
nothing undone, no rule and nothing that came with the data). What a line counts for is the caller's to say: first
showings for who labels, adjudications for a third voice. Invariant: each line is read once; a journal that was cut or
replaced is read again from its start. Refuses to know what the verdicts are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path

from workbench.judgment_lines import Judgment, annotator_of, decode_line
from workbench.judgments import is_first

BY_HAND = ("screen", "typed")
"""Origins that fill a pair."""
_NOBODY: frozenset[str] = frozenset()
CountsFor = Callable[[Judgment], str]
"""What a line counts for: a key; empty where it does not count."""


def first_showing(line: Judgment) -> str:
    """The pair, of a line on its first showing."""
    return line.pair if is_first(line) else ""


@dataclass
class _Followed:
    inode: int = 0
    offset: int = 0
    """Bytes of whole lines that were read."""


@dataclass
class _Said:
    """The lines of one person on one thing that nobody supersedes."""

    standing: set[str] = field(default_factory=set)
    """Ids of those that are verdicts."""
    gone: set[str] = field(default_factory=set)
    """Ids that a line supersedes, read or not yet read."""


class OthersVerdicts:
    """Who has judged what, besides one annotator."""

    def __init__(self, folder: Path, annotator: str, overlap: int = 0, counts_for: CountsFor = first_showing) -> None:
        self._folder, self._annotator, self._overlap, self._counts_for = folder, annotator, overlap, counts_for
        self._forget()

    def judged_by(self, key: str) -> Set[str]:
        """The others who have judged this, as far as was looked."""
        return self._judged.get(key, _NOBODY)

    def look(self) -> None:
        """Read what was written since the last look; one `stat` for each journal where nothing was."""
        for path in sorted(self._folder.glob("*.jsonl")):
            if annotator_of(path.name) == self._annotator:
                continue
            try:
                found = os.stat(path)
            except FileNotFoundError:
                continue
            known = self._files.setdefault(path.name, _Followed(found.st_ino))
            if known.inode != found.st_ino or known.offset > found.st_size:
                self._forget()
                self.look()
                return
            if found.st_size > known.offset:
                self._read(path, known)

    def _forget(self) -> None:
        self._files: dict[str, _Followed] = {}
        self._ids: set[str] = set()
        self._said: dict[tuple[str, str], _Said] = {}
        self._judged: dict[str, set[str]] = {}
        self.full: set[str] = set()
        """What has the verdicts of `overlap` others or more; nothing where the overlap is 0."""

    def _read(self, path: Path, known: _Followed) -> None:
        with open(path, "rb") as file:
            file.seek(known.offset)
            content = file.read()
        known.offset += content.rfind(b"\n") + 1
        annotator = annotator_of(path.name)
        for row in content.split(b"\n"):  # the last one, without its newline, may be whole, and is read again later
            line = decode_line(row, annotator) if row.strip() else None
            if line is not None and line.id not in self._ids and (key := self._counts_for(line)):
                self._ids.add(line.id)
                self._take(key, line)

    def _take(self, key: str, line: Judgment) -> None:
        who = key, line.annotator
        said = self._said.setdefault(who, _Said())
        if line.supersedes:
            said.gone.add(line.supersedes)
            said.standing.discard(line.supersedes)
        if line.verdict not in ("undone", "skip") and line.origin in BY_HAND and line.id not in said.gone:
            said.standing.add(line.id)
        judged = self._judged.setdefault(key, set())
        (judged.add if said.standing else judged.discard)(line.annotator)
        is_full = 0 < self._overlap <= len(judged)
        (self.full.add if is_full else self.full.discard)(key)
