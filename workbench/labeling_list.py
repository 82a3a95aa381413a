"""The pairs of a sitting as a list shows them: what was said of each, and what was added.

Owns the words of that list. Invariant: nothing in it says where an answer comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.label_form import OVERALL
from workbench.label_notes import notes_of
from workbench.labeling import Sitting

LONGEST_PROMPT = 160


@dataclass(frozen=True)
class ListedPair:
    """One pair, and what this annotator said of it."""

    number: int
    """Its place in the set, from 1."""
    said: str
    """The verdict, or one for each criterion; empty where there is none."""
    notes: str
    prompt: str
    """The first characters, one line."""


def listed_pairs(sitting: Sitting) -> list[ListedPair]:
    """All pairs in the order of the set."""
    drafted = sitting.drafted()
    return [_one(sitting, number, number in drafted) for number in range(1, sitting.counts.total + 1)]


def said_words(sitting: Sitting, number: int) -> str:
    """left better; with criteria: helpful left better, honest tie; empty where nothing was said."""
    standing = sitting.standing_at(number).items()
    words = {name: sitting.on_screen(one).words for name, one in standing}
    return ", ".join(said if name == OVERALL else f"{name} {said}" for name, said in words.items())


def _one(sitting: Sitting, number: int, drafted: bool) -> ListedPair:
    notes = {notes_of(one).words(): None for one in sitting.standing_at(number).values()}
    told = [words for words in notes if words] + (["a draft"] if drafted else [])
    prompt = " ".join(sitting.prompt_at(number)[: 4 * LONGEST_PROMPT].split())[:LONGEST_PROMPT]
    return ListedPair(number, said_words(sitting, number), " · ".join(told), prompt)
