"""Answers of several models to one prompt, side by side, or one below the other where there is no room for columns.

Owns wrapping, the columns and scrolling: all answers scroll as one, and in columns the models' names stay above them.
Refuses to know about prompts and models; what it is given is text of strangers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.run.safe_text import safe
from workbench.text_wrapping import cut, fit, wrap

LEAST_COLUMN = 28
"""Cells; where a column would be narrower the answers stand below each other."""
GAP = " │ "
EMPTY = "(an empty answer)"
PINNED = 2
"""Lines above the columns that do not scroll: the names, and what is known of each answer."""
Cells = tuple[tuple[str, str], ...]
"""One line: (text, style) from left to right."""


@dataclass(frozen=True)
class ShownAnswer:
    """One column."""

    name: str
    facts: tuple[str, ...]
    """Short texts; those that find no room in one line are left out, the last ones first."""
    text: str


class AnswersView(ScrollView, can_focus=True):
    """Answers to read; j/k, arrows, g/G and pages scroll all of them together."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "by(1)", "down", show=False, id="answers.down", tooltip="A line down."),
        Binding("k,up", "by(-1)", "up", show=False, id="answers.up", tooltip="A line up."),
        Binding("ctrl+d,pagedown,space", "page(1)", "page down", show=False, id="answers.page_down",
                tooltip="A page down."),
        Binding("ctrl+u,pageup", "page(-1)", "page up", show=False, id="answers.page_up", tooltip="A page up."),
        Binding("g,home", "edge(-1)", "top", show=False, id="answers.first", tooltip="The beginning."),
        Binding("G,end", "edge(1)", "end", show=False, id="answers.last", tooltip="The end."),
    ]  # fmt: skip
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"answers-view--{name}" for name in ("faint", "title", "rule")}
    DEFAULT_CSS = """
    AnswersView { height: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size: 1 1; scrollbar-gutter: stable; }
    AnswersView > .answers-view--faint { color: $text-muted; }
    AnswersView > .answers-view--title { color: $primary; text-style: bold; }
    AnswersView > .answers-view--rule { color: $text-muted; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._answers: tuple[ShownAnswer, ...] = ()
        self._rows: list[Cells] = []
        self._pinned = 0
        self._laid_out_at = -1

    @property
    def in_columns(self) -> bool:
        """Whether the answers stand side by side."""
        return self._pinned > 0

    def show(self, answers: Sequence[ShownAnswer]) -> None:
        """Replace the answers; the view goes to its beginning."""
        if tuple(answers) != self._answers:
            self._answers = tuple(answers)
            self._lay_out()
            self.scroll_to(y=0, animate=False, immediate=True)
            self.refresh()

    def action_by(self, lines: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + lines, animate=False, immediate=True)

    def action_page(self, by: int) -> None:
        self.action_by(by * max(1, self.size.height - self._pinned - 1))

    def action_edge(self, end: int) -> None:
        self.scroll_to(y=self.max_scroll_y if end > 0 else 0, animate=False, immediate=True)

    def on_resize(self, event: Resize) -> None:
        if self.scrollable_content_region.width != self._laid_out_at:
            self._lay_out()
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        place = y if y < self._pinned else y + self.scroll_offset.y
        if not 0 <= place < len(self._rows):
            return Strip.blank(width, self.rich_style)
        return Strip([Segment(text, self._style(style)) for text, style in self._rows[place]]).adjust_cell_length(
            width, self.rich_style
        )

    def _style(self, name: str) -> Style:
        return self.rich_style if name == "plain" else self.get_component_rich_style(f"answers-view--{name}")

    def _lay_out(self) -> None:
        width = self._laid_out_at = self.scrollable_content_region.width
        if width <= 0 or not self._answers:
            self._rows, self._pinned = [], 0
            return
        each = (width - len(GAP) * (len(self._answers) - 1)) // len(self._answers)
        if each >= LEAST_COLUMN:
            self._rows, self._pinned = self._columns(each), PINNED
        else:
            self._rows, self._pinned = self._stack(width), 0
        self.virtual_size = Size(width, len(self._rows))

    def _columns(self, each: int) -> list[Cells]:
        """The names in a rule, what is known of each, and the answers beside each other."""
        rule: list[tuple[str, str]] = []
        for place, answer in enumerate(self._answers):
            rule += ([("─┬─", "rule")] if place else []) + _heading(answer.name, each)
        rows: list[Cells] = [tuple(rule)]
        rows.append(_joined([(_facts(answer, each), "faint") for answer in self._answers], each))
        for line in zip_longest(*(_lines(answer, each) for answer in self._answers), fillvalue=("", "plain")):
            rows.append(_joined(line, each))
        return rows

    def _stack(self, width: int) -> list[Cells]:
        rows: list[Cells] = []
        for place, answer in enumerate(self._answers):
            rows += [(("", "plain"),)] if place else []
            rows.append(tuple(_heading(answer.name, width)))
            rows.append(((fit(_facts(answer, width), width), "faint"),))
            rows += [((fit(text, width), style),) for text, style in _lines(answer, width)]
        return rows


def _heading(name: str, width: int) -> list[tuple[str, str]]:
    """A name in a rule: ── dpo ─────."""
    shown = cut(name, max(1, width - 5))
    return [("─ ", "rule"), (shown, "title"), (" " + "─" * max(0, width - cell_len(shown) - 3), "rule")]


def _facts(answer: ShownAnswer, width: int) -> str:
    """As many whole facts as fit; half a number would mislead."""
    facts = [safe(fact) for fact in answer.facts]
    while len(facts) > 1 and cell_len(" · ".join(facts)) > width:
        facts.pop()
    return cut(" · ".join(facts), width)


def _lines(answer: ShownAnswer, width: int) -> list[tuple[str, str]]:
    if not answer.text.strip():
        return [(EMPTY, "faint")]
    return [(line, "plain") for line in wrap(answer.text, width)]


def _joined(cells: Sequence[tuple[str, str]], each: int) -> Cells:
    parts: list[tuple[str, str]] = []
    for place, (text, style) in enumerate(cells):
        parts += ([(GAP, "rule")] if place else []) + [(fit(text, each), style)]
    return tuple(parts)
