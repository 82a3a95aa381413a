"""The answers of a comparison: the prompts on the left where there is room, and what each model said to one of them.

Owns which prompt is shown. This view is not blind: the models' names stand above their answers.
"""

from __future__ import annotations

from collections.abc import Iterable

from textual import on
from textual.containers import Horizontal, Vertical
from textual.events import Resize
from textual.message import Message
from textual.widget import Widget

from screens.answers_view import AnswersView, ShownAnswer
from screens.line import Line
from screens.row_list import LONGEST_CELL, Column, Row, RowList
from screens.text_view import Block, TextView
from workbench.canonical_rows import Prompt, last_user_text, said_in
from workbench.side_by_side import Comparison, facts_of
from workbench.text_wrapping import wrap

FEWEST_LINES, MOST_LINES = 1, {True: 8, False: 4}
"""Lines of a prompt above its answers, the most in a wide terminal and in a narrow one; `p` shows the rest."""
SAME = "="
"""Marks a prompt to which all models gave the same answer."""


class AnswersPane(Horizontal):
    """One prompt of a comparison and its answers."""

    DEFAULT_CSS = """
    AnswersPane > #prompt-list { width: 36; border-right: solid $panel; }
    AnswersPane > #reading { width: 1fr; height: 1fr; padding: 0 0 0 1; }
    AnswersPane #prompt { height: 2; }
    """

    class Turned(Message):
        """Another prompt is shown."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.comparison: Comparison | None = None
        self.number = 0
        """The prompt that is shown, from 0."""

    def compose(self) -> Iterable[Widget]:
        yield RowList(
            [Column("", right=True), Column("prompt", flexible=True)],
            titles=False,
            empty="",
            id="prompt-list",
        )
        with Vertical(id="reading"):
            yield Line(id="prompt-title")
            yield TextView(id="prompt")
            yield AnswersView(id="columns")

    def on_mount(self) -> None:
        # A loop, as there is none yet where the screen was left while it was composed.
        for prompt in self.query("#prompt").results(TextView):
            prompt.can_focus = False

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._fit_prompt)

    def show(self, comparison: Comparison) -> None:
        """Show a comparison from its first prompt on."""
        self.comparison = comparison
        rows = [
            Row(
                str(number),
                (f"{number + 1}{SAME if comparison.all_agree(number) else ' '}", _one_line(prompt["prompt"])),
            )
            for number, prompt in enumerate(comparison.answered.prompts)
        ]
        self.query_one("#prompt-list", RowList).show(rows)
        self._turn_to(0)

    def move(self, by: int) -> None:
        """Show the prompt that many places on."""
        if self.comparison is not None:
            self._turn_to(max(0, min(self.number + by, len(self.comparison.answered.prompts) - 1)))

    def move_to_differing(self) -> bool:
        """Show the next prompt to which the answers differ, after the last from the first on; whether there is one."""
        comparison = self.comparison
        if comparison is None:
            return False
        count = len(comparison.answered.prompts)
        for step in range(1, count + 1):
            number = (self.number + step) % count
            if not comparison.all_agree(number):
                self._turn_to(number)
                return True
        return False

    def whole_prompt(self) -> list[Block]:
        """All turns of the prompt that is shown."""
        prompt = self._prompt()
        if isinstance(prompt, str):
            return [Block(prompt)]
        blocks: list[Block] = []
        for turn in prompt:
            blocks += [Block(turn["role"], "title"), Block(said_in(turn) + "\n")]
        return blocks

    @on(RowList.Moved, "#prompt-list")
    def _chosen(self, event: RowList.Moved) -> None:
        event.stop()
        if event.key and int(event.key) != self.number:
            self._turn_to(int(event.key))

    @on(RowList.Opened, "#prompt-list")
    def _opened(self, event: RowList.Opened) -> None:
        event.stop()
        self.query_one(AnswersView).focus()

    def _prompt(self) -> Prompt:
        return self.comparison.answered.prompts[self.number]["prompt"] if self.comparison else ""

    def _turn_to(self, number: int) -> None:
        comparison = self.comparison
        if comparison is None:
            return
        self.number = number
        self.query_one("#prompt-list", RowList).move_to(str(number))
        prompt = self._prompt()
        turns = len(prompt) if isinstance(prompt, list) else 1
        self.query_one("#prompt-title", Line).show(
            (f"prompt {number + 1} of {len(comparison.answered.prompts)}", "bold $primary"),
            (f" · the last of {turns} turns, p shows all" if turns > 1 else "", "$text-muted"),
            (" · all answers are the same" if comparison.all_agree(number) else "", "$warning"),
        )
        self.query_one("#prompt", TextView).show([Block(last_user_text(prompt))])
        self._fit_prompt()
        shown = [
            ShownAnswer(name, facts_of(answer), answer.completion)
            for name, answer in zip(comparison.names, comparison.answers_to(number), strict=True)
        ]
        self.query_one(AnswersView).show(shown)
        self.post_message(self.Turned())

    def _fit_prompt(self) -> None:
        """Give the prompt the lines it needs, within reason."""
        view = self.query_one("#prompt", TextView)
        if self.comparison is not None and view.size.width > 1:
            needed = len(wrap(last_user_text(self._prompt()), view.size.width - 1))
            view.styles.height = max(FEWEST_LINES, min(needed, MOST_LINES[self.screen.has_class("-wide")])) + 1


def _one_line(prompt: Prompt) -> str:
    return " ".join(last_user_text(prompt)[:LONGEST_CELL].split())
