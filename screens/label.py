"""Label: one pair at a time, blind; one key is one verdict, and it is on the disk before the next pair shows.

Owns which keys count. A verdict key counts when it was typed at least `GUARD_S` after the frame with the pair went to
the terminal. Textual's reader thread stamps each key as it is read, so a key that waited in a queue while a verdict was
saved, or came in one chunk with the key before, carries a time before the frame and judges nothing. Invariants: one
verdict is saved at a time; after any error the same pair is there and the message says that nothing was saved.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar, TypeVar, cast

from textual.binding import Binding, BindingType
from textual.events import Key, Resize
from textual.widget import Widget

from screens.leaving import Opening
from screens.line import Line
from screens.modals import AskText
from screens.pair_view import PairTexts, PairView, lay_out
from screens.station import Station
from screens.tasks import Task
from screens.text_view import Block, TextView
from workbench.labeling import Sitting, open_sitting
from workbench.labeling_state import JudgedElsewhere, Said, Saved, ScreenVerdict, ShownPair
from workbench.labeling_words import end_page, progress_words

T = TypeVar("T")
GUARD_S = 0.15
"""Nobody reads a pair in less; a key that comes earlier was meant for the pair before."""
TOO_FAST = "too fast: that key came before this pair could be read; press it again"
JUDGE = "judge('"


class KeyClock:
    """When it is now, and when a key was read from the terminal, in seconds of one clock."""

    def now(self) -> float:
        """The present time."""
        return time.monotonic()

    def of(self, event: Key) -> float:
        """When the reader thread took this key from the terminal."""
        return event.time


class Label(Station):
    """Judge the pairs of a set or an arena."""

    NAME = "label"
    TITLE = "label"
    CSS_PATH = "label.tcss"
    AUTO_FOCUS = ""
    HELP = (
        "Which answer is better? One key is one verdict; it is on the disk before the next pair shows, so nothing is "
        "lost when the link dies. You do not see where an answer comes from, and which one stands left is drawn.\n\n"
        "A key that comes within 150 ms of a pair's appearance, or was typed ahead, judges nothing.\n\n"
        "u takes the last verdict back, again and again, also those of earlier sittings. Leave when you like: you go "
        "on where you stopped."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "judge('left')", "left", id="label.left", tooltip="The left (or upper) answer is better."),
        Binding("2", "judge('right')", "right", id="label.right", tooltip="The right (or lower) answer is better."),
        Binding("3", "judge('tie')", "tie", id="label.tie", tooltip="Both are equally good."),
        Binding("0", "judge('both_bad')", "both bad", id="label.both_bad", tooltip="Neither answer will do."),
        Binding("s", "judge('skip')", "skip", id="label.skip", tooltip="No verdict; it can come again at the end."),
        Binding("u", "undo", "undo", id="label.undo", tooltip="Take the last verdict back and show its pair."),
        Binding("c", "comment", "comment", id="label.comment", tooltip="Say something of this pair, with its verdict."),
        Binding("f", "freeze", "freeze", id="label.freeze", tooltip="Go to the pair sets, where f freezes this one."),
        Binding("r", "report", "arenas", id="label.report", tooltip="Go to the arenas and their win rates."),
        Binding("a", "again", "skipped again", id="label.again", tooltip="The skipped pairs come once more."),
        Binding("m", "pairs", "pair sets", id="label.pairs", tooltip="Go to the pair sets, where m makes one."),
        Binding("space,pagedown,ctrl+d", "page(1)", "on", id="label.page_down", show=False,
                tooltip="Both answers a page down."),
        Binding("pageup,ctrl+u", "page(-1)", "back", id="label.page_up", show=False, tooltip="Both a page up."),
        Binding("down", "line(1)", "line down", id="label.line_down", show=False, tooltip="Both answers a line down."),
        Binding("up", "line(-1)", "line up", id="label.line_up", show=False, tooltip="Both answers a line up."),
        Binding("p", "prompt", "prompt", id="label.prompt", show=False,
                tooltip="The next page of a prompt that is too long; after the last the first."),
        Binding("C", "amend", "comment last", id="label.amend", show=False, tooltip="Comment on the last verdict."),
    ]  # fmt: skip

    def __init__(self, subject: str = "", *, clock: KeyClock | None = None) -> None:
        super().__init__(subject)
        self._keys_clock = clock or KeyClock()
        self._sitting: Sitting | None = None
        self._opening: Opening[Sitting | None] = Opening(_give_back)
        self._saving = False
        self._guard_from: float | None = None
        """When the frame with the present pair was sent; None until it was."""
        self._pair_from = 0.0
        """The same, untouched by resizing: what a verdict's time counts from."""
        self._appearance = 0

    def compose_body(self) -> Iterable[Widget]:
        yield PairView(id="pair")
        end = TextView(id="end")
        end.can_focus = False
        yield end
        yield Line(id="saved")

    def on_mount(self) -> None:
        self.start_task("reading the pairs", self._read, self._begin, failed=self._refused)

    def on_unmount(self) -> None:
        self._opening.leave()

    def _read(self, task: Task) -> Sitting | None:
        who = self.workbench_app.settings.annotator_name
        return self._opening.open(lambda: open_sitting(self.workspace, self.subject, who, task.report))

    def _refused(self, error: BaseException) -> None:
        self.workbench_app.subjects.pop("label", None)
        self.complain(error)
        self._show_end([Block("This set cannot be opened.", "title"), Block(""), Block(str(error), "bad")])

    def _begin(self, sitting: Sitting | None) -> None:
        if sitting is None:
            words = "m goes to the pair sets, where m makes one of a dataset of answers or preferences."
            self._show_end([Block("There are no pairs to label yet.", "title"), Block(""), Block(words)])
            return
        self._sitting = sitting
        self.query_one("#saved", Line).show("blind: who wrote an answer is hidden, and which stands left is drawn")
        self.subject = self.workbench_app.subjects["label"] = sitting.name
        self._show_present()
        self.refresh_bindings()

    @property
    def _is_gone(self) -> bool:
        """Whether this screen was left while something went on in a thread."""
        return not self.is_attached or not self.query("#pair")

    # Which keys count.

    def on_key(self, event: Key) -> None:
        """Verdict keys are taken here, where the time at which they were read is known."""
        active = self.active_bindings.get(event.key)
        if active is None or not active.enabled or not active.binding.action.startswith(JUDGE):
            return
        event.stop()
        verdict = active.binding.action[len(JUDGE) : -2]
        self._judge(cast("ScreenVerdict", verdict), self._keys_clock.of(event))

    def action_judge(self, verdict: str) -> None:
        self._judge(cast("ScreenVerdict", verdict), self._keys_clock.now())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        sitting = self._sitting
        open_pair = sitting is not None and sitting.present is not None
        if action in ("judge", "comment", "page", "line", "prompt"):
            return open_pair
        if action in ("freeze", "report", "again"):
            if open_pair or sitting is None:
                return False
            arena = sitting.pair_set.kind == "arena"
            return {"freeze": not arena, "report": arena, "again": sitting.counts.skipped > 0}[action]
        if action == "pairs":
            return sitting is None
        return sitting is not None if action in ("undo", "amend") else True

    def action_back(self) -> None:
        if self._sitting is None:
            self.cancel_task()
            self.workbench_app.back()
        else:
            super().action_back()

    def on_resize(self, event: Resize) -> None:
        self._await_frame()

    def on_screen_resume(self) -> None:
        self._await_frame()

    def _await_frame(self) -> None:
        """The pair is drawn anew: no verdict until that has gone to the terminal, and `GUARD_S` more."""
        self._guard_from = None
        self._appearance += 1
        self.call_after_refresh(self._frame_sent, self._appearance)

    def _frame_sent(self, appearance: int) -> None:
        if appearance == self._appearance:
            self._guard_from = self._keys_clock.now()
            self._pair_from = self._pair_from or self._guard_from

    def _judge(self, verdict: ScreenVerdict, came: float) -> None:
        sitting = self._sitting
        if self.too_small or sitting is None or sitting.present is None:
            return
        if self._saving or self._guard_from is None or came < self._guard_from + GUARD_S:
            self.say(TOO_FAST, "bad")
            return
        took_s = came - self._pair_from
        self._save(lambda: sitting.judge(verdict, took_s), self._judged)

    # Saving.

    def _save(self, write: Callable[[], T], then: Callable[[T], None]) -> None:
        self._saving = True
        self.say("")  # before: a hint to a key that comes while it is saved must stay
        self.run_worker(self._saved(write, then), exit_on_error=True)

    async def _saved(self, write: Callable[[], T], then: Callable[[T], None]) -> None:
        """In a thread, so that a disk that hangs leaves the screen alive; the pair stays until it is done."""
        try:
            result = await asyncio.to_thread(write)
        except JudgedElsewhere as error:
            if not self._is_gone:
                self._show_present()
                self.say(str(error), "bad")
        except Exception as error:
            if not self._is_gone:
                self.say(f"NOT SAVED, the same pair is here: {error}", "bad")
            self.complain(error)
        else:
            if not self._is_gone:
                then(result)
        finally:
            self._saving = False

    def _judged(self, saved: Saved) -> None:
        words = f"{saved.took_s:.1f} s" if saved.took_s < 60 else f"{saved.took_s / 60:.0f} min"
        self.query_one("#saved", Line).show(f"saved #{saved.number}  {saved.said.words}  {words}")
        self._show_present()

    # What is shown.

    def _show_present(self) -> None:
        sitting = self._sitting
        if sitting is None:
            return
        present = sitting.present
        ended_before = self.has_class("-ended")
        self.say_where(progress_words(sitting.name, sitting.annotator, sitting.counts))
        self.set_class(present is None, "-ended")
        self.query_one("#pair", PairView).show(_texts(present) if present else None)
        self._pair_from = 0.0
        self._await_frame()
        if present is None:
            self.run_worker(self._tell_end(sitting), exit_on_error=True)
        else:
            self.run_worker(self._prepare_next(sitting), exclusive=True, group="ahead")
        if ended_before or present is None:
            self.refresh_bindings()

    async def _prepare_next(self, sitting: Sitting) -> None:
        await asyncio.sleep(GUARD_S / 2)  # the frame with the present pair goes first
        if self._is_gone:
            return
        following = sitting.upcoming
        view = self.query_one("#pair", PairView)
        if following is not None and view.size:
            texts, size = _texts(following), view.size
            view.keep_ready(texts, size, await asyncio.to_thread(lay_out, texts, size.width, size.height))

    async def _tell_end(self, sitting: Sitting) -> None:
        page = await asyncio.to_thread(end_page, sitting)
        if sitting.present is None and not self._is_gone:
            self._show_end([Block(text, style) for text, style in page])

    def _show_end(self, blocks: list[Block]) -> None:
        self.query_one("#end", TextView).show(blocks)
        self.set_class(True, "-ended")
        self.refresh_bindings()

    # The other keys.

    def action_page(self, by: int) -> None:
        self.query_one("#pair", PairView).scroll_answers(pages=by)

    def action_line(self, by: int) -> None:
        self.query_one("#pair", PairView).scroll_answers(lines=by)

    def action_prompt(self) -> None:
        self.query_one("#pair", PairView).turn_prompt()

    def action_undo(self) -> None:
        sitting = self._sitting
        if sitting is None:
            return
        if self._saving:
            self.say("still saving; press u again", "bad")
            return
        self._save(sitting.undo, self._undone)

    def _undone(self, said: Said) -> None:
        self.query_one("#saved", Line).show(f"taken back: {said.words}; this pair is open again")
        self._show_present()

    def action_comment(self) -> None:
        sitting = self._sitting
        if sitting is not None and sitting.present is not None and not self._saving:
            asked = AskText("A comment on this pair; it is saved with your verdict.", value=sitting.notes.comment)
            self.app.push_screen(asked, self._commented)

    def _commented(self, text: str | None) -> None:
        sitting = self._sitting
        if text is not None and sitting is not None and sitting.present is not None:
            notes = replace(sitting.notes, comment=text.strip())
            words = "the comment goes with your verdict" if notes.comment else "no comment"
            self._save(lambda: sitting.add(notes), lambda _: self.query_one("#saved", Line).show(words))

    def action_amend(self) -> None:
        sitting = self._sitting
        if sitting is not None and not self._saving:
            asked = AskText("A comment on your last verdict; the verdict stays.")
            self.app.push_screen(asked, lambda text: self._amend(sitting, text))

    def _amend(self, sitting: Sitting, text: str | None) -> None:
        if text is not None and not self._saving:
            self._save(
                lambda: sitting.amend(text),
                lambda _: self.query_one("#saved", Line).show("the comment is saved with your last verdict"),
            )

    def action_again(self) -> None:
        if self._sitting is not None and not self._saving:
            self._sitting.show_skipped_again()
            self._show_present()

    def action_freeze(self) -> None:
        self.workbench_app.go("pairs", self.subject)

    def action_report(self) -> None:
        self.workbench_app.go("compare", self.subject)

    def action_pairs(self) -> None:
        self.workbench_app.go("pairs")


def _texts(pair: ShownPair) -> PairTexts:
    return PairTexts(pair.prompt, pair.left, pair.right)


def _give_back(sitting: Sitting | None) -> None:
    if sitting is not None:
        sitting.close()
