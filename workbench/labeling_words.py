"""What the label screen says of a sitting: one line of progress, and the page when all pairs are judged.

Owns the words. Invariant: no model is named before every pair of the sitting is judged.
"""

from __future__ import annotations

from workbench.comparison import models_of, report
from workbench.errors import WorkbenchError
from workbench.labeling import Sitting
from workbench.labeling_state import WORDS, Counts, ScreenVerdict
from workbench.terminal_output import counted, time_left

Page = list[tuple[str, str]]
"""(text, style) of each paragraph; styles are those of a text view."""


def progress_words(name: str, annotator: str, counts: Counts) -> str:
    """name · annotator · 213 of 600 · 9h 20m left · 41/h · blind: what is cut first stands last, and elsewhere, too."""
    at = min(counts.done + 1, counts.total)
    skipped = f", {counts.skipped:,} of them skipped" if counts.skipped else ""
    far = f"{at:,} of {counts.total:,}" if counts.left else f"all {counts.total:,} judged{skipped}"
    parts = [name, annotator, far]
    if counts.per_hour and counts.left:
        parts += [time_left(3600 * counts.hours_left), f"{counts.per_hour:,.0f}/h"]
    return " · ".join([*parts, "blind"])


def end_page(sitting: Sitting) -> Page:
    """The counts, and what comes next."""
    counts = sitting.counts
    page: Page = [
        (f"All {counted(counts.total, 'pair')} of {sitting.name} are judged by {sitting.annotator}.", "title")
    ]
    page.append(("", "plain"))
    page += [(f"{counts.by_verdict.get(v, 0):>7,}  {words}", "plain") for v, words in WORDS.items() if _told(counts, v)]
    page.append(("", "plain"))
    if counts.skipped:
        page.append((f"a  shows again what was skipped ({counted(counts.skipped, 'pair')})", "accent"))
    if sitting.pair_set.kind == "arena":
        # Whose answers they are stays hidden while a pair can still come again.
        return page if counts.skipped else page + _arena(sitting)
    page.append(("f  freezes the verdicts into a preference set, to train on", "accent"))
    return [*page, ("u  takes the last verdict back", "faint")]


def _told(counts: Counts, verdict: ScreenVerdict) -> bool:
    return verdict in ("left", "right", "tie") or bool(counts.by_verdict.get(verdict))


def _arena(sitting: Sitting) -> Page:
    from workbench.arena_list import verdict_words

    try:
        first, second = models_of(sitting.pair_set)
        said = verdict_words(report(sitting.pair_set))
    except WorkbenchError as error:
        return [(str(error), "bad"), ("u  takes the last verdict back", "faint")]
    return [
        (f"{first} against {second}", "title"),
        (said, "plain"),
        ("", "plain"),
        ("r  goes to the arenas", "accent"),
        ("u  takes the last verdict back", "faint"),
    ]
