"""One completion as lines with marks: words that another step's has not, or tokens by their log-ratio to the reference.

Owns what is marked and how strongly. Invariants: every character of the completion stays and is safe; a mark is said by
a sign below the text as well as by a style, so that nothing is lost without colour; a token that is not to be placed in
the text has no mark. Log-ratios are log p_policy - log p_reference in nats: + where the policy says the token more
willingly than the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from engine.run.safe_text import safe
from workbench.answer_lines import pieces_of, styled
from workbench.run_samples import Sample
from workbench.text_wrapping import cells
from workbench.word_diff import diff_words

SMALL, LARGE = 0.1, 1.0
"""Nats of a token's log-ratio from which it is marked, and marked strongly."""
Piece = tuple[str, str]
"""A text, and its style: empty, faint, title, changed, up, down, up-much or down-much."""
Line = list[Piece]
_SIGNS = {"up": "+", "down": "-", "up-much": "#", "down-much": "="}
SIGNS_TOLD = "+ above 0.1 nats, # above 1, - below -0.1, = below -1"


def beside(sample: Sample, others: Sequence[Sample]) -> Sample | None:
    """The answer to the same prompt among others; None where there is none."""
    return next((other for other in others if other.key == sample.key), None)


def plain_lines(text: str, width: int, style: str = "") -> list[Line]:
    """A text in lines, all in one style."""
    found = styled(text, width)
    return [[(found.line_text(place), style)] for place in range(len(found.lines))]


def diff_lines(sample: Sample, other: Sample, width: int) -> tuple[list[Line], list[Line], str]:
    """Both completions with the words marked that only one of them has, and how many these are, in words."""
    mine, theirs = styled(sample.completion, width), styled(other.completion, width)
    diff = diff_words(theirs.text, mine.text)
    sides = [
        [[(text, "changed" if "changed" in style else "") for text, style in pieces_of(side, place, marks)]
         for place in range(len(side.lines))]
        for side, marks in ((mine, diff.right), (theirs, diff.left))
    ]  # fmt: skip
    words = "the same words" if not diff.left and not diff.right else (
        f"words new: {diff.right_words:,}, gone: {diff.left_words:,}"
    )  # fmt: skip
    return sides[0], sides[1], words


def token_lines(sample: Sample, width: int) -> list[Line]:
    """The completion with each token marked by its log-ratio, and below each line a line of signs."""
    text, marks = "", []
    for begin, end, ratio in tokens_of(sample):
        shown = safe(sample.completion[begin:end], newlines=True)
        if style := style_of(ratio):
            marks.append((len(text), len(text) + len(shown), style))
        text += shown
    found = styled(text + safe(sample.completion[sample.ends[-1] if sample.ends else 0 :], newlines=True), width)
    lines: list[Line] = []
    for place in range(len(found.lines)):
        pieces = list(_marked(found.text, *found.lines[place][1:], marks))
        lines.append([(" " * found.lines[place].indent, ""), *pieces])
        signs = "".join((_SIGNS.get(style, " ") if style else " ") * cells(text) for text, style in pieces)
        lines.append([(" " * found.lines[place].indent + signs.rstrip(), "faint")])
    return lines


def tokens_of(sample: Sample) -> Iterator[tuple[int, int, float]]:
    """(begin, end, log-ratio) of each token in the completion, without those that take no place."""
    for (begin, end), ratio in zip(pairwise((0, *sample.ends)), sample.ratios, strict=False):
        if end > begin:
            yield begin, end, ratio


def style_of(ratio: float) -> str:
    """How a token is marked: up or down, much from LARGE on; empty below SMALL."""
    if not abs(ratio) >= SMALL:  # also what is no number
        return ""
    return ("up" if ratio > 0 else "down") + ("-much" if abs(ratio) >= LARGE else "")


def _marked(text: str, begin: int, end: int, marks: Sequence[tuple[int, int, str]]) -> Iterator[Piece]:
    """The characters from begin to end in pieces of one style."""
    at = begin
    for first, last, style in marks:
        if last <= at or first >= end:
            continue
        if first > at:
            yield text[at:first], ""
        yield text[max(first, at) : min(last, end)], style
        at = min(last, end)
    if at < end:
        yield text[at:end], ""
