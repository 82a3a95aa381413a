"""A prompt and two answers as rows of a given width: where each part stands, and what is seen where it is scrolled to.

Owns the layout (prompt on top, answers side by side, below each other where it is narrow), the words that only one
answer has, the marks where a text goes on, and which cells of two rows differ. A prompt that is too long shows its end,
which is what the answers answer. Invariants: every text is safe and wrapped before; marking a difference moves nothing;
all of it are functions of their arguments, for any thread. Refuses to know about colours and widgets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from rich.cells import cell_len

from workbench.answer_lines import StyledText, pieces_of, styled
from workbench.text_wrapping import cells, cut, fit, wrap
from workbench.word_diff import WordDiff, diff_words

LEAST_FOR_COLUMNS = 72
"""Cells; where the view is narrower the answers stand below each other."""
PROMPT_SHARE = 3
"""The prompt has at most one line in so many, and what the answers leave."""
LAST_TURN = "\n\nuser: "
"""Begins the last turn of a conversation, which the answers are to: it is strong, what came before it is not."""
EMPTY = "(empty)"
GAP = " │ "
EDGE = (" ", "")
SIDES = ("left", "right")
_MAYBE_WIDE = re.compile(r"[^\x00-\x7f│─┬┴▼▲·]")
"""What may not be one cell; the signs of our own are."""


class PairTexts(NamedTuple):
    """What is shown of a pair; nothing in it says where an answer comes from."""

    prompt: str
    left: str
    right: str


class Row(NamedTuple):
    """One line of the view in pieces: a text, and "" for text, "prompt", "rule" or a style of `answer_lines`."""

    pieces: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """Without styles."""
        return "".join(text for text, _ in self.pieces)


@dataclass(frozen=True)
class PairLayout:
    """The wrapped lines of one pair at one size, and how much room each part has."""

    width: int
    in_columns: bool
    prompt: list[str]
    left: StyledText
    right: StyledText
    prompt_room: int
    left_room: int
    right_room: int
    last_turn: int = 0
    """The line of the prompt with which its last turn begins."""

    @property
    def last_top(self) -> int:
        """The furthest that the answers scroll."""
        return max(0, len(self.left.lines) - self.left_room, len(self.right.lines) - self.right_room)

    @property
    def last_prompt_top(self) -> int:
        """The furthest that the prompt scrolls."""
        return max(0, len(self.prompt) - self.prompt_room)

    @cached_property
    def diff(self) -> WordDiff:
        """The words that only one of the answers has; some milliseconds, for any thread."""
        return diff_words(self.left.text, self.right.text)

    def rows(self, top: int, prompt_top: int, *, marks: bool = False) -> list[Row]:
        """What is seen where the answers are scrolled to `top` and the prompt to `prompt_top`."""
        diff = self.diff if marks else None
        shown = _part(self.prompt, prompt_top, self.prompt_room)
        seen = [
            _row(self.width, (f" {line}", "prompt" if place >= self.last_turn else ""))
            for place, line in enumerate(shown, start=prompt_top)
        ]
        left, below_left = _answer(self.left, top, self.left_room, diff.left if diff else ())
        right, below_right = _answer(self.right, top, self.right_room, diff.right if diff else ())
        names = (_name("left", diff, diff.left_words), _name("right", diff, diff.right_words)) if diff else SIDES
        prompt_mark = self._prompt_mark(prompt_top)
        if not self.in_columns:
            seen.append(_row(self.width, (_rule(names[0], self.width, prompt_mark), "rule")))
            seen += [_row(self.width, EDGE, *line) for line in left]
            seen.append(_row(self.width, (_rule(names[1], self.width, below_left), "rule")))
            seen += [_row(self.width, EDGE, *line) for line in right]
            return [*seen, _row(self.width, (_rule("", self.width, below_right), "rule"))]
        each, other = _column_widths(self.width)
        across = _rule(names[0], each + 2, prompt_mark) + "┬" + _rule(names[1], other + 1)
        seen.append(_row(self.width, (across, "rule")))
        both = zip(left, right, strict=True)
        seen += [_row(self.width, EDGE, *_padded(one, each), (GAP, ""), *two) for one, two in both]
        ends = _rule("", each + 2, below_left) + "┴" + _rule("", other + 1, below_right)
        return [*seen, _row(self.width, (ends, "rule"))]

    def _prompt_mark(self, top: int) -> str:
        if not self.last_prompt_top:
            return ""
        return f"▲ {top} above, p" if top else f"▼ {self.last_prompt_top} below, p"


def lay_out(texts: PairTexts, width: int, height: int) -> PairLayout:
    """The layout of a pair; a function of its arguments alone, for any thread."""
    in_columns = width >= LEAST_FOR_COLUMNS
    each, other = _column_widths(width) if in_columns else (width - 2, width - 2)
    prompt = wrap(texts.prompt or EMPTY, width - 2)
    before, turn, _ = texts.prompt.rpartition(LAST_TURN)
    last_turn = len(wrap(before, width - 2)) + 1 if turn else 0
    left, right = styled(texts.left or EMPTY, each), styled(texts.right or EMPTY, other)
    frame = 2 if in_columns else 3
    needed = max(len(left.lines), len(right.lines)) if in_columns else len(left.lines) + len(right.lines)
    prompt_room = max(1, min(len(prompt), max(height // PROMPT_SHARE, height - frame - needed)))
    room = max(2, height - prompt_room - frame)
    if in_columns:
        return PairLayout(width, True, prompt, left, right, prompt_room, room, room, last_turn)
    # An answer that needs less than its half leaves the rest to the other.
    first = max(1, min(len(left.lines), max(room // 2, room - len(right.lines))))
    return PairLayout(width, False, prompt, left, right, prompt_room, first, room - first, last_turn)


def changed_cells(was: Row, now: Row, width: int) -> tuple[int, int]:
    """The first cell that differs and the one behind the last; a line with signs that may be wide differs whole."""
    before, after = was.text, now.text
    if _MAYBE_WIDE.search(before) or _MAYBE_WIDE.search(after):
        return 0, width
    first = _alike(zip(was.pieces, now.pieces, strict=False), 1)
    last = max(len(before), len(after))
    if len(before) == len(after):
        last -= _alike(zip(reversed(was.pieces), reversed(now.pieces), strict=False), -1)
    return min(first, width - 1), min(max(last, first + 1), width)


def _alike(couples: Iterable[tuple[tuple[str, str], tuple[str, str]]], step: int) -> int:
    """How many cells are the same, in text and style, from the beginning on, or with -1 from the end."""
    same = 0
    for (text, style), (other, its_style) in couples:
        if style != its_style:
            break
        if text == other:
            same += len(text)
            continue
        letters = zip(text[::step], other[::step], strict=False)
        return same + next((n for n, (a, b) in enumerate(letters) if a != b), min(len(text), len(other)))
    return same


def _column_widths(width: int) -> tuple[int, int]:
    """Cells of the left and the right answer: one blank at the edge, " │ " between them."""
    room = width - 1 - len(GAP)
    return (room + 1) // 2, room // 2


def _part(lines: list[str], top: int, room: int) -> list[str]:
    seen = lines[top : top + room]
    return seen + [""] * (room - len(seen))


def _answer(
    answer: StyledText, top: int, room: int, marks: Sequence[tuple[int, int]]
) -> tuple[list[list[tuple[str, str]]], str]:
    """The lines of an answer from `top`, or from where its end is seen, in pieces; and what the rule below says."""
    count = len(answer.lines)
    begin = max(0, min(top, count - room))
    seen = [pieces_of(answer, place, marks) for place in range(begin, min(count, begin + room))]
    return seen + [[("", "")] for _ in range(room - len(seen))], _mark(count - room - begin, begin)


def _row(width: int, *pieces: tuple[str, str]) -> Row:
    """A line of exactly `width` cells; neighbours of one style are one piece."""
    joined: list[tuple[str, str]] = []
    for text, style in _padded(pieces, width):
        if joined and joined[-1][1] == style:
            joined[-1] = (joined[-1][0] + text, style)
        elif text:
            joined.append((text, style))
    return Row(tuple(joined))


def _padded(pieces: Sequence[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """Pieces and blanks, together `width` cells at least."""
    return [*pieces, (" " * max(0, width - sum(cells(text) for text, _ in pieces)), "")]


def _name(side: str, diff: WordDiff, own: int) -> str:
    """What the rule above an answer says of the difference."""
    if not own:
        return f"{side} · nothing of its own"
    return f"{side} · {own:,} {'word' if own == 1 else 'words'} of its own" + ("" if diff.whole else ", of the first")


def _mark(below: int, above: int) -> str:
    """▼ 12 more lines, where an answer goes on; ▲ where all of it above was scrolled away."""
    if below > 0:
        return f"▼ {below} more {'line' if below == 1 else 'lines'}"
    return f"▲ {above} above, the end" if above > 0 else ""


def _rule(name: str, width: int, mark: str = "") -> str:
    """A line across with a name in its middle and a mark at its end: ───── left ───── ▼ 3 more lines ─."""
    told = f" {cut(mark, max(0, width - len(name) - 8))} ─" if mark else ""
    named = f" {name} " if name else ""
    room = max(0, width - cell_len(told) - len(named))
    before = min(room, max(0, (width - len(named)) // 2))
    return fit("─" * before + named + "─" * (room - before) + told, width)
