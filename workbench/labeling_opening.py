"""Opening a sitting by the name of what is labeled.

Owns which set it is where none was named, and which disagreement comes first where one was.
"""

from __future__ import annotations

from contextlib import suppress

from workbench.errors import UsageError, WorkbenchError
from workbench.labeling import Sitting
from workbench.labeling_subject import ADJUDICATE, first_pair_of, open_subject, pair_set_of
from workbench.steps import Progress
from workbench.workspace import Workspace


def open_sitting(workspace: Workspace, subject: str, who: str, progress: Progress | None = None) -> Sitting | None:
    """A sitting on "NAME", "arena/NAME" or an adjudication of them; without a subject on what is open.

    None where there is nothing to label.
    """
    subject = subject or open_subject(workspace, who)
    if not subject:
        return None
    pair_set, asked = pair_set_of(workspace, subject), subject.startswith(ADJUDICATE)
    sitting = Sitting(pair_set, who, progress, adjudicates=asked)
    with suppress(WorkbenchError, OSError):  # told by the first verdict, which tries again
        sitting.open_journal()
    if first := first_pair_of(subject):
        sitting.missed = _begin_with(sitting, first)
    return sitting


def _begin_with(sitting: Sitting, pair: str) -> str:
    """Show a pair first; why that could not be, or the empty string."""
    place = sitting.place_of(pair)
    if not place:
        return "that disagreement is settled, or your own; this is the next"
    try:
        sitting.go_to(place)
    except UsageError:
        return "that disagreement is before another person now; this is the next"
    return ""
