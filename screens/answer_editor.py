"""Writing a better answer: the prompt and both answers to read, a text to write, and every key on the disk.

Owns the editor. It returns the text, or None where nothing shall change. Invariants: what was typed is handed to `keep`
in a thread as it is typed, so that a kill loses at most the key in flight; Esc never throws away what was typed without
asking; a control character of an answer is shown as a picture and does nothing. Refuses to know where a draft lies.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import TextArea

from engine.run.safe_text import safe
from screens.line import Line
from screens.modals import Choice, Dialog, Question
from screens.text_view import Block, TextView
from workbench.label_notes import LONGEST_BETTER
from workbench.labeling_state import ShownPair

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
SIDE_BY_SIDE = 110
"""Cells from which what one reads stands beside what one writes."""
KEYS = "ctrl+o is done, esc goes back, ctrl+up and ctrl+down scroll what you read"


class AnswerEditor(Dialog[str | None]):
    """A better answer to the prompt of a pair."""

    TITLE = "a better answer"
    HELP = (
        "Write the answer that should have been given. It is kept as you type, goes with your verdict, becomes chosen "
        "when verdicts are frozen, and can be taken as data for SFT.\n\n"
        "ctrl+o (or ctrl+s, where the terminal lets it through) is done. esc asks where something was changed. ctrl+z "
        "takes back what was typed, ctrl+y types it again."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+o,ctrl+s", "done", "done", key_display="ctrl+o", id="editor.done", tooltip="This is the answer."),
        Binding("escape,ctrl+c", "decline", "back", id="editor.leave", tooltip="Back; asks where it was changed."),
        Binding("tab", "indent", "indent", show=False, priority=True, id="editor.indent", tooltip="Four blanks."),
        Binding("ctrl+down", "read(3)", "read on", show=False, id="editor.read_on", tooltip="What one reads, down."),
        Binding("ctrl+up", "read(-3)", "read back", show=False, id="editor.read_back", tooltip="What one reads, up."),
    ]
    DEFAULT_CSS = """
    AnswerEditor #read { height: 2fr; }
    AnswerEditor #written, AnswerEditor #written:focus {
        height: 3fr; border: none; border-top: solid $primary; padding: 0;
    }
    AnswerEditor .editor { width: 100%; height: 100%; background: $background; padding: 0 1; }
    AnswerEditor #parts { layout: vertical; height: 1fr; }
    AnswerEditor.-beside #parts { layout: horizontal; }
    AnswerEditor.-beside #read { width: 1fr; height: 1fr; }
    AnswerEditor.-beside #written, AnswerEditor.-beside #written:focus {
        width: 1fr; height: 1fr; border: none; border-left: solid $primary;
    }
    """

    def __init__(self, pair: ShownPair, text: str, keep: Callable[[str], None]) -> None:
        """`keep` puts a text on the disk; it is called in a thread, and may raise."""
        super().__init__()
        self._pair, self._keep = pair, keep
        self._before = plain(text)
        self._kept = self._before
        self._keeping = False
        self._ended: str | None = None

    @property
    def text(self) -> str:
        """What is written now."""
        return self.query_one(TextArea).text

    def compose(self) -> ComposeResult:
        with Vertical(classes="editor"):
            yield Line(("A better answer", "bold"), ("  it goes with your verdict", "$text-muted"), id="title")
            with Vertical(id="parts"):
                yield TextView(self._to_read(), id="read")
                yield TextArea(self._before, id="written", soft_wrap=True, tab_behavior="focus")
            yield Line((KEYS, "$text-muted"), id="hint")

    def _to_read(self) -> list[Block]:
        pair = self._pair
        parts = (("prompt", pair.prompt), ("left", pair.left), ("right", pair.right))
        return [block for name, text in parts for block in (Block(name, "title"), Block(text), Block(""))]

    def on_mount(self) -> None:
        self.set_class(self.app.size.width >= SIDE_BY_SIDE, "-beside")
        self.query_one(TextView).can_focus = False
        written = self.query_one(TextArea)
        written.cursor_blink = False
        written.move_cursor(written.document.end)
        written.focus()

    def on_resize(self) -> None:
        self.set_class(self.app.size.width >= SIDE_BY_SIDE, "-beside")

    @on(TextArea.Changed)
    async def _changed(self) -> None:
        if not self._keeping:
            self._keeping = True
            self.run_worker(self._keep_on(), exit_on_error=True)

    async def _keep_on(self) -> None:
        """Keep what is written until what is kept is what is written."""
        try:
            while self._ended is None and self.is_attached and self.query(TextArea) and self.text != self._kept:
                text = self.text
                if len(text) > LONGEST_BETTER:
                    self._tell(f"{len(text):,} characters: at most {LONGEST_BETTER:,} are kept", "$error")
                    return
                await asyncio.to_thread(self._keep, text)
                self._kept = text
                self._tell(KEYS, "$text-muted")
        except Exception as error:
            self._tell(f"NOT KEPT on the disk: {safe(str(error))}", "$error")
        finally:
            self._keeping = False
            if self._ended is not None:
                self.dismiss(self._ended)

    def _end(self, text: str) -> None:
        """Leave with a text, behind what is still being kept: that must not overtake what comes of this text."""
        self._ended = text
        if not self._keeping:
            self.dismiss(text)

    def _tell(self, words: str, style: str) -> None:
        if self.is_attached and self.query("#hint"):
            self.query_one("#hint", Line).show((words, style))

    def action_indent(self) -> None:
        self.query_one(TextArea).insert("    ")

    def action_read(self, lines: int) -> None:
        self.query_one(TextView).action_by(lines)

    def action_done(self) -> None:
        if len(self.text) <= LONGEST_BETTER:
            self._end(self.text.strip("\n"))

    def action_decline(self) -> None:
        if self.text == self._before:
            self.dismiss(None)
            return
        choices = [Choice("k", "keep it; it goes with your verdict"), Choice("D", "throw away what you changed")]
        self.app.push_screen(Question("You have changed the answer.", choices), self._decided)

    def _decided(self, key: str | None) -> None:
        if key == "k":
            self.action_done()
        elif key == "D":
            self._end(self._before)


def plain(text: str) -> str:
    """A text to edit: its line ends, tabs and signs as they are, control characters as pictures."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub(lambda found: safe(found[0]), lines)


def begin_question(pair: ShownPair) -> Question:
    """From what to begin: the left answer, the right one, or nothing."""
    choices = [Choice("1", "the left answer"), Choice("2", "the right answer"), Choice("e", "an empty page")]
    too_long = [name for name, text in (("left", pair.left), ("right", pair.right)) if len(text) > LONGEST_BETTER]
    kept = [one for one in choices if not any(name in one.label for name in too_long)]
    details = f"The {' and the '.join(too_long)} one is too long to edit." if too_long else ""
    return Question("Write a better answer, beginning with", kept, details=details)
