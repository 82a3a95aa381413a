"""Which words two texts do not have in common, in order.

Owns the alignment of words: a longest common subsequence, exactly, by bits (Hyyrö 2004, "Bit-parallel LCS-length
computation revisited"): a row of the table is one integer, so 2,000 words against 2,000 cost a few milliseconds where
difflib needs seconds. Refuses to know how a difference is drawn.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MOST_WORDS = 6000
"""Of a text; what comes after them is not compared."""
_WORD = re.compile(r"\w+|[^\w\s]+")
Range = tuple[int, int]


class WordDiff(NamedTuple):
    """Where two texts differ: ranges of characters, in order, of what only one of them has."""

    left: tuple[Range, ...]
    right: tuple[Range, ...]
    left_words: int
    """How many words only the left one has; signs are not counted."""
    right_words: int
    whole: bool
    """Whether all words were compared."""


def diff_words(left: str, right: str) -> WordDiff:
    """The words of each text that are in no longest common subsequence; neighbours are one range."""
    mine, theirs = list(_WORD.finditer(left, 0)), list(_WORD.finditer(right, 0))
    whole = len(mine) <= MOST_WORDS and len(theirs) <= MOST_WORDS
    mine, theirs = mine[:MOST_WORDS], theirs[:MOST_WORDS]
    kept_left, kept_right = common([found[0] for found in mine], [found[0] for found in theirs])
    only_left = [found for place, found in enumerate(mine) if place not in kept_left]
    only_right = [found for place, found in enumerate(theirs) if place not in kept_right]
    return WordDiff(_joined(only_left, left), _joined(only_right, right), _count(only_left), _count(only_right), whole)


def common(left: list[str], right: list[str]) -> tuple[set[int], set[int]]:
    """The places of a longest common subsequence in each list."""
    begin, least = 0, min(len(left), len(right))
    while begin < least and left[begin] == right[begin]:
        begin += 1
    end = 0
    while end < least - begin and left[-1 - end] == right[-1 - end]:
        end += 1
    kept_left = {*range(begin), *range(len(left) - end, len(left))}
    kept_right = {*range(begin), *range(len(right) - end, len(right))}
    for one, two in _aligned(left[begin : len(left) - end], right[begin : len(right) - end]):
        kept_left.add(begin + one)
        kept_right.add(begin + two)
    return kept_left, kept_right


def _aligned(left: list[str], right: list[str]) -> list[tuple[int, int]]:
    """Pairs of places, from the last to the first."""
    if not left or not right:
        return []
    places: dict[str, int] = {}
    for place, word in enumerate(left):
        places[word] = places.get(word, 0) | (1 << place)
    all_of_them = (1 << len(left)) - 1
    row, rows = all_of_them, []
    for word in right:  # a zero bit: the subsequence grows at this word of `left`
        grown = row & places.get(word, 0)
        row = ((row + grown) | (row - grown)) & all_of_them
        rows.append(row)
    found: list[tuple[int, int]] = []
    column, line = len(left), len(right)
    while line and column:
        bit = 1 << (column - 1)
        if rows[line - 1] & bit:
            column -= 1
            continue
        line -= 1
        if line == 0 or rows[line - 1] & bit:
            column -= 1
            found.append((column, line))
    return found


def _count(words: list[re.Match[str]]) -> int:
    return sum(found[0][0].isalnum() or found[0][0] == "_" for found in words)


def _joined(words: list[re.Match[str]], text: str) -> tuple[Range, ...]:
    joined: list[Range] = []
    for begin, end in (found.span() for found in words):
        if joined and not text[joined[-1][1] : begin].strip():
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return tuple(joined)
