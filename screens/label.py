"""Label: one pair at a time, blind; one key is one verdict, and it is on the disk before the next pair shows.

Owns the keys and what is shown. Which keys count, and how one thing at a time is saved, is `label_saving`; what goes
with a verdict is `label_notes`. Invariant: nothing that is shown says where an answer comes from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, cast

from textual.binding import Binding, BindingType
from textual.events import Key
from textual.widget import Widget

from screens.label_browse import Browse
from screens.label_notes import NotingStation
from screens.label_saving import GUARD_S, KeyClock, SavedLine
from screens.leaving import Opening
from screens.line import Line
from screens.modals import AskText
from screens.narrow_updates import NarrowCompositor, draw_now
from screens.pair_layout import PairTexts
from screens.pair_view import PairView
from screens.quiet_garbage import QuietGarbage
from screens.tasks import Task
from screens.text_view import Block, TextView
from screens.typing_ahead import typed_ahead
from workbench.labeling import Sitting
from workbench.labeling_list import listed_pairs
from workbench.labeling_opening import open_sitting
from workbench.labeling_state import Said, Saved, ScreenVerdict, ShownPair
from workbench.labeling_words import end_page, far_words, question_words, state_words

TOO_FAST = "too fast: that key came before this pair could be read; press it again"
JUDGE = ("judge(", "judge_five(")
BLIND = "blind: who wrote it is hidden, the sides are drawn"


class Label(NotingStation):
    """Judge the pairs of a set or an arena."""

    CSS_PATH = "label.tcss"
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "judge('left')", "left", id="label.left", tooltip="The left (or upper) answer is better."),
        Binding("2", "judge('right')", "right", id="label.right", tooltip="The right (or lower) answer is better."),
        Binding("1", "judge_five('left', 2)", "left much", id="label.five_left_much", tooltip="The left one by far."),
        Binding("2", "judge_five('left', 1)", "left", id="label.five_left", tooltip="The left one is better."),
        Binding("3", "judge('tie')", "tie", id="label.tie", tooltip="Both are equally good."),
        Binding("4", "judge_five('right', 1)", "right", id="label.five_right", tooltip="The right one is better."),
        Binding("5", "judge_five('right', 2)", "right much", id="label.five_right_much",
                tooltip="The right one by far."),
        Binding("0", "judge('both_bad')", "both bad", id="label.both_bad", tooltip="Neither answer will do."),
        Binding("s", "judge('skip')", "skip", id="label.skip", tooltip="No verdict; it can come again at the end."),
        Binding("u", "undo", "undo", id="label.undo", tooltip="Take back what was done last, and show its pair."),
        Binding("ctrl+r", "redo", "redo", show=False, id="label.redo", tooltip="Do again what was taken back."),
        Binding("e", "better", "edit", id="label.better", tooltip="Write a better answer than both."),
        Binding("d", "diff", "diff", id="label.diff", tooltip="Mark the words that only one of the answers has."),
        Binding("f", "flag", "flag", id="label.flag", tooltip="Something is wrong with this pair; again takes it off."),
        Binding("t", "tags", "tags", id="label.tags", tooltip="Reasons for your verdict, of a list or your own."),
        Binding("c", "comment", "comment", id="label.comment", tooltip="Say something of this pair, with its verdict."),
        Binding("C", "amend", "comment last", id="label.amend", show=False, tooltip="Comment on the last verdict."),
        Binding("f", "freeze", "freeze", id="label.freeze", tooltip="Go to the pair sets, where f freezes this one."),
        Binding("r", "report", "arenas", id="label.report", tooltip="Go to the arenas and their win rates."),
        Binding("a", "again", "skipped again", id="label.again", tooltip="The skipped pairs come once more."),
        Binding("m", "pairs", "pair sets", id="label.pairs", tooltip="Go to the pair sets, where m makes one."),
        Binding("b", "browse", "browse", id="label.browse", tooltip="All pairs, to look at one again and revise it."),
        Binding("colon", "go_to", "go to a pair", show=False, id="label.go_to", tooltip="Go to a pair by its number."),
        Binding("space,pagedown,ctrl+d", "page(1)", "on", id="label.page_down", show=False,
                tooltip="Both answers a page down."),
        Binding("pageup,ctrl+u", "page(-1)", "back", id="label.page_up", show=False, tooltip="Both a page up."),
        Binding("down", "line(1)", "line down", id="label.line_down", show=False, tooltip="Both answers a line down."),
        Binding("up", "line(-1)", "line up", id="label.line_up", show=False, tooltip="Both answers a line up."),
        Binding("p", "prompt", "prompt", id="label.prompt", show=False,
                tooltip="The next page of a prompt that is too long; after the last the first."),
    ]  # fmt: skip

    NEVER_TOGETHER: ClassVar[tuple[frozenset[str], ...]] = (
        frozenset({"label.left", "label.right"}),
        frozenset({"label.five_left_much", "label.five_left", "label.five_right", "label.five_right_much"}),
    )
    """Keys of the scales: a set has one scale."""

    def __init__(self, subject: str = "", *, clock: KeyClock | None = None) -> None:
        super().__init__(subject, clock=clock)
        self._opening: Opening[Sitting | None] = Opening(_give_back)
        self._compositor = NarrowCompositor()
        self._garbage = QuietGarbage()
        self._verdict_keys: dict[str, Said] = {}
        """Which keys are verdicts on the scale of this set, once it is open."""

    @property
    def help_words(self) -> str:
        """The guidelines of the set, and what one does here."""
        guidelines = self._sitting.pair_set.form.guidelines if self._sitting else ""
        return f"Guidelines of {self.subject}\n\n{guidelines}\n\n{self.HELP}" if guidelines else self.HELP

    def compose_body(self) -> Iterable[Widget]:
        yield PairView(id="pair")
        end = TextView(id="end")
        end.can_focus = False
        yield end
        yield Line(id="question")
        yield SavedLine(id="saved")

    def on_mount(self) -> None:
        self.start_task("reading the pairs", self._read, self._begin, failed=self._refused)

    def on_unmount(self) -> None:
        self._garbage.end()
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
        self.set_class(bool(sitting.pair_set.form.criteria), "-asks")
        self.did(sitting.notice or BLIND)
        self.subject = self.workbench_app.subjects["label"] = sitting.name
        self._garbage.begin()
        self.show_present()
        self.refresh_bindings()

    # Which keys count.

    async def on_key(self, event: Key) -> None:
        """Verdict keys are taken here, where the time at which they were read is known; and all others, in their order.

        Textual runs a binding when a key has gone up to the app: by then the next keys of a burst (a slow link) are
        here. What follows a `:` is no verdict.
        """
        if self.app.screen is not self:
            event.stop()  # further up it could be a verdict by the time it is looked at, and without its own time
            await typed_ahead(self.app.screen, event)
            return
        if not self._verdict_keys and self._sitting is not None and self._sitting.present is not None:
            self._verdict_keys = dict(self._read_verdict_keys())
        said = self._verdict_keys.get(event.key)
        if said is not None:
            event.stop()
            self._judge(said, self._keys_clock.of(event))
        elif (active := self.active_bindings.get(event.key)) is not None and active.enabled:
            event.stop()
            await self.app.run_action(active.binding.action, active.node)

    def _read_verdict_keys(self) -> Iterator[tuple[str, Said]]:
        for key, active in self.active_bindings.items():
            if active.enabled and active.binding.action.startswith(JUDGE):
                verdict, *strength = active.binding.action.split("(")[1].rstrip(")").split(", ")
                yield key, Said(cast("ScreenVerdict", verdict.strip("'")), int(strength[0]) if strength else 1)

    def action_judge(self, verdict: str) -> None:
        self.action_judge_five(verdict, 1)

    def action_judge_five(self, verdict: str, strength: int) -> None:
        self._judge(Said(cast("ScreenVerdict", verdict), strength), self._keys_clock.now())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        sitting = self._sitting
        open_pair = sitting is not None and sitting.present is not None
        if action in ("judge", "judge_five"):
            five = sitting is not None and sitting.pair_set.form.scale == "five-way"
            sided = parameters[0] in ("left", "right")
            return open_pair and (five if action == "judge_five" else not (five and sided))
        if action in ("comment", "flag", "tags", "better", "diff", "page", "line", "prompt"):
            return open_pair
        if action in ("freeze", "report", "again"):
            if open_pair or sitting is None:
                return False
            arena = sitting.pair_set.kind == "arena"
            return {"freeze": not arena, "report": arena, "again": sitting.counts.skipped + sitting.counts.left > 0}[
                action
            ]
        if action == "pairs":
            return sitting is None
        return sitting is not None if action in ("undo", "redo", "amend", "browse", "go_to") else True

    def action_back(self) -> None:
        sitting = self._sitting
        if sitting is None:
            self.cancel_task()
            self.workbench_app.back()
        elif sitting.revises and not self._saving:
            sitting.go_on()
            self.did("back to what is open")
            self.show_present()
        else:
            super().action_back()

    def _judge(self, said: Said, came: float) -> None:
        sitting = self._sitting
        if self.too_small or sitting is None or sitting.present is None:
            return
        if not self.counts(came):
            self.say(TOO_FAST, "bad")
            return
        took_s = came - self._pair_from
        self.save(lambda: sitting.judge(said.verdict, took_s, said.strength), self._judged)

    def _judged(self, saved: Saved) -> None:
        words = f"{saved.took_s:.1f} s" if saved.took_s < 60 else f"{saved.took_s / 60:.0f} min"
        self.show_present(f"saved #{saved.number}  {saved.said.words}  {words}")

    # What is shown.

    def show_present(self, did: str | None = None) -> None:
        sitting = self._sitting
        if sitting is None:
            return
        present = sitting.present
        ended_before = self.has_class("-ended")
        self.query_one("#saved", SavedLine).tell(did=did, far=far_words(sitting.counts))
        self.show_state()
        self.set_class(present is None, "-ended")
        view = self.query_one("#pair", PairView)
        is_next = view.texts is not None and present is not None  # else the keys change, too
        view.show(_texts(present) if present else None)
        self._pair_from = 0.0
        self.await_frame(at_once=is_next)
        if present is None:
            self.run_worker(self._tell_end(sitting), exit_on_error=True)
        if ended_before or present is None:
            self.refresh_bindings()

    def draws_now(self) -> bool:
        lines = (self.query_one(name) for name in ("#pair", "#saved", "#question", "#header", "#message"))
        return draw_now(self, *lines)

    def in_quiet(self) -> None:
        """The pair is there, and is read: make the next one ready."""
        if self._sitting is not None and self._sitting.present is not None:
            self.run_worker(self._prepare_next(self._sitting), exclusive=True, group="ahead")

    def show_state(self) -> None:
        if self._sitting is not None:
            self.say_where(state_words(self._sitting))
            self.query_one("#question", Line).show((question_words(self._sitting), "bold"))

    async def _prepare_next(self, sitting: Sitting) -> None:
        await asyncio.sleep(GUARD_S / 4)  # the frame with the present pair goes first
        if self.is_gone:
            return
        following = sitting.upcoming
        view = self.query_one("#pair", PairView)
        if following is not None and view.size:
            view.keep_ready(await asyncio.to_thread(view.making_ready(_texts(following))))
        self._garbage.collect()

    async def _tell_end(self, sitting: Sitting) -> None:
        page = await asyncio.to_thread(end_page, sitting)
        if sitting.present is None and not self.is_gone:
            self._show_end([Block(text, style) for text, style in page])

    def _show_end(self, blocks: list[Block]) -> None:
        self.query_one("#end", TextView).show(blocks)
        self.set_class(True, "-ended")
        self.refresh_bindings()

    # The other keys.

    def action_page(self, by: int) -> None:
        self.query_one("#pair", PairView).scroll_answers(pages=by)
        self.in_quiet()

    def action_line(self, by: int) -> None:
        self.query_one("#pair", PairView).scroll_answers(lines=by)
        self.in_quiet()

    def action_prompt(self) -> None:
        self.query_one("#pair", PairView).turn_prompt()
        self.in_quiet()

    def action_diff(self) -> None:
        view = self.query_one("#pair", PairView)
        if view.marks:
            view.mark(False)
            self.in_quiet()
        else:
            self.run_worker(self._mark(view), exclusive=True, group="diff")

    async def _mark(self, view: PairView) -> None:
        layout = view.layout_of_pair
        if layout is not None:
            await asyncio.to_thread(lambda: layout.diff)
        if not self.is_gone:
            view.mark(True)
            self.in_quiet()

    def action_undo(self) -> None:
        self._back_and_forth("u", lambda sitting: sitting.undo(), "taken back")

    def action_redo(self) -> None:
        self._back_and_forth("ctrl+r", lambda sitting: sitting.redo(), "done again")

    def _back_and_forth(self, key: str, act: Callable[[Sitting], Said], words: str) -> None:
        sitting = self._sitting
        if sitting is None:
            return
        if self._saving:
            self.say(f"still saving; press {key} again", "bad")
            return

        def done(said: Said) -> None:
            is_open = "" if sitting.revises or key != "u" else "; open again"
            self.did(f"{words}: {said.words}{is_open}")
            self.show_present()

        self.save(lambda: act(sitting), done)

    def action_go_to(self) -> None:
        sitting = self._sitting
        if sitting is None or self._saving:
            return
        total = sitting.counts.total

        def problem(text: str) -> str:
            number = text.strip().removeprefix(":")
            fits = number.isascii() and number.isdigit() and len(number) < 10 and 1 <= int(number) <= total
            return "" if fits else f"a number from 1 to {total:,}; ctrl+p goes to other places"

        asked = AskText(f"Which pair, 1 to {total:,}?", check=problem)
        self.app.push_screen(asked, lambda text: self._go_to(int(text.strip().removeprefix(":"))) if text else None)

    def action_browse(self) -> None:
        sitting = self._sitting
        if sitting is not None and not self._saving:
            listed = Browse(lambda: listed_pairs(sitting), sitting.number)
            self.app.push_screen(listed, lambda one: self._go_to(one) if one else None)

    def _go_to(self, number: int) -> None:
        sitting = self._sitting
        if sitting is not None and not self._saving:

            def there(_: None) -> None:
                again = "a new verdict replaces the old one; esc goes on with what is open"
                self.did(again if sitting.revises else f"pair {number:,}")
                self.show_present()

            self.save(lambda: sitting.go_to(number), there)

    def action_again(self) -> None:
        if self._sitting is not None and not self._saving:
            self._sitting.show_skipped_again()
            self.show_present()

    def action_freeze(self) -> None:
        if self._sitting is not None:  # of a third voice, too: it is the set whose disagreements these are
            self.workbench_app.go("pairs", self._sitting.pair_set.name)

    def action_report(self) -> None:
        self.workbench_app.go("compare", self.subject)

    def action_pairs(self) -> None:
        self.workbench_app.go("pairs")


def _texts(pair: ShownPair) -> PairTexts:
    return PairTexts(pair.prompt, pair.left, pair.right)


def _give_back(sitting: Sitting | None) -> None:
    if sitting is not None:
        sitting.close()
