"""The samples of a run on Curves: one answer at a time, step by step, beside what the model said at another step.

Owns which place and which prompt are looked at, beside which other step, and what is marked. Invariants: at the newest
place it follows, so that what comes then is shown by itself; a flag is on the disk before it is said to be set.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Resize
from textual.widget import Widget

from engine.run.metrics_log import Supersession
from screens.line import Line
from screens.marked_view import MarkedView
from screens.modals import AskText
from workbench.errors import WorkbenchError
from workbench.run_list import Run
from workbench.run_samples import Place, RunSamples, Sample, summary_of
from workbench.sample_flags import flag_of, flags_of, pairs_of_flags, set_flag
from workbench.sample_marks import SIGNS_TOLD, Piece, beside, diff_lines, plain_lines, token_lines

if TYPE_CHECKING:
    from screens.station import Station

MARKS = ("words", "tokens", "none")


class SamplesPage(Container):
    """One answer of one place, with a line above that says which."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n,right", "step(1)", "later", id="curves.later", tooltip="The samples of the next step."),
        Binding("N,left", "step(-1)", "earlier", id="curves.earlier", tooltip="The samples of the step before."),
        Binding("j,down", "prompt(1)", "prompt", id="curves.next_prompt", tooltip="The answer to the next prompt."),
        Binding("k,up", "prompt(-1)", "", show=False, id="curves.previous_prompt", tooltip="The prompt before."),
        Binding("b", "beside", "beside", id="curves.beside",
                tooltip="Compare the others with this step; at first it is the first one."),
        Binding("d", "marks", "marks", id="curves.marks",
                tooltip="Mark words that differ, tokens by log-ratio to the reference, or nothing."),
        Binding("F", "flag", "flag", id="curves.flag",
                tooltip="Flag the answer, or take the flag back: it waits for a pair set, beside the other step's."),
        Binding("M", "make_pairs", "make pairs", id="curves.make_pairs",
                tooltip="A pair set of all flagged answers of this run, to be judged blind."),
    ]  # fmt: skip

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._run: Run | None = None
        self._samples: RunSamples | None = None
        self._superseded = Supersession()
        self._place: Place | None = None
        """Where in the samples; None follows the newest."""
        self._other: Place | None = None
        """The place that is compared with; None for the first of the same kind."""
        self._prompt = 0
        self._marks = MARKS[0]

    def compose(self) -> Iterable[Widget]:
        yield Line(id="place")
        yield MarkedView(id="samples-text")

    def show_run(self, run: Run | None, samples: RunSamples | None) -> None:
        """Show another run, from its newest place on."""
        self._run, self._samples, self._place, self._other, self._prompt = run, samples, None, None, 0

    def show(self, superseded: Supersession, *, top: bool = False) -> None:
        """Show what there is now."""
        self._superseded = superseded
        line, page = self.query_one("#place", Line), self.query_one("#samples-text", MarkedView)
        places = self._places()
        if page.size.width == 0:
            return  # not laid out yet; it is shown when it is
        if not places or self._samples is None:
            line.show(("no samples yet: they come with the probe", "$text-muted"))
            page.show([])
            return
        at = self._at(places)
        place = places[at]
        found = self._samples.at(place, superseded)
        self._prompt = max(0, min(self._prompt, len(found) - 1))
        other_place, other = self._beside(places, place, found[self._prompt])
        line.show(
            (f"step {place[0]:,} · {place[1]}", "bold"),
            f" · {at + 1} of {len(places)} · {summary_of(found)} · prompt {self._prompt + 1} of {len(found)}",
        )
        page.show(self._lines(found[self._prompt], place, other, other_place, page.room), top=top)

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self.show, self._superseded)

    # What is shown of one answer.

    def _lines(
        self, sample: Sample, place: Place, other: Sample | None, other_place: Place, room: int
    ) -> list[list[Piece]]:
        flagged = self._is_flagged(place, sample)
        lines = plain_lines(sample.prompt, room, "faint")
        lines.append([(f"{'F ' if flagged else ''}{sample.figures}", "accent")])
        if self._marks == "tokens":
            if sample.ends:
                return [*lines, *token_lines(sample, room), [("", "")], [(SIGNS_TOLD, "faint")]]
            return [*lines, *plain_lines(sample.completion or "(nothing)", room),
                    [("where its tokens end was not written down, so none is marked", "faint")]]  # fmt: skip
        if self._marks == "none" or other is None or other_place == place:
            return [*lines, *plain_lines(sample.completion or "(nothing)", room)]
        mine, theirs, words = diff_lines(sample, other, room)
        return [*lines, *mine, [("", "")], [(f"step {other_place[0]:,}: {words}", "title")],
                [(other.figures, "accent")], *theirs]  # fmt: skip

    def _beside(self, places: list[Place], place: Place, sample: Sample) -> tuple[Place, Sample | None]:
        """The place that is compared with, and its answer to the same prompt."""
        first = next((one for one in places if one[1] == place[1]), place)
        other = self._other if self._other in places else first
        if self._samples is None or other is None:
            return place, None
        return other, beside(sample, self._samples.at(other, self._superseded))

    def _is_flagged(self, place: Place, sample: Sample) -> bool:
        if self._run is None:
            return False
        told = (place[0], place[1], sample.prompt, sample.completion)
        return any((flag.step, flag.source, flag.prompt, flag.completion) == told for flag in flags_of(self._run))

    # Keys.

    def action_step(self, by: int) -> None:
        if places := self._places():
            wanted = max(0, min(len(places) - 1, self._at(places) + by))
            self._place = None if wanted == len(places) - 1 else places[wanted]
            self.show(self._superseded)

    def action_prompt(self, by: int) -> None:
        self._prompt = max(0, self._prompt + by)
        self.show(self._superseded, top=True)

    def action_beside(self) -> None:
        if places := self._places():
            self._other = places[self._at(places)]
            self._station.say(f"the other steps are compared with step {self._other[0]:,} now")
            self.show(self._superseded)

    def action_marks(self) -> None:
        self._marks = MARKS[(MARKS.index(self._marks) + 1) % len(MARKS)]
        told = {"words": "words that the other step has not", "tokens": f"log-ratio to the reference: {SIGNS_TOLD}"}
        self._station.say(f"marked: {told.get(self._marks, 'nothing')}")
        self.show(self._superseded)

    def action_flag(self) -> None:
        places = self._places()
        if not places or self._samples is None or self._run is None:
            return
        place = places[self._at(places)]
        sample = self._samples.at(place, self._superseded)[self._prompt]
        told = (place[0], place[1], sample.prompt, sample.completion)
        try:
            for flag in flags_of(self._run):
                if (flag.step, flag.source, flag.prompt, flag.completion) == told:
                    set_flag(self._run, flag, flagged=False)
                    break
            else:
                set_flag(self._run, flag_of(place, sample, *self._beside(places, place, sample)), flagged=True)
        except WorkbenchError as error:
            self._station.say(str(error), "bad")
            return
        self._station.say(f"{len(flags_of(self._run)):,} flagged in this run; M makes a pair set of them")
        self.show(self._superseded)

    def action_make_pairs(self) -> None:
        run = self._run
        if run is None:
            return
        count = len(flags_of(run))
        if not count:
            self._station.say("nothing is flagged yet; F flags the answer that is shown", "bad")
            return

        def make(name: str | None) -> None:
            if name:
                self._station.start_task(
                    f"making {name}",
                    lambda task: pairs_of_flags(run, name),
                    lambda made: self._station.workbench_app.tell(f"{made.name}: {made.info.rows:,} pairs to label"),
                )

        question = f"Name of the pair set of {count:,} flagged answers?"
        self.app.push_screen(AskText(question, value=f"flagged-{run.name}"), make)

    @property
    def _station(self) -> Station:
        return cast("Station", self.screen)

    def _places(self) -> list[Place]:
        return [] if self._samples is None else self._samples.places(self._superseded)

    def _at(self, places: list[Place]) -> int:
        return places.index(self._place) if self._place in places else len(places) - 1
