"""One annotator's sitting on one pair set or arena: which pair is next, which answer stands left, what was said.

Owns the draw of sides, the way from a side to a column, resuming, undo and the counts. Invariants: `judge` returns when
the verdict is on the disk, and where it raises, it was not saved and the present pair is the same; the draw of sides
depends on the set's seed, the pair, the annotator and the repeat alone, so a pair that is shown again looks the same.
Refuses to know what a screen looks like. A lock holds other threads off while the disk is written.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from workbench.canonical_rows import text_of
from workbench.errors import UsageError, WorkbenchError
from workbench.judgment_lines import Judgment, annotator_of, read_journal
from workbench.judgments import Journal, Order, Showing, Verdict, fold
from workbench.labeling_subject import ARENA, open_subject, pair_set_of, prompt_text
from workbench.pair_sets import PairSet
from workbench.steps import Progress, Steps
from workbench.workspace import Workspace, check_name

T = TypeVar("T")
ScreenVerdict = Literal["left", "right", "tie", "both_bad", "skip"]
WORDS: dict[ScreenVerdict, str] = {
    "left": "left better", "right": "right better", "tie": "tie", "both_bad": "both bad", "skip": "skipped",
}  # fmt: skip
"""What a verdict is called where it was seen."""
PACE_OVER = 20
"""Verdicts that the pace is taken over."""
LEAST_FOR_PACE = 3
LONGEST_THOUGHT_S = 600.0
"""A pair that took longer was not thought about all that time, and counts as this much."""


class JudgedElsewhere(WorkbenchError):
    """The present pair was judged meanwhile under the same name in another program; that verdict stands."""


@dataclass(frozen=True)
class ShownPair:
    """One pair as an annotator may see it: no source of an answer, no verdict that came with it."""

    id: str
    prompt: str
    left: str
    right: str
    order: Order
    """Which column stands left: "ab" or "ba"."""


@dataclass(frozen=True)
class Saved:
    """One verdict that is on the disk."""

    number: int
    """How many of the set's pairs this annotator has judged with it."""
    verdict: ScreenVerdict
    took_s: float


@dataclass(frozen=True)
class Counts:
    """How far the sitting is."""

    total: int
    done: int
    """Pairs on which a verdict of this annotator stands, skips among them."""
    by_verdict: dict[ScreenVerdict, int]
    """left and right as they stood on the screen."""
    skipped: int
    per_hour: float
    """0 until there are a few verdicts."""

    @property
    def left(self) -> int:
        """Pairs still open."""
        return self.total - self.done

    @property
    def hours_left(self) -> float:
        """At this pace; 0 where there is none."""
        return self.left / self.per_hour if self.per_hour else 0.0


class Sitting:
    """One annotator on one pair set; a context manager that gives the journal back."""

    def __init__(self, pair_set: PairSet, annotator: str, progress: Progress | None = None) -> None:
        self.pair_set = pair_set
        self.annotator = check_name(annotator, "annotator")
        self._pairs = {pair.id: pair for pair in Steps(pair_set.info.rows, progress).over(pair_set.pairs())}
        self._order = tuple(self._pairs)
        self._lock = threading.Lock()
        self._journal: Journal | None = None
        self._inode = 0
        self._others = self._sizes_of_others()
        self._foreign: set[str] = set()
        self._unsure = ""
        self._standing: dict[str, Judgment] = {}
        self._tally: Counter[ScreenVerdict] = Counter()
        self._history: dict[str, None] = {}
        self._again: deque[str] = deque()
        self._recent: deque[float] = deque(maxlen=PACE_OVER)
        self._comment = ""
        self._present = ""
        self._next_place = 0
        self._read_mine()
        self._move_on()

    def __enter__(self) -> Sitting:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the journal back; waits for a verdict that is being written."""
        with self._lock:
            self._drop_journal()

    def open_journal(self) -> None:
        """Open the journal ahead, so that the first verdict does not wait for it."""
        with self._lock:
            self.pair_set.workspace.require_writable()
            self._open()

    # What is there to judge.

    @property
    def name(self) -> str:
        """The subject of this sitting: NAME, or arena/NAME."""
        return (ARENA if self.pair_set.kind == "arena" else "") + self.pair_set.name

    @property
    def present(self) -> ShownPair | None:
        """The pair to be judged now; None when all are."""
        return self._shown(self._present) if self._present else None

    @property
    def upcoming(self) -> ShownPair | None:
        """The pair that will most likely be next, for laying it out ahead."""
        following = self._first_open(self._next_place, besides=self._present)
        if not following and self._again:
            following = next((one for one in self._again if one != self._present), "")
        return self._shown(following) if following else None

    @property
    def pending_comment(self) -> str:
        """The comment that will go with the present pair's verdict."""
        return self._comment

    @property
    def counts(self) -> Counts:
        """How far it is, and how fast."""
        mean = sum(self._recent) / len(self._recent) if len(self._recent) >= LEAST_FOR_PACE else 0.0
        return Counts(
            total=len(self._pairs),
            done=len(self._standing),
            by_verdict={verdict: count for verdict, count in self._tally.items() if count},
            skipped=self._tally["skip"],
            per_hour=3600 / mean if mean > 0 else 0.0,
        )

    # What one says.

    def judge(self, verdict: ScreenVerdict, took_s: float = 0.0) -> Saved:
        """Save a verdict on the present pair and move on. Raises where it is not on the disk: the pair stays.

        JudgedElsewhere says that the verdict of another program stands; then too the next pair is present.
        """
        with self._lock:
            pair = self._require_present()
            again = pair in self._standing
            self._look_at_others()
            if not again and pair in self._standing and pair != self._unsure:
                said = WORDS[self._on_screen(self._standing[pair])]
                self._move_on()
                raise JudgedElsewhere(
                    f"judged meanwhile under the name {self.annotator} in another program ({said}): that stands, and "
                    "this key saved nothing; u takes it back"
                )
            order = self.order_of(pair)
            column = _column(verdict, order)
            made = self._written(
                pair, lambda journal: journal.append(pair, column, origin="screen", order=order, comment=self._comment)
            )
            self._note(pair, made)
            self._recent.append(min(max(took_s, 0.0), LONGEST_THOUGHT_S))
            if pair in self._again:
                self._again.remove(pair)
            self._move_on()
            return Saved(len(self._standing), verdict, took_s)

    def undo(self) -> ScreenVerdict:
        """Take back the last verdict that stands, and show its pair again; returns what was said of it."""
        with self._lock:
            self._look_at_others()
            pair = self._last_judged()
            self._written(pair, lambda journal: journal.undo(Showing(pair, self.annotator), origin="screen"))
            before = self._standing.pop(pair)
            said = self._on_screen(before)
            self._tally[said] -= 1
            del self._history[pair]
            if self._recent:
                self._recent.pop()
            self._present, self._comment = pair, before.comment
            self._next_place = 0
            return said

    def comment(self, text: str) -> None:
        """Say something of the present pair; it is saved with the verdict. The empty text takes it back."""
        self._require_present()
        self._comment = text.strip()

    def amend(self, text: str) -> None:
        """Put a comment on the last verdict: the same verdict again, which supersedes it."""
        with self._lock:
            self._look_at_others()
            pair = self._last_judged()
            again = self._standing[pair]._replace(comment=text.strip(), origin="screen")
            self._standing[pair] = self._written(pair, lambda journal: _repeated(journal, again))

    def show_skipped_again(self) -> int:
        """Let the skipped pairs come once more; how many there are. A pair keeps its skip until it is judged."""
        with self._lock:
            self._again = deque(pair for pair in self._order if self._is_skip(pair))
            self._move_on()
            return len(self._again)

    def order_of(self, pair: str, repeat: int = 0) -> Order:
        """Which column stands left, drawn by a hash: the same whenever this pair is shown to this annotator."""
        drawn = f"sides\x1f{self.pair_set.info.seed}\x1f{pair}\x1f{self.annotator}\x1f{repeat}"
        return "ba" if hashlib.sha256(drawn.encode()).digest()[0] & 1 else "ab"

    # Inside.

    def _shown(self, identity: str) -> ShownPair:
        pair, order = self._pairs[identity], self.order_of(identity)
        first, second = (pair.a, pair.b) if order == "ab" else (pair.b, pair.a)
        return ShownPair(identity, prompt_text(pair.prompt), text_of(first), text_of(second), order)

    def _require_present(self) -> str:
        if not self._present:
            raise UsageError("all pairs of this set are judged")
        return self._present

    def _last_judged(self) -> str:
        if not self._history:
            raise UsageError(f"no verdict of {self.annotator} stands on this set")
        return next(reversed(self._history))

    def _on_screen(self, judgment: Judgment) -> ScreenVerdict:
        order = judgment.order or self.order_of(judgment.pair)
        sides: dict[str, ScreenVerdict] = {order[0]: "left", order[1]: "right"}
        return sides.get(judgment.verdict, judgment.verdict)  # type: ignore[arg-type]

    def _is_skip(self, pair: str) -> bool:
        return pair in self._standing and self._standing[pair].verdict == "skip"

    def _first_open(self, start: int, besides: str = "") -> str:
        """The first pair from `start` on, in the order of the set, without a verdict; empty where there is none."""
        for place in range(start, len(self._order)):
            pair = self._order[place]
            if pair not in self._standing and pair != besides:
                return pair
        return ""

    def _move_on(self) -> None:
        self._comment = ""
        self._present = self._first_open(self._next_place)
        if self._present:
            # What lies before it is judged, and only `undo` opens it again, which begins from the front.
            self._next_place = self._order.index(self._present, self._next_place)
            return
        while self._again and not self._is_skip(self._again[0]):
            self._again.popleft()
        self._present = self._again[0] if self._again else ""

    def _note(self, pair: str, judgment: Judgment) -> None:
        before = self._standing.get(pair)
        if before is not None:
            self._tally[self._on_screen(before)] -= 1
        self._standing[pair] = judgment
        self._tally[self._on_screen(judgment)] += 1
        self._history.pop(pair, None)
        self._history[pair] = None

    def _written(self, pair: str, write: Callable[[Journal], T]) -> T:
        """What `write` returns when its line is on the disk, in a file that is still where it was.

        After any error the journal is opened anew for the next line, which reads what was saved.
        """
        self.pair_set.workspace.require_writable()
        if pair in self._foreign:
            self._drop_journal()  # its memory of what stands is older than the other program's lines
        try:
            journal = self._open()
            made = write(journal)
            if _state(journal.path)[0] != self._inode:
                raise WorkbenchError(f"{journal.path} was removed while it was open: the verdict was not saved")
        except (WorkbenchError, OSError) as error:
            self._drop_journal()
            self._unsure = pair
            if isinstance(error, WorkbenchError):
                raise
            raise WorkbenchError(f"the verdict was not saved ({error.strerror or error})") from error
        self._unsure = ""
        return made

    def _open(self) -> Journal:
        if self._journal is None:
            self._foreign.clear()  # first: what is written from here on is seen as new
            self._journal = self.pair_set.journal(self.annotator)
            self._inode = _state(self._journal.path)[0]
        return self._journal

    def _drop_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _mine(self) -> list[Path]:
        folder = self.pair_set.judgments_folder
        return sorted(path for path in folder.glob("*.jsonl") if annotator_of(path.name) == self.annotator)

    def _sizes_of_others(self) -> dict[str, tuple[int, int]]:
        """Inode and size of every journal under this name but the one that is open here."""
        held = self._journal.path.name if self._journal else ""
        return {path.name: _state(path) for path in self._mine() if path.name != held}

    def _look_at_others(self) -> None:
        """Read again where another program has written under this name; a few `stat` calls where none has."""
        now = self._sizes_of_others()
        changed = [name for name, state in now.items() if self._others.get(name) != state]
        if changed:
            for name in changed:
                journal = read_journal(self.pair_set.judgments_folder / name)
                self._foreign |= {line.pair for _, line in journal.lines}
            self._others = now
            self._read_mine()

    def _read_mine(self) -> None:
        """What stands under this name, from all journals of this name; where two programs disagree, nothing does."""
        journals = [read_journal(path) for path in self._mine()]
        said = fold(journals)
        self._standing = {
            showing.pair: judgment
            for showing, judgment in said.current.items()
            if showing.pair in self._pairs and showing.repeat == 0 and showing.criterion == "overall"
        }
        self._tally = Counter(map(self._on_screen, self._standing.values()))
        # Newest last. The clock only tells which sitting was the later one; what holds is never asked of it.
        journals.sort(key=lambda journal: journal.lines[-1][1].time if journal.lines else "")
        lines = [line.pair for journal in journals for _, line in journal.lines if line.pair in self._standing]
        mine = [pair for pair in self._history if pair in self._standing]
        self._history = dict.fromkeys(reversed(dict.fromkeys(reversed([*lines, *mine]))))
        self._next_place = 0


def open_sitting(workspace: Workspace, subject: str, who: str, progress: Progress | None = None) -> Sitting | None:
    """A sitting on "NAME" or "arena/NAME"; with no subject on what is open; None where there is nothing to label."""
    subject = subject or open_subject(workspace, who)
    if not subject:
        return None
    sitting = Sitting(pair_set_of(workspace, subject), who, progress)
    with suppress(WorkbenchError, OSError):  # told by the first verdict, which tries again
        sitting.open_journal()
    return sitting


def _column(verdict: ScreenVerdict, order: Order) -> Verdict:
    """The verdict as the journal keeps it: by column, whatever stood where."""
    if verdict == "left":
        return "a" if order == "ab" else "b"
    if verdict == "right":
        return "b" if order == "ab" else "a"
    return verdict


def _repeated(journal: Journal, judgment: Judgment) -> Judgment:
    """The same verdict as a new line of its showing."""
    fresh = journal.prepare(judgment.pair, "skip", origin="screen")
    return journal.append_many([judgment._replace(id=fresh.id, seq=0, supersedes=None, time=fresh.time)])[-1]


def _state(path: Path) -> tuple[int, int]:
    """(inode, size); zeros where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size
