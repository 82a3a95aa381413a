"""A prompt and two answers: the one widget of the label screen, drawn from rows that were laid out before.

Owns the styles of Markdown, scrolling both answers as one, and the frames: what is seen, in lines that are ready for
the terminal. Invariants: only the cells that changed are drawn again; the frame of the pair that comes next, and which
cells it changes, can be made ahead in a thread, so that showing it is a swap. Refuses to know what a verdict is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.events import Resize
from textual.filter import LineFilter
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from screens.pair_layout import PairLayout, PairTexts, Row, changed_cells, lay_out

NAMES = ("prompt", "rule", "heading", "code", "quote", "strong", "emphasis")
CHANGED = "changed"
KEPT = 6
"""Pairs whose frames are kept: undo shows one that was there before."""


@dataclass(frozen=True)
class Look:
    """What makes a row a line of the terminal; read from the widget once, for any thread."""

    styles: dict[str, Style]
    """By the names in the pieces of a row; "" is the view's own."""
    filters: tuple[LineFilter, ...]
    """What every line passes, the last door among them."""
    background: Color

    def strip(self, row: Row, width: int) -> Strip:
        """The line of a row, exactly `width` cells."""
        made = Strip([Segment(text, self.styles[style]) for text, style in row.pieces])
        made = made.adjust_cell_length(width, self.styles[""])
        for one in self.filters:
            made = made.apply_filter(one, self.background)
        return made


class Frame(NamedTuple):
    """All lines that are seen: as rows, and ready for the terminal."""

    rows: tuple[Row, ...]
    strips: tuple[Strip, ...]


class Ahead(NamedTuple):
    """A pair that will be shown: its frame, and which cells it changes where the frame `before` is seen till then."""

    texts: PairTexts
    size: Size
    marks: bool
    look: Look
    layout: PairLayout
    frame: Frame
    before: Frame | None
    regions: tuple[Region, ...]


class PairView(Widget):
    """The pair to be judged. It has neither border nor padding: a row of it is a line of the screen."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"pair-view--{name}" for name in (*NAMES, CHANGED)}
    DEFAULT_CSS = """
    PairView { height: 1fr; width: 1fr; }
    PairView > .pair-view--prompt { text-style: bold; }
    PairView > .pair-view--rule { color: $text-muted; }
    PairView > .pair-view--heading { text-style: bold; }
    PairView > .pair-view--strong { text-style: bold; }
    PairView > .pair-view--emphasis { text-style: italic; }
    PairView > .pair-view--code { color: $accent; }
    PairView > .pair-view--quote { color: $text-muted; }
    PairView > .pair-view--changed { text-style: underline; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._texts: PairTexts | None = None
        self._laid_out: PairLayout | None = None
        self._made: dict[tuple[PairTexts, Size, bool], Ahead] = {}
        """What was made ahead, the latest last."""
        self._marks = False
        self._frame: Frame | None = None
        self._look_kept: Look | None = None
        self._look_may_differ = True
        self._top = self._prompt_top = 0

    @property
    def texts(self) -> PairTexts | None:
        """What it shows."""
        return self._texts

    def show(self, texts: PairTexts | None) -> None:
        """Show another pair: the answers from their beginning, the end of the prompt; or nothing."""
        if texts is None or texts != self._texts:  # another question about the same pair moves nothing
            self._texts = texts
            self._lay_out()
            self._draw()

    @property
    def layout_of_pair(self) -> PairLayout | None:
        """How what it shows is laid out."""
        return self._laid_out

    @property
    def marks(self) -> bool:
        """Whether the words that only one of the answers has are marked."""
        return self._marks

    def mark(self, on: bool) -> None:
        """Mark the words that only one of the answers has, or no more; nothing moves."""
        self._marks = on
        self._draw()

    def making_ready(self, texts: PairTexts) -> Callable[[], Ahead]:
        """What a thread calls for `keep_ready`: it makes the frame of a pair, as it will be shown after this one."""
        size, marks, look, before = self.size, self._marks, self._look, self._frame
        made = self._made.get((texts, size, marks))
        same = made is not None and made.look == look

        def make() -> Ahead:
            if same and made is not None:
                layout, frame = made.layout, made.frame
            else:
                layout = lay_out(texts, size.width, size.height)
                frame = _frame(layout, size, look, 0, layout.last_prompt_top, marks)
            regions = tuple(_regions(before, frame, size))
            for region in regions:  # a strip keeps its parts
                frame.strips[region.y].crop(region.x, region.right)
            return Ahead(texts, size, marks, look, layout, frame, before, regions)

        return make

    def keep_ready(self, ahead: Ahead) -> None:
        """Take what was made ahead, for when this pair is shown."""
        self._made.pop(ahead[:3], None)
        self._made[ahead[:3]] = ahead
        if len(self._made) > KEPT:
            del self._made[next(iter(self._made))]

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
        return self.render_lines(Region(0, y, self.size.width, 1))[0]

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines of the frame as they are: nothing is left to be styled, padded or filtered."""
        look = self._look
        seen = self._frame.strips[crop.y : crop.bottom] if self._frame else ()
        missing = (look.strip(Row(()), self.size.width) for _ in range(crop.height - len(seen)))
        return [strip.crop(crop.x, crop.right) for strip in chain(seen, missing)]

    def notify_style_update(self) -> None:
        self._look_may_differ = True
        super().notify_style_update()

    @property
    def _look(self) -> Look:
        """The styles of rows, of one name or two; what is not named is the view's own."""
        if self._look_kept is None or self._look_may_differ:
            look = self._read_look()
            if self._frame is not None and look != self._look_kept:
                self._frame = _styled(self._frame.rows, look, self.size.width)
            self._look_kept, self._look_may_differ = look, False
        return self._look_kept

    def _read_look(self) -> Look:
        base = self.rich_style
        styles = {"": base}
        for name in (*NAMES, CHANGED):
            styles[name] = base + self.get_component_rich_style(f"pair-view--{name}")
        changed = self.get_component_rich_style(f"pair-view--{CHANGED}", partial=True)
        for name in NAMES:
            partial = self.get_component_rich_style(f"pair-view--{name}", partial=True)
            styles[f"{name} {CHANGED}"] = base + partial + changed
        return Look(styles, tuple(self.get_line_filters()), self.background_colors[1])

    def _made_ahead(self) -> Ahead | None:
        """What was made ahead of what is shown."""
        return self._made.get((self._texts, self.size, self._marks)) if self._texts is not None else None

    def _lay_out(self) -> None:
        size, ahead = self.size, self._made_ahead()
        if self._texts is None or not size:
            self._laid_out = None
        elif ahead is not None:
            self._laid_out = ahead.layout
        else:
            self._laid_out = lay_out(self._texts, size.width, size.height)
        self._top, self._prompt_top = 0, self._laid_out.last_prompt_top if self._laid_out else 0

    def _frame_now(self) -> Frame | None:
        layout, size = self._laid_out, self.size
        return _frame(layout, size, self._look, self._top, self._prompt_top, self._marks) if layout else None

    def _draw(self) -> None:
        """Draw the cells again that are not what they were."""
        before, ahead, size = self._frame, self._made_ahead(), self.size
        if ahead is None or self._laid_out is not ahead.layout or not self._is_as_made(ahead):
            self._frame = self._frame_now()
            regions = tuple(_regions(before, self._frame, size))
        else:
            self._frame = ahead.frame
            regions = ahead.regions if ahead.before is before else tuple(_regions(before, ahead.frame, size))
        if regions:
            self.refresh(*regions)

    def _is_as_made(self, ahead: Ahead) -> bool:
        """Whether a frame that was made ahead is what would be seen now."""
        at_first = self._top == 0 and self._prompt_top == ahead.layout.last_prompt_top
        return at_first and ahead.look == self._look


def _frame(layout: PairLayout, size: Size, look: Look, top: int, prompt_top: int, marks: bool) -> Frame:
    """What is seen of a layout."""
    return _styled(tuple(layout.rows(top, prompt_top, marks=marks)[: size.height]), look, size.width)


def _styled(rows: tuple[Row, ...], look: Look, width: int) -> Frame:
    return Frame(rows, tuple(look.strip(row, width) for row in rows))


def _regions(was: Frame | None, now: Frame | None, size: Size) -> list[Region]:
    """The cells that differ, a region for each line."""
    blank = Row(((" " * size.width, ""),))
    before, after = was.rows if was else (), now.rows if now else ()
    found = []
    for y in range(min(size.height, max(len(before), len(after)))):
        one = before[y] if y < len(before) else blank
        other = after[y] if y < len(after) else blank
        if one != other:
            first, last = changed_cells(one, other, size.width)
            found.append(Region(first, y, last - first, 1))
    return found
