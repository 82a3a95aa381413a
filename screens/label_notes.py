"""What goes with a verdict: a comment, reasons, a flag, a better answer. Each by one key, on the disk from then on.

Owns the keys for notes and the list of reasons. Invariant: a note that the screen shows is on the disk as a draft, or
the message says that it is not.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Key

from screens.answer_editor import AnswerEditor, begin_question
from screens.label_saving import SavingStation
from screens.line import Line
from screens.modals import AskText, Dialog
from workbench.label_form import tag_problem
from workbench.label_notes import Notes
from workbench.labeling import Sitting
from workbench.labeling_state import ShownPair

TAG_KEYS = "123456789acdefghijklmnoprs"
"""Keys of the reasons, in their order; the letters of the modal's own keys are not among them."""


class NotingStation(SavingStation):
    """What the label screen's keys do that judge nothing but say something of the pair."""

    def add_notes(self, notes: Notes, words: str) -> None:
        """Keep notes on the present pair, and say so."""
        sitting = self._sitting
        if sitting is None or sitting.present is None or self._saving:
            return

        def kept(_: None) -> None:
            self.did(words)
            self.show_state()

        self.save(lambda: sitting.add(notes), kept)

    @abstractmethod
    def show_state(self) -> None:
        """Show what stands on the present pair."""

    def action_flag(self) -> None:
        if self._sitting is not None:
            notes = self._sitting.notes
            words = "no flag" if notes.flagged else "flagged, with your verdict; f takes it off"
            self.add_notes(replace(notes, flagged=not notes.flagged), words)

    def action_tags(self) -> None:
        sitting = self._sitting
        if sitting is not None and sitting.present is not None and not self._saving:
            tags = Reasons(sitting.pair_set.form.tags, sitting.notes.tags)
            self.app.push_screen(tags, self._tagged)

    def _tagged(self, tags: tuple[str, ...] | None) -> None:
        if tags is not None and self._sitting is not None:
            words = f"{', '.join(tags)}: with your verdict" if tags else "no reasons"
            self.add_notes(replace(self._sitting.notes, tags=tags), words)

    def action_comment(self) -> None:
        sitting = self._sitting
        if sitting is not None and sitting.present is not None and not self._saving:
            asked = AskText("A comment on this pair; it is saved with your verdict.", value=sitting.notes.comment)
            self.app.push_screen(asked, self._commented)

    def _commented(self, text: str | None) -> None:
        if text is not None and self._sitting is not None:
            words = "the comment goes with your verdict" if text.strip() else "no comment"
            self.add_notes(replace(self._sitting.notes, comment=text.strip()), words)

    def action_amend(self) -> None:
        sitting = self._sitting
        if sitting is not None and not self._saving:

            def take(text: str | None) -> None:
                if text is not None and not self._saving:
                    said = "the comment is saved with your last verdict"
                    self.save(lambda: sitting.amend(text), lambda _: self.did(said))

            self.app.push_screen(AskText("A comment on your last verdict; the verdict stays."), take)

    # A better answer.

    def action_better(self) -> None:
        sitting = self._sitting
        pair = sitting.present if sitting is not None else None
        if sitting is None or pair is None or self._saving:
            return
        if sitting.notes.better:
            self._edit(sitting, pair, sitting.notes.better)
            return
        begin = {"1": pair.left, "2": pair.right, "e": ""}

        def begun(key: str | None) -> None:
            if key is not None:
                self._edit(sitting, pair, begin[key])

        self.app.push_screen(begin_question(pair), begun)

    def _edit(self, sitting: Sitting, pair: ShownPair, text: str) -> None:
        before = sitting.notes.better

        def keep(written: str) -> None:
            sitting.add(replace(sitting.notes, better=written), durable=False)

        def done(written: str | None) -> None:
            if written is None:
                return
            # An answer as it was given is no better one.
            mine = "" if written.strip() in ("", pair.left.strip(), pair.right.strip()) else written
            if mine or before or sitting.notes.better:
                words = "your answer goes with your verdict; e opens it again" if mine else "no answer of yours"
                self.add_notes(replace(sitting.notes, better=mine), words)

        self.app.push_screen(AnswerEditor(pair, text, keep), done)


class Reasons(Dialog[tuple[str, ...] | None]):
    """Which reasons hold, each by one key; None after Esc."""

    TITLE = "reasons"
    HELP = "The key of a reason puts it on or takes it off; t writes one that is not in the list; enter is done."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "decline", "leave it", id="reasons.leave", tooltip="Change nothing."),
        Binding("enter,space", "done", "done", id="reasons.done", tooltip="These hold."),
        Binding("t", "own", "one of your own", id="reasons.own", tooltip="Write a reason that is not in the list."),
    ]

    DEFAULT_CSS = "Reasons #reasons { height: auto; }"

    def __init__(self, offered: Sequence[str], chosen: Sequence[str]) -> None:
        super().__init__()
        self._reasons = list(dict.fromkeys([*offered, *chosen]))[: len(TAG_KEYS)]
        self._chosen = set(chosen)

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal"):
            yield Line(("Why?", "bold"))
            yield Vertical(*(Line(*self._parts(place)) for place in range(len(self._reasons))), id="reasons")
            yield Line(("t writes another, enter is done, esc leaves it", "$text-muted"))

    def _parts(self, place: int) -> tuple[str | tuple[str, str], ...]:
        tag = self._reasons[place]
        return (f" {TAG_KEYS[place]} ", "bold $accent"), f"[{'x' if tag in self._chosen else ' '}] {tag}"

    def on_key(self, event: Key) -> None:
        place = TAG_KEYS.find(event.character) if event.character else -1
        if 0 <= place < len(self._reasons):
            event.stop()
            self._chosen ^= {self._reasons[place]}
            self.query_one("#reasons").query(Line)[place].show(*self._parts(place))

    def action_own(self) -> None:
        self.app.push_screen(AskText("A reason, in a word or a few.", check=tag_problem), self._own)

    async def _own(self, tag: str | None) -> None:
        if not tag:
            return
        tag = tag.strip()
        if tag not in self._reasons and len(self._reasons) < len(TAG_KEYS):
            self._reasons.append(tag)
            self._chosen.add(tag)
            await self.query_one("#reasons").mount(Line(*self._parts(len(self._reasons) - 1)))
        elif tag in self._reasons:
            self._chosen.add(tag)
            place = self._reasons.index(tag)
            self.query_one("#reasons").query(Line)[place].show(*self._parts(place))

    def action_done(self) -> None:
        self.dismiss(tuple(tag for tag in self._reasons if tag in self._chosen))

    def action_decline(self) -> None:
        self.dismiss(None)
