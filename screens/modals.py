"""Questions that need a decision before anything else: a choice by one key, or a short text.

Owns what every modal has (its help), and modals that return a typed value and do nothing else. What destroys is a
choice whose key is a capital.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Input

from screens.leaving import Leavable
from screens.line import Line
from screens.text_view import Block, TextView
from screens.typing_ahead import Typing
from workbench.text_wrapping import wrap

WIDTH = 64
T = TypeVar("T")


class Modal(ModalScreen[T]):
    """A modal that is dismissed once: a second key of one burst finds it gone, and must not take the screen below.

    Nor the one above, which a key behind the Enter of that burst opened: that goes with it.
    """

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        if self not in self.app.screen_stack:
            return AwaitComplete()
        while self.app.screen is not self:
            self.app.pop_screen()
        return super().dismiss(result)


class Dialog(Modal[T], Leavable[T]):
    """The base of every modal: `?` says what one does here, and where a text is typed ctrl+g, as on the stations."""

    TITLE: ClassVar[str | None] = ""
    HELP: ClassVar[str] = ""
    """What a person does here, for `?`."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark,ctrl+g", "help", "keys", show=False, id="help", tooltip="What one does here, and how."),
    ]

    def action_help(self) -> None:
        from screens.help import help_page

        self.app.push_screen(help_page(self))


@dataclass(frozen=True)
class Choice:
    """One answer to a question."""

    key: str
    """A single character, as it is typed."""
    label: str
    """Empty for a second key of the choice before, which needs no line of its own."""
    value: str = ""
    """What the question returns; the key where empty."""


class Question(Dialog[str | None]):
    """Asks for one of several choices, each a key; None after Esc."""

    TITLE = "a question"
    HELP = "Press the key of what you want. Nothing happens before you do; a capital is a choice that cannot be undone."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "decline", "leave it", id="question.leave", tooltip="Change nothing."),
        Binding(
            "q", "q", "leave it", show=False, id="question.q", tooltip="Change nothing, or the choice of that key."
        ),
    ]

    def __init__(self, question: str, choices: Sequence[Choice], *, details: str = "") -> None:
        super().__init__()
        self._question, self._choices, self._details = question, tuple(choices), details

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal"):
            lines = wrap(self._question, WIDTH)
            yield from (Line((line, "bold")) for line in lines)
            yield from (Line((line, "$text-muted")) for line in (wrap(self._details, WIDTH) if self._details else ()))
            yield Line("")
            yield from (
                Line((f" {choice.key} ", "bold $accent"), choice.label) for choice in self._choices if choice.label
            )
            yield Line((" esc ", "bold $accent"), "leave it as it is")

    def on_key(self, event: Key) -> None:
        if self._choose(event.character):
            event.stop()

    def action_q(self) -> None:
        """A q that came in one burst with the key that asked: it never reached `on_key`."""
        if not self._choose("q"):
            self.dismiss(None)

    def action_decline(self) -> None:
        self.dismiss(None)

    def _choose(self, key: str | None) -> bool:
        for choice in self._choices:
            if key == choice.key:
                self.dismiss(choice.value or choice.key)
                return True
        return False


class AskText(Dialog[str | None], Typing):
    """Asks for a short text; None after Esc. `check` returns what is wrong with it, or the empty string."""

    TITLE = "a short text"
    HELP = "Type, and enter takes it. Where it cannot be taken, the line below says why, and you go on typing."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "decline", "leave it", id="ask.leave", tooltip="Change nothing."),
    ]

    def __init__(
        self, question: str, *, value: str = "", placeholder: str = "", check: Callable[[str], str] | None = None
    ) -> None:
        super().__init__()
        self._question, self._value, self._placeholder, self._check = question, value, placeholder, check

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal"):
            yield from (Line((line, "bold")) for line in wrap(self._question, WIDTH))
            yield Input(self._value, placeholder=self._placeholder, id="answer")
            yield Line(("enter takes it, esc leaves it, ctrl+g helps", "$text-muted"), id="hint")

    def on_mount(self) -> None:
        field = self.query_one(Input)
        field.cursor_blink = False
        self.set_focus(field)
        self.take_ahead()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        wrong = self._check(event.value) if self._check else ""
        if wrong:
            self.query_one("#hint", Line).show((wrong, "$error"))
        else:
            self.dismiss(event.value)

    def action_decline(self) -> None:
        self.dismiss(None)


class Reading(Modal[None]):
    """A page to read: help, an error in full. Any of q, Esc, Enter, ? closes it: it needs no help, and may be one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "escape,q,enter,question_mark,ctrl+g,ctrl+c",
            "close",
            "close",
            id="reading.close",
            tooltip="Close this page.",
        ),
    ]

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self._blocks = tuple(blocks)

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal page"):
            yield TextView(self._blocks)
            yield Line(("j k scroll, q closes", "$text-muted"))

    def on_mount(self) -> None:
        self.query_one(TextView).focus()

    def action_close(self) -> None:
        self.dismiss(None)
