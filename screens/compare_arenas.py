"""The arenas: how far each is judged, and what its verdicts say.

Owns the list and the words about the arena under the cursor. The rate and its sentence are `workbench.arena_list`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual import on
from textual.containers import Vertical
from textual.events import Resize
from textual.widget import Widget

from screens.line import Line
from screens.row_list import Column, Row, RowList
from screens.text_view import Block, TextView
from workbench.arena_list import ArenaState

COLUMNS = (
    Column("arena", longest=24),
    Column("judged", right=True),
    Column("says", flexible=True),
)
WORDS_LINES = 8
"""Lines below the list that are kept for the words about one arena, and a blank one."""
NO_ARENA = "no arena yet: m makes one; b does so of answers that were read"


class ArenasPane(Vertical):
    """All arenas and one of them in words."""

    DEFAULT_CSS = """
    ArenasPane > #arena-list { height: 3; margin-bottom: 1; }
    ArenasPane > #arena-words { height: 1fr; min-height: 5; padding-left: 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._states: dict[str, ArenaState] = {}

    @property
    def state(self) -> ArenaState | None:
        """The arena under the cursor."""
        return self._states.get(self.query_one(RowList).key)

    @property
    def states(self) -> tuple[ArenaState, ...]:
        """All of them, the newest first."""
        return tuple(self._states.values())

    def compose(self) -> Iterable[Widget]:
        yield Line(id="arenas-title")
        yield RowList(COLUMNS, empty=NO_ARENA, waits=True, id="arena-list")
        yield TextView(id="arena-words")

    def on_mount(self) -> None:
        # A loop, as there is none yet where the screen was left while it was composed.
        for text in self.query(TextView).results():
            text.can_focus = False
            self._draw_title()

    def on_resize(self, event: Resize) -> None:
        self._fit()

    def show(self, states: Sequence[ArenaState]) -> None:
        """Replace the arenas."""
        self._states = {state.name: state for state in states}
        rows = [Row(one.name, (one.name, f"{one.judged:,}/{one.pairs:,}", one.words), _tone(one)) for one in states]
        self.query_one(RowList).show(rows)
        self._fit()
        self._describe()

    def move_to(self, name: str) -> None:
        """Put the cursor on an arena."""
        self.query_one(RowList).move_to(name)

    def on_descendant_focus(self) -> None:
        self._draw_title()

    def on_descendant_blur(self) -> None:
        self._draw_title()

    @on(RowList.Moved)
    def _moved(self, event: RowList.Moved) -> None:
        # An Opened is a Moved too, and is for the screen.
        if not isinstance(event, RowList.Opened):
            event.stop()
            self._describe()

    def _fit(self) -> None:
        """The list as high as it is long, as far as the words leave room."""
        room = self.size.height - 1 - WORDS_LINES
        self.query_one(RowList).styles.height = max(3, min(len(self._states) + 1, room))

    def _describe(self) -> None:
        state = self.state
        self.query_one(TextView).show(_words(state) if state else [])

    def _draw_title(self) -> None:
        here = self.query_one(RowList).has_focus
        style = "bold $primary" if here else "$text-muted"
        self.query_one("#arenas-title", Line).show((("▸ " if here else "  ") + "arenas", style))


def _words(state: ArenaState) -> list[Block]:
    """An arena in words: what was found, between whom, by whom, and what can be done."""
    if state.damaged:
        return [Block(state.words, "bad")]
    blocks = [
        Block(state.words, "title" if state.decided else "plain"),
        Block(f"{state.first} against {state.second}", "faint"),
        Block(
            f"{state.judged:,} of {state.pairs:,} pairs judged" + (f" by {state.judges}" if state.judges else ""),
            "faint",
        ),
    ]
    if state.identical:
        prompts = "prompt" if state.identical == 1 else "prompts"
        blocks.append(Block(f"{state.identical:,} {prompts} with the same answer from both: a tie each", "faint"))
    if state.open:
        rule = "; R lets the sample rule judge" if state.rule_knows else ""
        blocks.append(Block(f"enter labels the {state.open:,} open, blind{rule}", "accent"))
    return blocks


def _tone(state: ArenaState) -> str:
    if state.damaged:
        return "bad"
    return "good" if state.decided else "" if state.judged else "faint"
