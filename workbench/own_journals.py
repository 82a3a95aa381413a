"""What stands under one annotator's name on a pair set, and the journal that is open for more.

Owns reading this annotator's journals again where another program has written under the name, and writing a line so
that it is on the disk, in a file that is still where it was, when `write` returns. Invariants: where two programs
disagree on a showing, nothing stands on it; after any error the journal is opened anew for the next line, which reads
what was saved. Refuses to know which pair is shown and why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TypeVar

from workbench.errors import WorkbenchError
from workbench.judgment_lines import Judgment, annotator_of, read_journal
from workbench.judgments import Journal, Showing, fold, showing_of
from workbench.pair_sets import PairSet

T = TypeVar("T")


class OwnJournals:
    """The journals of one annotator on one pair set. The caller holds off other threads."""

    def __init__(
        self, pair_set: PairSet, annotator: str, pairs: Container[str], belongs: Callable[[Judgment], bool]
    ) -> None:
        """Judgments of other pairs than `pairs`, and those that do not belong to this sitting, are not looked at."""
        self._pair_set, self.annotator, self._pairs, self._belongs = pair_set, annotator, pairs, belongs
        self.standing: dict[Showing, Judgment] = {}
        """What holds, by showing."""
        self.history: dict[Showing, None] = {}
        """The showings on which something stands, the one judged last at the end."""
        self._journal: Journal | None = None
        self._inode = 0
        self._foreign: set[Showing] = set()
        self._unsure: tuple[Showing, ...] = ()
        self._others = self._sizes_of_others()
        self._read()

    def close(self) -> None:
        """Give the journal back."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def open(self) -> Journal:
        """The journal that this program writes to."""
        if self._journal is None:
            self._pair_set.workspace.require_writable()
            self._foreign.clear()  # first: what is written from here on is seen as new
            self._journal = self._pair_set.journal(self.annotator)
            self._inode = _state(self._journal.path)[0]
        return self._journal

    def is_unsure(self, showing: Showing) -> bool:
        """Whether the last lines were for this showing, too, and may or may not be on the disk."""
        return showing in self._unsure

    def note(self, showing: Showing, judgment: Judgment) -> None:
        """Remember what was just written."""
        self.standing[showing] = judgment
        self.history.pop(showing, None)
        self.history[showing] = None

    def forget(self, showing: Showing) -> None:
        """Remember that what stood was taken back."""
        self.standing.pop(showing, None)
        self.history.pop(showing, None)

    def write(self, showings: Sequence[Showing], write: Callable[[Journal], T]) -> T:
        """What `write` returns when its lines, of these showings, are on the disk."""
        self._pair_set.workspace.require_writable()
        if not self._foreign.isdisjoint(showings):
            self.close()  # its memory of what stands is older than the other program's lines
        try:
            journal = self.open()
            made = write(journal)
            if _state(journal.path)[0] != self._inode:
                raise WorkbenchError(f"{journal.path} was removed while it was open: the verdict was not saved")
        except (WorkbenchError, OSError) as error:
            self.close()
            self._unsure = tuple(showings)
            if isinstance(error, WorkbenchError):
                raise
            raise WorkbenchError(f"the verdict was not saved ({error.strerror or error})") from error
        self._unsure = ()
        return made

    def look_at_others(self) -> bool:
        """Read again where another program has written under this name, and say so; else a few `stat` calls."""
        now = self._sizes_of_others()
        changed = [name for name, state in now.items() if self._others.get(name) != state]
        for name in changed:
            journal = read_journal(self._pair_set.judgments_folder / name)
            self._foreign |= {showing_of(line) for _, line in journal.lines}
        if changed:
            self._others = now
            self._read()
        return bool(changed)

    def _mine(self) -> list[Path]:
        folder = self._pair_set.judgments_folder
        return sorted(path for path in folder.glob("*.jsonl") if annotator_of(path.name) == self.annotator)

    def _sizes_of_others(self) -> dict[str, tuple[int, int]]:
        """Inode and size of every journal under this name but the one that is open here."""
        held = self._journal.path.name if self._journal else ""
        return {path.name: _state(path) for path in self._mine() if path.name != held}

    def _read(self) -> None:
        journals = [read_journal(path) for path in self._mine()]
        said = fold(journals)
        mine = (one for one in said.current.items() if one[0].pair in self._pairs and self._belongs(one[1]))
        self.standing = dict(mine)
        # Newest last. The clock only tells which sitting was the later one; what holds is never asked of it.
        journals.sort(key=lambda journal: journal.lines[-1][1].time if journal.lines else "")
        lines = [showing_of(line) for journal in journals for _, line in journal.lines]
        stood = [showing for showing in [*lines, *self.history] if showing in self.standing]
        self.history = dict.fromkeys(reversed(dict.fromkeys(reversed(stood))))


def _state(path: Path) -> tuple[int, int]:
    """(inode, size); zeros where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size
