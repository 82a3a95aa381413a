"""Judgments: the append-only journals in which every verdict is kept, and the fold that says what now holds.

Owns judgments/ANNOTATOR.ID.jsonl. A journal is written by one process, which holds a flock on it: one `os.write` to an
O_APPEND descriptor and one fdatasync, and only then is a verdict acknowledged. Invariants: a line is never rewritten; a
line that is torn, foreign, doubled or whose checksum is wrong is counted and named by file and line, never used and
never removed. A judgment belongs to a showing (pair, annotator, repeat, criterion); undo and revision are later lines
that supersede within it. What holds is the line that nobody supersedes: the clock is never asked.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

from engine.run.durable_files import fsync_folder
from workbench.errors import UsageError, WorkbenchError, disk_full, explain_os_errors, is_out_of_space
from workbench.judgment_lines import (
    GIVEN_VERDICTS,
    PURPOSES,
    Fault,
    JournalText,
    Judgment,
    annotator_of,
    encode,
    read_journal,
)
from workbench.workspace import check_name, now

Verdict = Literal["a", "b", "tie", "both_bad", "skip"]
Origin = Literal["imported", "rule", "typed", "screen"]
Order = Literal["ab", "ba", ""]
_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class Showing(NamedTuple):
    """One occasion on which one person (or rule) was asked one question about one pair."""

    pair: str
    annotator: str
    repeat: int = 0
    criterion: str = "overall"


@dataclass(frozen=True)
class Fold:
    """What the journals of one pair set say, taken together."""

    current: Mapping[Showing, Judgment]
    """The verdict that holds for each showing; a showing that was undone, or is in conflict, has none."""
    conflicts: Mapping[Showing, tuple[Judgment, ...]]
    """Showings for which unsuperseded lines disagree: two programs wrote under one annotator's name."""
    faults: tuple[Fault, ...]
    """Lines that could not be used, by file and line."""
    journals: Mapping[str, tuple[str, int]]
    """Journal file name → (sha256 of the bytes that were read, lines used)."""
    heads: Mapping[Showing, tuple[str, ...]]
    """Ids of the unsuperseded lines of each showing, undone ones too: what a new line must supersede."""

    def stands(self, showing: Showing) -> bool:
        """Whether a showing was judged and not undone."""
        return showing in self.current or showing in self.conflicts

    @property
    def first(self) -> list[Judgment]:
        """What stands on first showings: neither repeats nor calibration pairs nor adjudications."""
        return [one for one in self.current.values() if is_first(one)]

    @property
    def judged_pairs(self) -> set[str]:
        """Pairs with a verdict of anyone; a skip is none."""
        return {one.pair for one in self.first if one.verdict != "skip"}

    @property
    def skipped_pairs(self) -> set[str]:
        """Pairs that somebody skipped and nobody judged. What is neither judged nor skipped is open."""
        return {one.pair for one in self.first} - self.judged_pairs

    @property
    def undone(self) -> int:
        """How many showings were judged and then undone."""
        return len(self.heads) - len(self.current) - len(self.conflicts)


def read_judgments(folder: Path) -> Fold:
    """Folds every journal in a judgments folder. A folder that does not exist has no judgments."""
    texts = [read_journal(path) for path in sorted(folder.glob("*.jsonl"))] if folder.is_dir() else []
    return fold(texts)


def fold(journals: Iterable[JournalText]) -> Fold:
    """The verdicts that hold, from journals in the order of their names."""
    lines: dict[str, Judgment] = {}
    faults: list[Fault] = []
    read: dict[str, tuple[str, int]] = {}
    for journal in journals:
        used = 0
        faults += journal.faults
        for number, line in journal.lines:
            if line.id in lines:
                faults.append(Fault(journal.name, number, "doubled", f"id {line.id} was read before"))
                continue
            lines[line.id] = line
            used += 1
        read[journal.name] = (journal.sha256, used)
    heads = _unsuperseded(lines)
    current: dict[Showing, Judgment] = {}
    conflicts: dict[Showing, tuple[Judgment, ...]] = {}
    for showing, standing in heads.items():
        verdicts = {judgment.verdict for judgment in standing}
        if len(verdicts) > 1:
            conflicts[showing] = tuple(standing)
        elif verdicts != {"undone"}:
            current[showing] = standing[-1]
    ids = {showing: tuple(judgment.id for judgment in standing) for showing, standing in heads.items()}
    return Fold(current, conflicts, tuple(faults), read, ids)


def showing_of(judgment: Judgment) -> Showing:
    """The showing that a line belongs to."""
    return Showing(judgment.pair, judgment.annotator, judgment.repeat, judgment.criterion)


def is_first(judgment: Judgment) -> bool:
    """Whether a line belongs to a first showing: no repeat, no calibration pair and no adjudication."""
    return judgment.repeat == 0 and judgment.purpose == "label"


def _unsuperseded(lines: Mapping[str, Judgment]) -> dict[Showing, list[Judgment]]:
    """The lines that no line of the same showing supersedes. Supersession never reaches into another showing."""
    gone = set()
    for line in lines.values():
        target = lines.get(line.supersedes or "")
        if target and showing_of(target) == showing_of(line):
            gone.add(target.id)
    heads: dict[Showing, list[Judgment]] = {}
    for line in lines.values():
        if line.id not in gone:
            heads.setdefault(showing_of(line), []).append(line)
    return heads


class Journal:
    """One annotator's journal, open for appending; a context manager.

    Opening continues the annotator's newest journal that no living process holds, or starts a new one. `append` returns
    only when the line is on the disk; where it raises, the verdict was not acknowledged. After an error that leaves the
    disk's state unknown, the journal refuses further lines until it is opened again.
    """

    def __init__(self, folder: Path, annotator: str, *, fresh: bool = False) -> None:
        self.annotator = check_name(annotator, "annotator")
        with explain_os_errors(f"opening a journal for {annotator}", folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            self._descriptor, self.path = _open_locked(folder, annotator, fresh)
        self._broken = ""
        try:
            mine = read_journal(self.path)
            self._sequence = max((line.seq for _, line in mine.lines), default=0)
            before = read_judgments(folder)
            self._heads = {showing: ids for showing, ids in before.heads.items() if showing.annotator == annotator}
            self._undone = {showing for showing in self._heads if not before.stands(showing)}
            self._needs_newline = mine.ends_torn
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the journal back; it can be continued by any process."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def append(
        self,
        pair: str,
        verdict: Verdict,
        *,
        origin: Origin,
        strength: int = 1,
        repeat: int = 0,
        criterion: str = "overall",
        order: Order = "",
        comment: str = "",
        purpose: str = "label",
        picked: str = "",
    ) -> Judgment:
        """Records one verdict and returns when it is durable.

        It supersedes whatever this annotator said before in the same showing.
        """
        made = self.prepare(
            pair,
            verdict,
            origin=origin,
            strength=strength,
            repeat=repeat,
            criterion=criterion,
            order=order,
            comment=comment,
            purpose=purpose,
            picked=picked,
        )
        return self.append_many([made])[-1]

    def prepare(
        self,
        pair: str,
        verdict: Verdict,
        *,
        origin: Origin,
        strength: int = 1,
        repeat: int = 0,
        criterion: str = "overall",
        order: Order = "",
        comment: str = "",
        purpose: str = "label",
        picked: str = "",
    ) -> Judgment:
        """A judgment for `append_many`; it gets its sequence number and what it supersedes when it is written."""
        if verdict not in GIVEN_VERDICTS:
            raise UsageError(f"{verdict!r} is not a verdict: use a, b, tie, both_bad or skip.")
        identity = secrets.token_hex(8)
        said = (pair, self.annotator, repeat, criterion, verdict, strength, order, origin, now(), comment)
        if purpose not in PURPOSES:
            raise UsageError(f"{purpose!r} is no purpose of a judgment: use {', '.join(PURPOSES)}.")
        return Judgment(0, identity, None, *said, purpose=purpose, picked=picked)

    def undo(self, showing: Showing, *, origin: Origin = "typed") -> Judgment:
        """Takes back what holds in a showing, by a line that supersedes it; the pair is open again."""
        if showing not in self._heads or showing in self._undone:
            raise UsageError(f"{self.annotator} has no verdict on pair {showing.pair} to undo.")
        made = self.prepare(showing.pair, "skip", origin=origin, repeat=showing.repeat, criterion=showing.criterion)
        return self.append_many([made._replace(verdict="undone")])[-1]

    def append_many(self, judgments: Iterable[Judgment]) -> list[Judgment]:
        """Records several verdicts with one write and one fdatasync; returns the lines written, when all are durable.

        Where two programs judged one showing under this name, each of their lines is superseded by one of its own.
        """
        if self._broken:
            raise WorkbenchError(f"{self.path}: {self._broken}; open the journal again to see what was saved.")
        if self._descriptor < 0:
            raise WorkbenchError(f"{self.path} is closed.")
        ready: list[Judgment] = []
        heads: dict[Showing, tuple[str, ...]] = {}
        for judgment in judgments:
            showing = showing_of(judgment)
            lines = [
                judgment._replace(seq=self._sequence + len(ready) + place, supersedes=before, id=identity)
                for place, (before, identity) in enumerate(
                    self._replacements(judgment.id, heads.get(showing, self._heads.get(showing, ()))), start=1
                )
            ]
            ready += lines
            heads[showing] = tuple(line.id for line in lines)
        if ready:
            self._write(b"".join(map(encode, ready)))
            self._sequence += len(ready)
            self._heads.update(heads)
            self._note_undone(ready)
        return ready

    @staticmethod
    def _replacements(identity: str, before: tuple[str, ...]) -> list[tuple[str | None, str]]:
        """(what is superseded, id of the line that does it): one line, or one for each line that stands."""
        if not before:
            return [(None, identity)]
        return [(target, identity if place == 0 else secrets.token_hex(8)) for place, target in enumerate(before)]

    def _note_undone(self, lines: Iterable[Judgment]) -> None:
        for line in lines:
            (self._undone.add if line.verdict == "undone" else self._undone.discard)(showing_of(line))

    def _write(self, lines: bytes) -> None:
        data = b"\n" + lines if self._needs_newline else lines
        size_before = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            raise self._not_saved(error) from error
        if written != len(data):
            # A torn line ends this file now; what was whole in it is taken off so that nothing unacknowledged stays.
            os.ftruncate(self._descriptor, size_before)
            raise disk_full(f"saving a judgment to {self.path}", self.path.parent)
        try:
            _sync_data(self._descriptor)
        except OSError as error:
            self._broken = f"the disk failed while saving ({error.strerror})"
            raise WorkbenchError(
                f"{self.path}: {self._broken}. Whether the last verdict is kept is unknown."
            ) from error
        self._needs_newline = False

    def _not_saved(self, error: OSError) -> WorkbenchError:
        if is_out_of_space(error):
            return disk_full(f"saving a judgment to {self.path}", self.path.parent)
        return WorkbenchError(f"{self.path}: the verdict was not saved ({error.strerror}).")


def _open_locked(folder: Path, annotator: str, fresh: bool) -> tuple[int, Path]:
    """(descriptor, path) of a journal that no other living process writes to."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    mine = [] if fresh else [path for path in folder.glob("*.jsonl") if annotator_of(path.name) == annotator]
    for path in sorted(mine, key=lambda path: path.name):
        descriptor = os.open(path, flags)
        if _lock(descriptor):
            return descriptor, path
        os.close(descriptor)
    while True:
        path = folder / f"{annotator}.{secrets.token_hex(4)}.jsonl"
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        if _lock(descriptor):
            fsync_folder(folder)
            return descriptor, path
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
