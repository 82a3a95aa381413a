"""What an annotator adds to a pair before the verdict: a comment, reasons, a flag, a better answer.

Owns these notes, and their drafts on the disk: pairs/NAME/drafts/ANNOTATOR.PAIR.json, replaced in one step whenever
something is added, dropped when a verdict has taken the notes into the journal. Invariants: a kill loses no note that
was kept; a draft that cannot be read is moved aside, never deleted, and stops nobody.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from engine.run.durable_files import write_atomically
from workbench.errors import UsageError, explain_os_errors
from workbench.judgment_lines import Judgment
from workbench.pair_sets import PairSet

LONGEST_BETTER = 262_144
"""Characters of a written answer."""


@dataclass(frozen=True)
class Notes:
    """What goes with the next verdict on a pair."""

    comment: str = ""
    tags: tuple[str, ...] = ()
    flagged: bool = False
    better: str = ""
    """An answer that the annotator wrote."""

    def words(self) -> str:
        """What there is, in a few words; empty for nothing."""
        parts = [
            "flagged" if self.flagged else "",
            ", ".join(self.tags),
            "a comment" if self.comment else "",
            "your answer" if self.better else "",
        ]
        return " · ".join(part for part in parts if part)


NONE = Notes()


def notes_of(judgment: Judgment) -> Notes:
    """The notes that were saved with a verdict."""
    return Notes(judgment.comment, judgment.tags, judgment.flagged, judgment.better)


class Drafts:
    """The notes of one annotator on pairs that have no verdict yet."""

    def __init__(self, pair_set: PairSet, annotator: str) -> None:
        self._pair_set, self._annotator = pair_set, annotator
        self._folder = pair_set.folder / "drafts"

    def read(self, pair: str) -> Notes | None:
        """The draft of a pair; None where there is none."""
        path = self._path(pair)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        try:
            said = orjson.loads(content)
            return Notes(str(said["comment"]), tuple(map(str, said["tags"])), said["flagged"] is True, said["better"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            with suppress(OSError):
                path.rename(path.with_suffix(".damaged"))
            return None

    def keep(self, pair: str, notes: Notes, *, durable: bool = True) -> None:
        """Replace the draft of a pair. Without `durable` it survives a kill but not a power cut, in a fraction of the
        time: for what is kept at every key."""
        self._pair_set.workspace.require_writable()
        if len(notes.better) > LONGEST_BETTER:
            raise UsageError(f"an answer of {len(notes.better):,} characters: at most {LONGEST_BETTER:,} are kept.")
        if notes == NONE:
            self.drop(pair)
            return
        with explain_os_errors("keeping a draft", self._pair_set.folder):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            try:
                content = orjson.dumps(asdict(notes))
            except TypeError as error:
                raise UsageError(f"this cannot be kept: {error}. A text must be valid Unicode.") from error
            write_atomically(self._path(pair), content, durable=durable)

    def pairs(self) -> list[str]:
        """The pairs that have one."""
        names = [path.name for path in self._folder.glob(f"{self._annotator}.*.json")] if self._folder.is_dir() else []
        return [name.removeprefix(f"{self._annotator}.").removesuffix(".json") for name in names]

    def drop(self, pair: str) -> None:
        """The notes are in the journal, or nothing is left of them."""
        with suppress(OSError):
            self._path(pair).unlink(missing_ok=True)

    def _path(self, pair: str) -> Path:
        return self._folder / f"{self._annotator}.{pair}.json"
