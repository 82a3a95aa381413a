"""An answer as lines of a given width, with what Markdown says of it: headings, lists, code, emphasis.

Owns where lines break and which characters have which style. Every character of the text stays, the marks of Markdown
too: what is judged is the text. So a style moves nothing, and neither does a difference that is marked later: each line
knows which characters of the text it shows. Invariants: the text is safe; no line is wider than asked; patterns are
bounded, so that no text makes this slow. Refuses to know about colours.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from engine.run.safe_text import safe
from workbench.text_wrapping import EMOJI_STYLE, LONGEST, cells

LONGEST_STYLED = 4000
"""Characters of a paragraph in which emphasis is looked for."""
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_HEADING = re.compile(r" {0,3}#{1,6} ")
_ITEM = re.compile(r" {0,24}(?:[-*+•]|\d{1,3}[.)]) {1,4}")
_QUOTE = re.compile(r" {0,3}>")
_WORD = re.compile(r"\s*\S+\s*")
_INLINE = re.compile(
    r"(?P<code>(?P<tick>`{1,2})[^`\n]{1,300}(?P=tick))"
    r"|(?P<strong>\*\*[^*\s][^*\n]{0,300}\*\*|(?<!\w)__[^_\s][^_\n]{0,300}__(?!\w))"
    r"|(?P<emphasis>(?<![\w*])\*[^*\s][^*\n]{0,300}\*(?![\w*])|(?<![\w_])_[^_\s][^_\n]{0,300}_(?![\w_]))"
)


class Span(NamedTuple):
    """Characters of the text with a style: heading, code, quote, strong, emphasis."""

    begin: int
    end: int
    style: str


class TextLine(NamedTuple):
    """One line: so many blanks, then these characters of the text."""

    indent: int
    begin: int
    end: int


class StyledText(NamedTuple):
    """A text in lines, with its styles in order; spans do not overlap."""

    text: str
    """Safe; what lines and spans count in."""
    lines: tuple[TextLine, ...]
    spans: tuple[Span, ...]

    def line_text(self, place: int) -> str:
        """One line as it is read."""
        line = self.lines[place]
        return " " * line.indent + self.text[line.begin : line.end]


def styled(text: str, width: int, limit: int = LONGEST) -> StyledText:
    """`text` in lines of at most `width` cells; an empty text has one empty line."""
    width = max(1, width)
    whole = safe(text, limit, newlines=True)
    lines: list[TextLine] = []
    spans: list[Span] = []
    fence, begin = "", 0
    for paragraph in whole.split("\n"):
        end = begin + len(paragraph)
        mark = _FENCE.match(paragraph)
        if fence or mark:
            spans += [Span(begin, end, "code")] if end > begin else []
            lines += _pieces(whole, begin, end, width)
            if not fence and mark:
                fence = mark[1]
            elif mark and mark[1].startswith(fence) and not paragraph[mark.end() :].strip():
                fence = ""
        else:
            spans += _styles(paragraph, begin)
            item = _ITEM.match(paragraph)
            hanging = min(item.end(), width // 3) if item else 0
            lines += _wrapped(whole, begin, end, width, hanging)
        begin = end + 1
    return StyledText(whole, tuple(lines), tuple(spans))


def pieces_of(styled_text: StyledText, place: int, marks: Sequence[tuple[int, int]] = ()) -> list[tuple[str, str]]:
    """(text, style) of one line, in order; characters in `marks`, which are in order, have "changed" in their style."""
    line, text = styled_text.lines[place], styled_text.text
    near = list(_within(styled_text.spans, line))
    marked = list(_within(marks, line))
    edges = {line.begin, line.end}
    for begin, end in [*((span.begin, span.end) for span in near), *marked]:
        edges |= {max(line.begin, begin), min(line.end, end)}
    ordered = sorted(edges)
    pieces = [(" " * line.indent, "")] if line.indent else []
    for begin, end in pairwise(ordered):
        style = next((one.style for one in near if one.begin <= begin < one.end), "")
        changed = any(one[0] <= begin < one[1] for one in marked)
        pieces.append((text[begin:end], f"{style} changed".strip() if changed else style))
    return pieces


R = TypeVar("R", bound="tuple[Any, ...]")


def _within(ranges: Sequence[R], line: TextLine) -> Iterator[R]:
    """Those of ordered ranges that share a character with a line."""
    for place in range(bisect_right(ranges, line.begin, key=itemgetter(1)), len(ranges)):
        if ranges[place][0] >= line.end:
            return
        yield ranges[place]


def _styles(paragraph: str, begin: int) -> Iterator[Span]:
    if _HEADING.match(paragraph):
        yield Span(begin, begin + len(paragraph), "heading")
    elif _QUOTE.match(paragraph):
        yield Span(begin, begin + len(paragraph), "quote")
    else:
        for found in _INLINE.finditer(paragraph[:LONGEST_STYLED]):
            yield Span(begin + found.start(), begin + found.end(), found.lastgroup or "strong")


def _wrapped(text: str, begin: int, end: int, width: int, hanging: int) -> Iterator[TextLine]:
    """Lines of one paragraph, broken at blanks; those after the first are indented by `hanging`."""
    end = begin + len(text[begin:end].rstrip())
    if cells(text[begin:end]) <= width:
        yield TextLine(0, begin, end)
        return
    indent, start, used = 0, begin, 0
    for found in _WORD.finditer(text, begin, end):
        at, behind = found.span()
        body = at + len(found[0].rstrip())
        needed = cells(text[at:body])
        if used and used + needed > width - indent:
            yield TextLine(indent, start, start + len(text[start:at].rstrip()))
            indent, start, used = hanging, at, 0
        if needed > width - indent:
            *whole, rest = _pieces(text, at, body, width - indent, indent)
            yield from whole
            start, used = rest.begin, cells(text[rest.begin : behind])
        else:
            used += cells(text[at:behind])
    if start < end:
        yield TextLine(indent, start, end)


def _pieces(text: str, begin: int, end: int, width: int, indent: int = 0) -> list[TextLine]:
    """`text` cut where the line is full, wherever that is; each piece has a character at least."""
    part = text[begin:end]
    if part.isascii():
        starts = range(begin, max(end, begin + 1), width)
        return [TextLine(indent, start, min(end, start + width)) for start in starts]
    made: list[TextLine] = []
    start, used = begin, 0
    for place, letter in enumerate(part, start=begin):
        wide = 1 if letter == EMOJI_STYLE else cells(letter)
        if used + wide > width and place > start:
            made.append(TextLine(indent, start, place))
            start, used = place, 0
        used += wide
    return [*made, TextLine(indent, start, end)]
