"""A prompt and two answers: the one widget of the label screen, drawn from lines that were wrapped before.

Owns the layout (prompt on top, answers side by side, below each other where it is narrow), scrolling both answers as
one, and the marks where a text goes on. A prompt that is too long shows its end, which is what the answers answer.
Invariants: every text is safe and wrapped by `text_wrapping`; only lines that changed are drawn again; a layout can be
made ahead in a thread. Refuses to know what a verdict is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.events import Resize
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from workbench.text_wrapping import cut, fit, wrap

LEAST_FOR_COLUMNS = 72
"""Cells; where the view is narrower the answers stand below each other."""
PROMPT_SHARE = 3
"""The prompt has at most one line in so many."""
EMPTY = "(empty)"
GAP = " │ "


class PairTexts(NamedTuple):
    """What is shown of a pair; nothing in it says where an answer comes from."""

    prompt: str
    left: str
    right: str


class Row(NamedTuple):
    """One line of the view: its text, and "" for text, "prompt" or "rule"."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class PairLayout:
    """The wrapped lines of one pair at one size, and how much room each part has."""

    width: int
    in_columns: bool
    prompt: list[str]
    left: list[str]
    right: list[str]
    prompt_room: int
    left_room: int
    right_room: int

    @property
    def last_top(self) -> int:
        """The furthest that the answers scroll."""
        return max(0, len(self.left) - self.left_room, len(self.right) - self.right_room)

    @property
    def last_prompt_top(self) -> int:
        """The furthest that the prompt scrolls."""
        return max(0, len(self.prompt) - self.prompt_room)

    def rows(self, top: int, prompt_top: int) -> list[Row]:
        """What is seen where the answers are scrolled to `top` and the prompt to `prompt_top`."""
        seen = [Row(fit(f" {line}", self.width), "prompt") for line in _part(self.prompt, prompt_top, self.prompt_room)]
        left_top = max(0, min(top, len(self.left) - self.left_room))
        right_top = max(0, min(top, len(self.right) - self.right_room))
        left, right = _part(self.left, left_top, self.left_room), _part(self.right, right_top, self.right_room)
        prompt_mark = self._prompt_mark(prompt_top)
        below_left = _mark(len(self.left) - self.left_room - left_top, left_top)
        below_right = _mark(len(self.right) - self.right_room - right_top, right_top)
        if not self.in_columns:
            seen.append(Row(_rule("left", self.width, prompt_mark), "rule"))
            seen += [Row(fit(f" {line}", self.width)) for line in left]
            seen.append(Row(_rule("right", self.width, below_left), "rule"))
            seen += [Row(fit(f" {line}", self.width)) for line in right]
            return [*seen, Row(_rule("", self.width, below_right), "rule")]
        each, other = _column_widths(self.width)
        seen.append(Row(_rule("left", each + 2, prompt_mark) + "┬" + _rule("right", other + 1), "rule"))
        both = zip(left, right, strict=True)
        seen += [Row(fit(f" {fit(one, each)}{GAP}{fit(two, other)}", self.width)) for one, two in both]
        return [*seen, Row(_rule("", each + 2, below_left) + "┴" + _rule("", other + 1, below_right), "rule")]

    def _prompt_mark(self, top: int) -> str:
        if not self.last_prompt_top:
            return ""
        return f"▲ {top} above, p" if top else f"▼ {self.last_prompt_top} below, p"


def lay_out(texts: PairTexts, width: int, height: int) -> PairLayout:
    """The layout of a pair; a function of its arguments alone, for any thread."""
    in_columns = width >= LEAST_FOR_COLUMNS
    each, other = _column_widths(width) if in_columns else (width - 2, width - 2)
    prompt = wrap(texts.prompt or EMPTY, width - 2)
    left, right = wrap(texts.left or EMPTY, each), wrap(texts.right or EMPTY, other)
    prompt_room = max(1, min(len(prompt), height // PROMPT_SHARE))
    room = max(2, height - prompt_room - (2 if in_columns else 3))
    if in_columns:
        return PairLayout(width, True, prompt, left, right, prompt_room, room, room)
    # An answer that needs less than its half leaves the rest to the other.
    first = max(1, min(len(left), max(room // 2, room - len(right))))
    return PairLayout(width, False, prompt, left, right, prompt_room, first, room - first)


class PairView(Widget):
    """The pair to be judged."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"pair-view--prompt", "pair-view--rule"}
    DEFAULT_CSS = """
    PairView { height: 1fr; width: 1fr; }
    PairView > .pair-view--prompt { text-style: bold; }
    PairView > .pair-view--rule { color: $text-muted; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._texts: PairTexts | None = None
        self._laid_out: PairLayout | None = None
        self._ahead: tuple[PairTexts, Size, PairLayout] | None = None
        self._seen: list[Row] = []
        self._top = self._prompt_top = 0

    @property
    def texts(self) -> PairTexts | None:
        """What it shows."""
        return self._texts

    def show(self, texts: PairTexts | None) -> None:
        """Show another pair: the answers from their beginning, the end of the prompt; or nothing."""
        self._texts = texts
        self._lay_out()
        self._draw()

    def keep_ready(self, texts: PairTexts, size: Size, layout: PairLayout) -> None:
        """Take a layout made ahead, for when this pair is shown."""
        self._ahead = (texts, size, layout)

    def scroll_answers(self, lines: int = 0, pages: int = 0) -> None:
        """Scroll both answers as one."""
        if self._laid_out is not None:
            room = min(self._laid_out.left_room, self._laid_out.right_room)
            wanted = self._top + lines + pages * max(1, room - 1)
            self._top = max(0, min(wanted, self._laid_out.last_top))
            self._draw()

    def turn_prompt(self) -> None:
        """The next page of the prompt; after the last one the first."""
        if self._laid_out is not None:
            last = self._laid_out.last_prompt_top
            step = max(1, self._laid_out.prompt_room - 1)
            self._prompt_top = 0 if self._prompt_top >= last else min(last, self._prompt_top + step)
            self._draw()

    def on_resize(self, event: Resize) -> None:
        before = self._laid_out
        share = self._top / before.last_top if before and before.last_top else 0.0
        self._lay_out()
        if self._laid_out is not None:
            self._top = round(share * self._laid_out.last_top)
        self._draw()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y >= len(self._seen):
            return Strip.blank(width, self.rich_style)
        row = self._seen[y]
        return Strip([Segment(fit(row.text, width), self._style(row.style))], width)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"pair-view--{name}") if name else self.rich_style

    def _lay_out(self) -> None:
        size = self.size
        if self._texts is None or not size:
            self._laid_out = None
        elif self._ahead is not None and self._ahead[:2] == (self._texts, size):
            self._laid_out = self._ahead[2]
        else:
            self._laid_out = lay_out(self._texts, size.width, size.height)
        self._top, self._prompt_top = 0, self._laid_out.last_prompt_top if self._laid_out else 0

    def _draw(self) -> None:
        """Draw the lines again that are not what they were."""
        before = self._seen
        self._seen = self._laid_out.rows(self._top, self._prompt_top)[: self.size.height] if self._laid_out else []
        blank = Row("")
        for y in range(max(len(before), len(self._seen))):
            was = before[y] if y < len(before) else blank
            now = self._seen[y] if y < len(self._seen) else blank
            if was != now:
                self.refresh(Region(0, y, self.size.width, 1))


def _column_widths(width: int) -> tuple[int, int]:
    """Cells of the left and the right answer: one blank at the edge, " │ " between them."""
    room = width - 1 - len(GAP)
    return (room + 1) // 2, room // 2


def _part(lines: list[str], top: int, room: int) -> list[str]:
    seen = lines[top : top + room]
    return seen + [""] * (room - len(seen))


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
