"""What a sitting did, so that it can be undone and done again without limit.

Owns the two stacks. A deed is what stood before and after on one showing or several; undoing it writes what stood
before as new lines, doing it again what stood after: nothing is ever removed from a journal. Invariant: whatever is
done anew empties what could be done again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from workbench.judgment_lines import Judgment
from workbench.judgments import Journal, Showing


class Change(NamedTuple):
    """What one deed changed on one showing; None where nothing stood."""

    showing: Showing
    before: Judgment | None
    after: Judgment | None

    @property
    def reversed(self) -> Change:
        """The change that takes this one back."""
        return Change(self.showing, self.after, self.before)


Deed = tuple[Change, ...]


@dataclass
class History:
    """The deeds of one sitting."""

    done: list[Deed] = field(default_factory=list)
    undone: list[Deed] = field(default_factory=list)

    def add(self, deed: Deed) -> None:
        """Something was done."""
        self.done.append(deed)
        self.undone.clear()

    def clear(self) -> None:
        """Another program has written under this name: what was done here may stand no more."""
        self.done.clear()
        self.undone.clear()


def line_of(journal: Journal, change: Change) -> Judgment:
    """The line that makes `after` stand on a showing: what was said there, said again, or "undone"."""
    showing = change.showing
    fresh = journal.prepare(showing.pair, "skip", origin="screen", repeat=showing.repeat, criterion=showing.criterion)
    if change.after is None:
        purpose = change.before.purpose if change.before else fresh.purpose
        return fresh._replace(verdict="undone", purpose=purpose)
    return change.after._replace(id=fresh.id, seq=0, supersedes=None, time=fresh.time, origin="screen")
