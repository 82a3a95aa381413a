"""Models side by side: the same prompts answered by two to four of them, blind arenas, and win rates.

Owns the three views (what is compared, the answers, the arenas) and the keys between them. Invariant: models answer in
a child process that ends when the person cancels or leaves; answers that are kept are never asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input

from screens.answers_view import AnswersView
from screens.compare_answers import AnswersPane
from screens.compare_arenas import ArenasPane
from screens.compare_setup import SetupPane
from screens.line import Line
from screens.modals import AskText, Choice, Question, Reading
from screens.row_list import RowList
from screens.sample_rule import let_rule_judge
from screens.station import Station
from screens.tasks import Task
from workbench.arena_list import ArenaReader, ArenaState, free_arena_name
from workbench.known_models import KnownModel
from workbench.labeling_subject import ARENA
from workbench.pair_form import NEW_ARENA
from workbench.pair_sets import PairSet
from workbench.side_by_side import (
    Comparison,
    PromptChoice,
    Setup,
    compare,
    model_choices,
    opening_setup,
    prompt_choices,
)
from workbench.terminal_output import counted
from workbench.text_wrapping import cut
from workbench.workspace import name_problem

READ_EVERY_S = 4.0
MODEL_CELLS = 20
"""Of a model's name while it is asked, so that the time left has room beside it."""
SETUP, ANSWERS, ARENAS = "setup", "answers", "arenas"
ASKED_BY_THE_GUIDE = 24
"""Prompts: enough for an interval that says something, and few enough to be read."""


@dataclass(frozen=True)
class Offer:
    """What there is to choose from."""

    models: tuple[KnownModel, ...]
    prompts: tuple[PromptChoice, ...]
    opening: Setup
    problem: str


class Compare(Station):
    """Ask models the same, read what they say, and find out which is better."""

    NAME = "compare"
    TITLE = "compare"
    CSS_PATH = "compare.tcss"
    HELP = (
        "Pick two to four models and a set of prompts, and w lets each model answer the first of them. The answers "
        "stand side by side, under the models' names; n and N go from prompt to prompt, d to the next where they "
        "differ. A prompt marked = has the same answer from all.\n\n"
        "Reading is not measuring. b sends two of the models to a blind arena: the same answers as pairs to judge, "
        "without names and in a hidden order. r shows what the verdicts say: the share of pairs that the better model "
        "wins, ties counting half, with its 95 % interval. While the interval holds 0.5, no difference can be told "
        "yet; more pairs make it narrower.\n\n"
        "m there makes an arena by a form, with settings of its own. R lets the sample rule judge an arena of the "
        "sample data. Such verdicts are synthetic and are called so.\n\n"
        "Answers are kept: a comparison that was asked before opens at once, and another seed draws other answers."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "pick", "pick", key_display="space", id="compare.pick",
                tooltip="Pick the model or the prompts under the cursor, or put them back."),
        Binding("w", "ask", "ask", id="compare.ask", tooltip="Let the picked models answer, and show the answers."),
        Binding("n,l,right", "prompt(1)", "next", id="compare.next", tooltip="The next prompt and its answers."),
        Binding("N,h,left", "prompt(-1)", "previous", id="compare.previous", tooltip="The prompt before."),
        Binding("d", "differing", "differing", id="compare.differing",
                tooltip="The next prompt to which the models gave different answers."),
        Binding("b", "blind", "blind arena", id="compare.blind",
                tooltip="Send two of the models to a blind arena, with these answers."),
        Binding("R", "rule", "rule judges", id="compare.rule",
                tooltip="Let the sample rule judge the arena; its verdicts are synthetic."),
        Binding("r", "report", "arenas", id="compare.report", tooltip="The arenas and their win rates."),
        Binding("p", "whole_prompt", "prompt", id="compare.prompt", tooltip="Read the whole prompt."),
        Binding("a", "answers", "answers", id="compare.answers", tooltip="Back to the answers."),
        Binding("m", "other_model", "other model", id="compare.model",
                tooltip="Type a model that is not in the list: a folder, a .gguf file, hf:ORG/NAME."),
        Binding("m", "new_arena", "make an arena", id="compare.new_arena",
                tooltip="Make an arena of two models by a form: which prompts, how many answers, how they are drawn."),
        Binding("slash", "filter", "filter", id="compare.filter", tooltip="Keep the models and prompts with a text."),
    ]  # fmt: skip

    def __init__(self, subject: str = "") -> None:
        super().__init__(subject)
        self._offered: Offer | None = None
        self._models: tuple[str, ...] = ()
        """The picks; the thread that reads what there is looks at them."""
        self._wanted_arena = subject.removeprefix(ARENA) if subject.startswith(ARENA) else ""
        self._wanted_model = "" if self._wanted_arena else subject

    @property
    def comparison(self) -> Comparison | None:
        """What was asked last, while this screen is open."""
        return self.query_one(AnswersPane).comparison

    @property
    def view(self) -> str:
        """setup, answers or arenas."""
        return ANSWERS if self.has_class("-answers") else ARENAS if self.has_class("-arenas") else SETUP

    def compose_body(self) -> Iterable[Widget]:
        yield Horizontal(SetupPane(id="setup"), ArenasPane(id="arenas"), id="desk")
        yield Line(id="newest-arena")
        yield AnswersPane(id="answers")

    def on_mount(self) -> None:
        reader = ArenaReader(self.workspace)
        self.watch_files(self._read_offer, self._show_offer, every_s=READ_EVERY_S)
        self.watch_files(reader.read, self._show_arenas, every_s=READ_EVERY_S)
        self._say_where()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        views = {
            "pick": (SETUP,), "ask": (SETUP,), "other_model": (SETUP,), "filter": (SETUP,), "prompt": (ANSWERS,),
            "differing": (ANSWERS,), "blind": (ANSWERS,), "whole_prompt": (ANSWERS,),
            "rule": (ARENAS,), "new_arena": (ARENAS,), "report": (SETUP, ANSWERS), "answers": (SETUP, ARENAS),
        }  # fmt: skip
        if self.view not in views.get(action, (self.view,)) or (action == "answers" and self.comparison is None):
            return False
        return super().check_action(action, parameters)

    def action_back(self) -> None:
        if self._job is not None or isinstance(self.focused, Input) or self.view == SETUP:
            super().action_back()
        else:
            self._look_at(SETUP)

    # What is compared.

    def _read_offer(self) -> Offer:
        """What there is, and what to begin with; the beginning is decided once."""
        before = self._offered
        if before is None:
            opening, problem = opening_setup(self.workspace, self._wanted_model)
            if self.workbench_app.guide is not None:
                opening = replace(opening, count=ASKED_BY_THE_GUIDE)
        else:
            opening, problem = before.opening, before.problem
        also = self._models if before else opening.models
        return Offer(
            tuple(model_choices(self.workspace, also)), tuple(prompt_choices(self.workspace)), opening, problem
        )

    def _show_offer(self, offer: Offer) -> None:
        first, self._offered = self._offered is None, offer
        setup = self.query_one(SetupPane)
        setup.offer(offer.models, offer.prompts)
        if not first:
            return
        setup.take(offer.opening)
        if offer.problem:
            self.say(offer.problem, "bad")
        if self.view == SETUP and not self._wanted_arena:
            setup.focus_first()

    @on(SetupPane.Changed)
    def _picked(self) -> None:
        self._models = self.query_one(SetupPane).setup.models
        self._say_where()

    @on(SetupPane.Asked)
    def _asked(self) -> None:
        self.action_ask()

    def action_pick(self) -> None:
        self.query_one(SetupPane).pick()

    def action_other_model(self) -> None:
        question = AskText("Which model?", placeholder="./folder  ./file.gguf  hf:ORG/NAME  run:ID@STEP")
        self.app.push_screen(question, lambda name: self.query_one(SetupPane).add_model(name) if name else None)

    def action_ask(self) -> None:
        """Let the models answer, in a child process."""
        setup = self.query_one(SetupPane).setup
        if problem := setup.problem():
            self.say(problem, "bad")
            return

        def work(task: Task) -> Comparison:
            def tell(done: float, total: float, words: str) -> None:
                task.report(done, total, cut(words, MODEL_CELLS))

            return compare(self.workspace, setup, progress=tell)

        self.start_task(f"asking {len(setup.models)} models", work, self.show_comparison)

    # The answers.

    def show_comparison(self, comparison: Comparison) -> None:
        """Show these answers, from the first prompt on."""
        self.query_one(AnswersPane).show(comparison)
        too_long = int(comparison.answered.source.get("too_long", 0))
        self._look_at(ANSWERS)
        said = (
            f"{comparison.asked_now} models answered"
            if comparison.asked_now
            else "kept from before: nobody was asked again"
        )
        left_out = f"; {too_long} prompts left a model no room and are left out" if too_long else ""
        self.say(said + left_out, "good")

    def action_answers(self) -> None:
        self._look_at(ANSWERS)

    def action_prompt(self, by: int) -> None:
        self.query_one(AnswersPane).move(by)

    def action_differing(self) -> None:
        if not self.query_one(AnswersPane).move_to_differing():
            self.say("all answers to every prompt are the same")

    def action_whole_prompt(self) -> None:
        self.app.push_screen(Reading(self.query_one(AnswersPane).whole_prompt()))

    # The blind arena.

    def action_blind(self) -> None:
        """Two of the models, a name, and then judging."""
        comparison = self.comparison
        if comparison is None:
            return
        names = comparison.names
        couples = [two for two in combinations(range(len(names)), 2) if comparison.differing(*two)]
        if not couples:
            self.say("all answers are the same: nothing to judge; ask more prompts, or with another temperature", "bad")
        elif len(couples) == 1:
            self._name_arena(comparison, couples[0])
        else:
            choices = [
                Choice(str(key), f"{names[one]} against {names[other]}")
                for key, (one, other) in enumerate(couples, start=1)
            ]
            question = Question("Which two go to a blind arena?", choices)
            self.app.push_screen(
                question, lambda key: self._name_arena(comparison, couples[int(key) - 1]) if key else None
            )

    def _name_arena(self, comparison: Comparison, couple: tuple[int, int]) -> None:
        first, second = couple

        def make(name: str | None) -> None:
            if name is not None:
                self.start_task(
                    f"making arena {name.strip()}",
                    lambda task: comparison.as_arena(name.strip(), first, second),
                    self._arena_made,
                )

        differing = comparison.differing(first, second)
        question = AskText(
            f"{comparison.names[first]} against {comparison.names[second]}, {differing} "
            f"pair{'' if differing == 1 else 's'} to judge blindly. What is the arena called?",
            value=free_arena_name(self.workspace, comparison.names[first], comparison.names[second]),
            check=lambda name: name_problem(self.workspace, "arena", name.strip()),
        )
        self.app.push_screen(question, make)

    def _arena_made(self, made: PairSet) -> None:
        same = made.info.identical_left_out
        ties = f"; {same} with the same answer count as ties" if same else ""
        self.workbench_app.tell(f"{made.name}: {made.info.rows} pairs to judge, blind{ties}")
        self.workbench_app.open("label", ARENA + made.name)

    # The arenas.

    def action_report(self) -> None:
        self._look_at(ARENAS)
        self.wake()

    def action_new_arena(self) -> None:
        self.workbench_app.open("make", NEW_ARENA)

    def action_rule(self) -> None:
        """Let the sample rule judge, where it knows the domain and the person agrees."""
        state = self.query_one(ArenasPane).state
        if state is None or state.damaged:
            self.say("there is no arena to judge")
        else:
            let_rule_judge(self, ARENA + state.name, self.wake)

    @on(RowList.Opened, "#arena-list")
    def _arena_opened(self, event: RowList.Opened) -> None:
        state = self.query_one(ArenasPane).state
        if state is None or state.damaged:
            return
        if state.open:
            self.workbench_app.open("label", ARENA + state.name)
        else:
            self.say(f"every pair of {state.name} is judged or skipped")

    def _show_arenas(self, states: tuple[ArenaState, ...]) -> None:
        pane = self.query_one(ArenasPane)
        pane.show(states)
        if self._wanted_arena:
            pane.move_to(self._wanted_arena)
            self._wanted_arena = ""
            self._look_at(ARENAS)
        newest = (
            [
                (f"  r {len(states)} arena{'' if len(states) == 1 else 's'}", "bold"),
                (f" · {states[0].name}: {states[0].words}", "$text-muted"),
            ]
            if states
            else []
        )
        self.query_one("#newest-arena", Line).show(*newest)

    # Where one is.

    def _look_at(self, view: str) -> None:
        self.set_class(view == ANSWERS, "-answers")
        self.set_class(view == ARENAS, "-arenas")
        if view == ANSWERS:
            self.query_one(AnswersView).focus()
        elif view == ARENAS:
            self.query_one("#arena-list").focus()
        else:
            self.query_one(SetupPane).focus_first()
        self.say("")
        self._say_where()
        self.refresh_bindings()

    def on_descendant_focus(self) -> None:
        """Where both stand side by side, the arenas are the view while the focus is among them."""
        if self.view != ANSWERS:
            self.set_class(self.focused is not None and self.focused.id == "arena-list", "-arenas")
            self.refresh_bindings()

    def _say_where(self) -> None:
        setup = self.query_one(SetupPane).setup if self.is_mounted else Setup()
        if self.view == ANSWERS and self.comparison is not None:
            self.say_where(f"{' · '.join(self.comparison.names)} · {self.comparison.setup.prompts}")
        elif setup.models:
            self.say_where(f"{counted(len(setup.models), 'model')} · {setup.prompts}")
        else:
            self.say_where("")
