"""One row to read: a conversation with its roles, two answers with what differs, its tokens, or every field.

Owns how a row is laid out at a width. Two answers stand side by side where each gets ANSWER_CELLS, else below each
other. Markdown is styled and never rendered: every character stays, so a style or a difference moves nothing. What
passes is made safe by `styled` and `wrap`, so a text of any length or content is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from screens.text_view import TextView
from workbench.answer_lines import StyledText, pieces_of, styled
from workbench.dataset_window_subject import RowReading, Turn
from workbench.text_wrapping import cut, fit, wrap
from workbench.word_diff import WordDiff, diff_words

ANSWER_CELLS = 30
INDENT = 2
_BETWEEN = " │ "
Lines = list[tuple[str, str]]
Pieces = list[tuple[str, str]]
"""One line: (text, names of styles) in order."""
_MARKDOWN = ("heading", "code", "quote", "strong", "emphasis", "changed")


class RowView(TextView):
    """A row that can be scrolled."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"row-view--{name}" for name in _MARKDOWN}
    DEFAULT_CSS = """
    RowView > .row-view--heading { text-style: bold; }
    RowView > .row-view--strong { text-style: bold; }
    RowView > .row-view--emphasis { text-style: italic; }
    RowView > .row-view--code { color: $accent; }
    RowView > .row-view--quote { color: $text-muted; }
    RowView > .row-view--changed { text-style: underline; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title = ""
        self._reading: RowReading | None = None
        self._raw = ""
        self._made: Callable[[int], Lines] | None = None
        self.marks = True
        """Whether the words that only one of two answers has are marked."""
        self._pieces: list[Pieces] = []

    def show_row(self, title: str, reading: RowReading, raw: str = "") -> None:
        """Show a row; with `raw` that text in its place. The view stays where it was if it is the same row."""
        if (title, reading, raw, None) == (self._title, self._reading, self._raw, self._made):
            return
        self._show(title, reading, raw, None)

    def show_lines(self, title: str, made: Callable[[int], Lines]) -> None:
        """Show what `made` makes for a width, such as a row's tokens."""
        self._show(title, RowReading(), "", made)

    def mark_differences(self, marks: bool) -> None:
        """Mark the words that only one of two answers has, or not."""
        self.marks = marks
        self._lay_out()

    def _show(self, title: str, reading: RowReading, raw: str, made: Callable[[int], Lines] | None) -> None:
        same = title == self._title
        self._title, self._reading, self._raw, self._made = title, reading, raw, made
        self._lay_out()
        if not same:
            self.scroll_to(y=0, animate=False, immediate=True)

    def _lay_out(self) -> None:
        if self._reading is None:
            return
        width = self._width = self.scrollable_content_region.width
        if width <= 0:
            return
        title: Pieces = [(cut(self._title, width), "faint")]
        if self._made is not None:
            lines = [[line] for line in self._made(width)]
        else:
            lines = pieces_of_row(self._reading, self._raw, width, marks=self.marks)
        self._pieces = [title, *lines]
        # A line is drawn again where its text or a style in it has changed.
        self._put([("".join(text for text, _ in line), repr(line)) for line in self._pieces])

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        place = y + self.scroll_offset.y
        if not 0 <= place < len(self._pieces):
            return Strip.blank(width, self.rich_style)
        segments = [Segment(text, self._named(names)) for text, names in self._pieces[place] if text]
        rest = width - sum(cell_len(segment.text) for segment in segments)
        if rest > 0:
            segments.append(Segment(" " * rest, self.rich_style))
        return Strip(segments).adjust_cell_length(width, self.rich_style).simplify()

    def _named(self, names: str) -> Style:
        style = self.rich_style
        for name in names.split():
            if name in _MARKDOWN:
                style += self.get_component_rich_style(f"row-view--{name}", partial=True)
            elif name != "plain":
                style += self.get_component_rich_style(f"text-view--{name}", partial=True)
        return style


def laid_out(reading: RowReading, raw: str, width: int) -> Lines:
    """(line, style) of a row, for a view that has one style a line."""
    lines = pieces_of_row(reading, raw, width, marks=False)
    return [
        ("".join(text for text, _ in line), line[0][1] if len(line) == 1 and line[0][1] not in _MARKDOWN else "plain")
        for line in lines
    ]


def pieces_of_row(reading: RowReading, raw: str, width: int, *, marks: bool) -> list[Pieces]:
    """The lines of a row; `marks` says whether the words that only one answer has are marked."""
    if raw:
        return [[(line, "plain")] for line in wrap(raw, width)]
    lines: list[Pieces] = []
    if reading.reason:
        lines += [[(line, "bad")] for line in wrap("✗ " + reading.reason, width)] + [_EMPTY]
    for turn in reading.turns:
        lines += _turn(turn, width)
    if reading.answers:
        room = (width - len(_BETWEEN)) // 2
        in_columns = room >= ANSWER_CELLS
        lines += _answers(reading, room if in_columns else width, in_columns=in_columns, marks=marks)
    for name, text in reading.fields:
        lines += _field(name, text, width)
    return lines


_EMPTY: Pieces = [("", "plain")]


def _turn(turn: Turn, width: int) -> list[Pieces]:
    role: list[Pieces] = [[(cut(turn.role, width), "title")]] if turn.role else []
    text = styled(turn.text, width - INDENT)
    body = [[(" " * INDENT, ""), *pieces_of(text, place)] for place in range(len(text.lines))]
    return [*role, *body, _EMPTY]


def _field(name: str, text: str, width: int) -> list[Pieces]:
    """A short one on one line, a long one below its name."""
    title = cut(name, width)
    body = wrap(text, width - INDENT)
    if len(body) == 1 and len(name) + 2 + len(body[0]) <= width:
        return [[(f"{title}: {body[0]}", "plain")]]
    return [[(title, "accent")], *([(" " * INDENT + line, "plain")] for line in body)]


def _answer_text(turns: tuple[Turn, ...]) -> str:
    """The text of an answer; roles are said where there is more than one turn."""
    return "\n".join(f"[{turn.role}]\n{turn.text}" if len(turns) > 1 else turn.text for turn in turns)


def _answers(reading: RowReading, width: int, *, in_columns: bool, marks: bool) -> list[Pieces]:
    (first, left_turns), (second, right_turns) = reading.answers
    left, right = styled(_answer_text(left_turns), width), styled(_answer_text(right_turns), width)
    diff = diff_words(left.text, right.text) if marks else None
    lines: list[Pieces] = []
    if not in_columns:
        for name, text, side in ((first, left, diff and diff.left), (second, right, diff and diff.right)):
            lines += [[(_rule(name, width), "title")], *_lines_of(text, side)]
    else:
        lines.append([(_rule(first, width) + "─┬─" + _rule(second, width), "title")])
        both = zip_longest(_lines_of(left, diff and diff.left), _lines_of(right, diff and diff.right))
        for one, two in both:
            one = one or []
            gap = " " * (width - sum(cell_len(text) for text, _ in one))
            lines.append([*one, (gap + _BETWEEN, "plain"), *(two or [])])
    return [*lines, *_said_of(diff, width * 2 if in_columns else width), _EMPTY]


def _lines_of(text: StyledText, marked: tuple[tuple[int, int], ...] | None) -> list[Pieces]:
    return [pieces_of(text, place, marked or ()) for place in range(len(text.lines))]


def _said_of(diff: WordDiff | None, width: int) -> list[Pieces]:
    """How far two answers differ, in words, so that it is told without a style."""
    if diff is None:
        return []
    if not diff.left_words and not diff.right_words:
        words = "the same words"
    else:
        words = f"words that only one has, underlined: {diff.left_words:,} and {diff.right_words:,}"
    return [[(cut(words + ("" if diff.whole else " of the first 6,000"), width), "faint")]]


def _rule(name: str, width: int) -> str:
    return fit(f"── {name} " + "─" * width, width)
