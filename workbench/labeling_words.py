"""What the label screen says of a sitting: its lines, and the page when all pairs are judged.

Owns the words. Invariant: no model is named before every pair of the sitting is judged.
"""

from __future__ import annotations

from workbench.comparison import models_of, report
from workbench.errors import WorkbenchError
from workbench.labeling import Sitting
from workbench.labeling_list import said_words
from workbench.labeling_state import WORDS, Counts, ScreenVerdict
from workbench.terminal_output import counted, time_left

Page = list[tuple[str, str]]
"""(text, style) of each paragraph; styles are those of a text view."""


def state_words(sitting: Sitting) -> str:
    """name · annotator · blind, and what stands on the present pair: its number where it is looked at again, notes."""
    parts = [sitting.name, sitting.annotator]
    if sitting.revises:
        parts.append(f"pair {sitting.number:,}: {said_words(sitting, sitting.number)}")
    parts.append(sitting.notes.words())
    return " · ".join([part for part in parts if part] + ["blind"])


def question_words(sitting: Sitting) -> str:
    """1 of 3  helpful: Which answer helps more? Empty where a set asks one question without words of its own."""
    asked, all_of_them = sitting.question, sitting.pair_set.form.questions
    if sitting.present is None or not sitting.pair_set.form.criteria:
        return ""
    place = f"{all_of_them.index(asked) + 1} of {len(all_of_them)}  " if len(all_of_them) > 1 else ""
    return place + asked.name + (f": {asked.question}" if asked.question else "")


def far_words(counts: Counts) -> str:
    """213 of 600 · 41/h · 9h 20m left."""
    if not counts.left:
        skipped = f", {counts.skipped:,} of them skipped" if counts.skipped else ""
        return f"all {counts.total:,} judged{skipped}"
    parts = [f"{counts.done + 1:,} of {counts.total:,}"]
    if counts.per_hour:
        parts += [f"{counts.per_hour:,.0f}/h", time_left(3600 * counts.hours_left)]
    return " · ".join(parts)


def end_page(sitting: Sitting) -> Page:
    """The counts, and what comes next."""
    counts = sitting.counts
    page: Page = [(_end_title(sitting, counts), "title")]
    page.append(("", "plain"))
    page += [(f"{counts.by_verdict.get(v, 0):>7,}  {words}", "plain") for v, words in WORDS.items() if _told(counts, v)]
    page.append(("", "plain"))
    if counts.skipped:
        page.append((f"a  shows again what was skipped ({counted(counts.skipped, 'pair')})", "accent"))
    if sitting.pair_set.kind == "arena":
        # Whose answers they are stays hidden while a pair can still come again.
        return page if counts.skipped or counts.left else page + _arena(sitting)
    page.append(("f  freezes the verdicts into a preference set, to train on", "accent"))
    return [*page, ("u  takes the last verdict back", "faint")]


def _end_title(sitting: Sitting, counts: Counts) -> str:
    if sitting.notice and counts.left:
        return f"{sitting.notice}. Leave, and come back."
    if counts.left:
        rest = "pair is" if counts.left == 1 else "pairs are"
        return f"{counts.left:,} {rest} before other people now. What they leave open is yours: a looks again."
    asked = "disagreements" if sitting.adjudicates else "pairs"
    return f"All {counts.total:,} {asked} of {sitting.pair_set.name} are judged by {sitting.annotator}."


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
