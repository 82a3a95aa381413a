"""One row to read: a conversation with its roles, two answers side by side, or every field with its text.

Owns how a row is laid out at a width. Two answers stand side by side where each gets ANSWER_CELLS, else below each
other. Everything passes `wrap`, so a text of any length or content is safe and bounded.
"""

from __future__ import annotations

from itertools import zip_longest

from screens.text_view import TextView
from workbench.dataset_window_subject import RowReading, Turn
from workbench.text_wrapping import cut, fit, wrap

ANSWER_CELLS = 30
INDENT = 2
_BETWEEN = " │ "
Lines = list[tuple[str, str]]


class RowView(TextView):
    """A row that can be scrolled."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title = ""
        self._reading: RowReading | None = None
        self._raw = ""

    def show_row(self, title: str, reading: RowReading, raw: str = "") -> None:
        """Show a row; with `raw` that text in its place. The view stays where it was if it is the same row."""
        if (title, reading, raw) == (self._title, self._reading, self._raw):
            return
        same = title == self._title
        self._title, self._reading, self._raw = title, reading, raw
        self._lay_out()
        if not same:
            self.scroll_to(y=0, animate=False, immediate=True)

    def _lay_out(self) -> None:
        if self._reading is None:
            return
        width = self._width = self.scrollable_content_region.width
        if width <= 0:
            return
        self._put([(cut(self._title, width), "faint"), *laid_out(self._reading, self._raw, width)])


def laid_out(reading: RowReading, raw: str, width: int) -> Lines:
    """(line, style) of a row."""
    if raw:
        return [(line, "plain") for line in wrap(raw, width)]
    lines: Lines = []
    if reading.reason:
        lines += [(line, "bad") for line in wrap("✗ " + reading.reason, width)] + [("", "plain")]
    for turn in reading.turns:
        lines += _turn(turn, width)
    if reading.answers:
        room = (width - len(_BETWEEN)) // 2
        lines += _side_by_side(reading, room) if room >= ANSWER_CELLS else _below_each_other(reading, width)
    for name, text in reading.fields:
        lines += _field(name, text, width)
    return lines


def _turn(turn: Turn, width: int) -> Lines:
    role = [(cut(turn.role, width), "title")] if turn.role else []
    text = wrap(turn.text, width - INDENT)
    return [*role, *((" " * INDENT + line, "plain") for line in text), ("", "plain")]


def _field(name: str, text: str, width: int) -> Lines:
    """A short one on one line, a long one below its name."""
    title = cut(name, width)
    body = wrap(text, width - INDENT)
    if len(body) == 1 and len(name) + 2 + len(body[0]) <= width:
        return [(f"{title}: {body[0]}", "plain")]
    return [(title, "accent"), *((" " * INDENT + line, "plain") for line in body)]


def _answer_lines(turns: tuple[Turn, ...], width: int) -> list[str]:
    """The text of an answer; roles are said where there is more than one turn."""
    lines: list[str] = []
    for turn in turns:
        if len(turns) > 1:
            lines.append(cut(f"[{turn.role}]", width))
        lines += wrap(turn.text, width)
    return lines


def _side_by_side(reading: RowReading, room: int) -> Lines:
    (first, left), (second, right) = reading.answers
    lines: Lines = [(_rule(first, room) + "─┬─" + _rule(second, room), "title")]
    for one, two in zip_longest(_answer_lines(left, room), _answer_lines(right, room), fillvalue=""):
        lines.append((fit(one, room) + _BETWEEN + two, "plain"))
    return [*lines, ("", "plain")]


def _below_each_other(reading: RowReading, width: int) -> Lines:
    lines: Lines = []
    for name, turns in reading.answers:
        lines += [(_rule(name, width), "title"), *((line, "plain") for line in _answer_lines(turns, width))]
    return [*lines, ("", "plain")]


def _rule(name: str, width: int) -> str:
    return fit(f"── {name} " + "─" * width, width)
