"""Compare: picks, answers side by side, blind arenas and their win rates. Models are answered for by kept answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sample_data import ROOT
from screens.answers_view import AnswersView
from screens.compare_answers import AnswersPane
from screens.compare_arenas import ArenasPane
from screens.compare_setup import SetupPane
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from tests.workbench.run_folders import make_run
from workbench import generation
from workbench.dataset_store import add_dataset
from workbench.generation import Answer
from workbench.kept_answers import keep_answers
from workbench.model_names import resolve_model
from workbench.pair_generation import prompts_to_ask
from workbench.pair_sets import CandidatePair, PairSet, create_pairs, open_pairs
from workbench.prompt_source import find_prompts
from workbench.side_by_side import Setup, remembered
from workbench.workspace import Workspace, init

SFT, DPO = "run:1124-sft-tidy-aaa", "run:1124-dpo-tidy-bbb"
SETUP = Setup(("sample", DPO), "held", 8)
LONG = "Hello, your chain squeaks, so oil it. Turn the pedals back for a minute. " * 8


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The sample prompts, two runs over the sample model, and what the three models said."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = init(tmp_path / "ws")
    add_dataset(made, ROOT / "data" / "prompts_heldout.jsonl", "held")
    make_run(made, "1124-sft-tidy-aaa", adapter_kind="full", checkpoints=(2,), created="2026-11-24T09:00:00+00:00")
    make_run(made, "1124-dpo-tidy-bbb", adapter_kind="full", checkpoints=(4,))
    says = {"sample": "Hello Kim, oil your chain.", SFT: LONG, DPO: "Hello Kim, your hub sticks, so clean it."}
    for model, text in says.items():
        # To the last prompt sample and dpo say the same.
        keep(made, model, [text if n < 7 else "Hello." for n in range(8)])
    return made


def keep(workspace: Workspace, model: str, texts: list[str]) -> None:
    """Answers of a model to the first eight prompts, as if it had been asked."""
    prompts = prompts_to_ask(find_prompts(workspace, "held"), len(texts))
    answers = [
        Answer(prompt["id"], 0, text, n != 1, 12, -6.0)
        for n, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    ]
    keep_answers(workspace, resolve_model(workspace, model), prompts, SETUP.sampling, answers)


def make_arena(workspace: Workspace, name: str, wins: int = 0) -> PairSet:
    """An arena of 40 pairs in which dpo has won the first ones, and lost or not been judged on the others."""
    source = {"models": [{"source": f"{DPO}@4", "sha256": "1"}, {"source": "sample", "sha256": "2"}]}
    pairs = [CandidatePair(f"q{n}", f"good {n}", f"bad {n}", f"{DPO}@4", "sample") for n in range(40)]
    arena = create_pairs(workspace, name, pairs, source, kind="arena")
    with arena.journal("eva") as journal:
        won = list(arena.pairs())[:wins]
        journal.append_many(
            journal.prepare(pair.id, "b" if pair.source_a == "sample" else "a", origin="screen") for pair in won
        )
    return arena


def gone_to(app: Any) -> list[tuple[str, str]]:
    """Where the app is sent from now on, without going there."""
    places: list[tuple[str, str]] = []
    app.go = app.open = lambda station, subject="": places.append((station, subject))
    return places


async def answers_of(app: Any, pilot: Any) -> AnswersView:
    """Ask by Enter, where the focus is on "ask" because everything is picked."""
    await sees(pilot, "2 models, the first 8 prompts of held")
    await pilot.press("enter")
    await until(pilot, lambda: app.screen.view == "answers")
    await sees(pilot, "prompt 1 of 8")
    return app.screen.query_one(AnswersView)


class TestPicking:
    @pytest.mark.parametrize("size", [SIZE, WIDE])
    def test_the_picture(self, workspace: Workspace, size: tuple[int, int]) -> None:
        make_arena(workspace, "dpo-or-not", wins=30)

        async def script(app: Any, pilot: Any) -> None:
            await sees(pilot, "dpo is better")
            await sees(pilot, "2 models, the first 8 prompts of held")
            await until(pilot, lambda: app.focused.id == "settings")
            await check_golden("compare-setup", pilot)

        drive(script, workspace, size=size, station="compare")

    def test_a_run_is_picked_with_the_model_it_began_from(self, workspace: Workspace) -> None:
        async def script(app: Any, pilot: Any) -> None:
            setup = app.screen.query_one(SetupPane)
            await until(pilot, lambda: setup.setup.models == ("sample", SFT))
            assert setup.setup.prompts == "held"

        drive(script, workspace, station="compare", subject="1124-sft-tidy-aaa")

    def test_space_picks_and_puts_back_and_the_order_is_that_of_the_picks(self, workspace: Workspace) -> None:
        async def script(app: Any, pilot: Any) -> None:
            await sees(pilot, "2 models")
            setup = app.screen.query_one(SetupPane)
            app.screen.query_one("#models").focus()
            await pilot.press("g", "space")
            await until(pilot, lambda: setup.setup.models == (DPO,))
            await pilot.press("w")
            await sees(pilot, "1 model is picked; a comparison has 2 to 4")
            assert app.screen.view == "setup"
            await pilot.press("space")
            await until(pilot, lambda: setup.setup.models == (DPO, "sample"))
            await sees(pilot, "● 1  " + DPO)

        drive(script, workspace, station="compare")

    def test_a_setting_is_asked_for_and_a_wrong_one_refused(self, workspace: Workspace) -> None:
        async def script(app: Any, pilot: Any) -> None:
            await sees(pilot, "2 models")
            rows = app.screen.query_one("#settings")
            rows.move_to("temperature")
            await pilot.press("enter")
            await sees(pilot, "0 is greedy")
            answer = app.screen.query_one("#answer")
            for wrong in ("-1", "nan", "warm"):
                answer.value = wrong
                await pilot.press("enter")
                await sees(pilot, "a number from 0 to 100")
            answer.value = "0.5"
            await pilot.press("enter")
            await until(pilot, lambda: app.screen.query_one(SetupPane).setup.temperature == 0.5)

        drive(script, workspace, station="compare")

    def test_an_empty_workspace_says_what_is_missing(self, tmp_path: Path) -> None:
        async def script(app: Any, pilot: Any) -> None:
            await sees(pilot, "no model is picked; a comparison has 2 to 4")
            await sees(pilot, "nothing here has prompts")
            await sees(pilot, "sample")
            await pilot.press("r")
            await sees(pilot, "no arena yet")
            await pilot.press("q")
            await until(pilot, lambda: app.screen.view == "setup")

        drive(script, init(tmp_path / "ws"), station="compare")


class TestAnswers:
    @pytest.mark.parametrize("size", [SIZE, WIDE])
    def test_the_picture(self, workspace: Workspace, size: tuple[int, int]) -> None:
        async def script(app: Any, pilot: Any) -> None:
            view = await answers_of(app, pilot)
            await until(pilot, lambda: view.in_columns)
            await sees(pilot, "kept from before: nobody was asked again")
            await pilot.press("n")
            await sees(pilot, "prompt 2 of 8")
            await check_golden("compare-answers", pilot)

        drive(script, workspace, size=size, station="compare")
        assert remembered(workspace) == SETUP

    def test_n_and_shift_n_go_from_prompt_to_prompt_and_stay_inside(self, workspace: Workspace) -> None:
        async def script(app: Any, pilot: Any) -> None:
            await answers_of(app, pilot)
            await pilot.press("N", "n", "n")
            await sees(pilot, "prompt 3 of 8")
            assert app.screen.query_one(AnswersPane).number == 2
            await pilot.press(*"nnnnnnn")
            await sees(pilot, "prompt 8 of 8 · all answers are the same")
            await pilot.press("N", "d")
            await sees(pilot, "prompt 1 of 8")  # past the eighth, where they agree
            await pilot.press("N", *"nnnnnnnn")
            await sees(pilot, "prompt 8 of 8")
            await pilot.press("escape")
            await until(pilot, lambda: app.screen.view == "setup")
            await pilot.press("a")
            await sees(pilot, "prompt 8 of 8")

        drive(script, workspace, station="compare")

    def test_columns_scroll_together_and_stand_below_each_other_where_there_is_no_room(
        self, workspace: Workspace
    ) -> None:
        async def script(app: Any, pilot: Any) -> None:
            app.screen.query_one(SetupPane).take(Setup(("sample", SFT, DPO), "held"))
            await pilot.press("w")
            await until(pilot, lambda: app.screen.view == "answers")
            view = app.screen.query_one(AnswersView)
            assert not view.in_columns
            await check_golden("compare-stacked", pilot)
            await pilot.resize_terminal(160, 20)
            await until(pilot, lambda: view.in_columns)
            await sees(pilot, "┬── sft ──")
            before = text_of(app)
            await pilot.press("j")
            await until(pilot, lambda: view.scroll_offset.y == 1)
            assert "┬── sft ──" in text_of(app)  # the names stay
            assert text_of(app) != before

        drive(script, workspace, station="compare")

    @pytest.mark.parametrize("key", ["escape", "right_square_bracket"])
    def test_cancelling_and_leaving_end_the_child_and_nothing_is_kept(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        ended: list[BaseException] = []

        def run(module: str, arguments: list[str], *, progress: Any, **_: object) -> dict[str, object]:
            import time

            try:
                for _ in range(500):
                    time.sleep(0.01)
                    progress(1, 2, "job 1 of 2: answers of x")
                return {}
            except BaseException as error:
                ended.append(error)
                raise

        monkeypatch.setattr(generation, "run_program", run)

        async def script(app: Any, pilot: Any) -> None:
            await sees(pilot, "2 models")
            app.screen.query_one(SetupPane).take(Setup(("sample", DPO), "held", 8, seed=2))
            await pilot.press("w")
            await sees(pilot, "asking 2 models · sample")
            await sees(pilot, "left · esc cancels")
            await pilot.press(key)
            await until(pilot, lambda: len(ended) == 1)
            if key == "escape":
                await sees(pilot, "cancelled: asking 2 models")
                assert app.screen.view == "setup"

        drive(script, workspace, station="compare")
        assert len(ended) == 1
        assert len(list(workspace.blobs.glob("answers-*.json"))) == 3

    def test_hostile_answers_and_names_reach_the_terminal_as_pictures(self, workspace: Workspace) -> None:
        hostile = "[/nope] \x1b]0;owned\x07 \u202egnp.exe " + "x" * 100_000
        keep(workspace, "sample", [hostile] * 8)

        async def script(app: Any, pilot: Any) -> None:
            await answers_of(app, pilot)
            await sees(pilot, "[/nope] ␛]0;owned␇ <U+202E>gnp.exe")
            await pilot.press("escape", "m")
            await sees(pilot, "Which model?")
            app.screen.query_one("#answer").value = "[/b]\u202e"
            await pilot.press("enter")
            await sees(pilot, "[/b]<U+202E>")
            assert "\x1b" not in text_of(app)
            assert "\u202e" not in text_of(app)
            await pilot.press("w")
            await until(pilot, lambda: app._notifications, "a toast that says that there is no such model")

        drive(script, workspace, station="compare")


class TestArenas:
    def test_b_sends_two_models_to_a_blind_arena(self, workspace: Workspace) -> None:
        async def script(app: Any, pilot: Any) -> None:
            await answers_of(app, pilot)
            places = gone_to(app)
            await pilot.press("b")
            await sees(pilot, "sample against dpo, 7 pairs to judge blindly")
            await pilot.press("enter")
            await until(pilot, lambda: places == [("label", "arena/sample-against-dpo")])

        drive(script, workspace, station="compare")
        arena = open_pairs(workspace, "sample-against-dpo", "arena")
        assert arena.info.rows == 7
        assert [model["source"] for model in arena.info.source["models"]] == ["sample", f"{DPO}@4"]
        assert sum(arena.info.source["identical"].values()) == 1

    def test_of_three_models_one_says_which_two_and_a_taken_name_is_refused(self, workspace: Workspace) -> None:
        make_arena(workspace, "taken")

        async def script(app: Any, pilot: Any) -> None:
            app.screen.query_one(SetupPane).take(Setup(("sample", SFT, DPO), "held"))
            await pilot.press("w")
            await until(pilot, lambda: app.screen.view == "answers")
            places = gone_to(app)
            await pilot.press("b")
            await sees(pilot, "Which two")
            await pilot.press("3")
            await sees(pilot, "sft against dpo")
            app.screen.query_one("#answer").value = "taken"
            await pilot.press("enter")
            await sees(pilot, "the name taken is taken")
            app.screen.query_one("#answer").value = "free"
            await pilot.press("enter")
            await until(pilot, lambda: places == [("label", "arena/free")])

        drive(script, workspace, station="compare")
        models = open_pairs(workspace, "free", "arena").info.source["models"]
        assert [model["source"] for model in models] == [f"{SFT}@2", f"{DPO}@4"]

    @pytest.mark.parametrize("size", [SIZE, WIDE])
    def test_the_picture_of_win_rates(self, workspace: Workspace, size: tuple[int, int]) -> None:
        make_arena(workspace, "decided", wins=40)
        make_arena(workspace, "early", wins=2)

        async def script(app: Any, pilot: Any) -> None:
            await sees(pilot, "2 models")
            await pilot.press("r")
            await until(pilot, lambda: app.screen.view == "arenas")
            app.screen.query_one(ArenasPane).move_to("decided")
            await sees(pilot, "dpo is better: 1.00, 95 % interval 0.91 to 1.00 (40 pairs)")
            await sees(pilot, "40 of 40 pairs judged by eva (40)")
            assert "no difference can be told yet" in text_of(app)
            await check_golden("compare-arenas", pilot)

        drive(script, workspace, size=size, station="compare")

    def test_enter_labels_what_is_open(self, workspace: Workspace) -> None:
        make_arena(workspace, "early", wins=2)

        async def script(app: Any, pilot: Any) -> None:
            await sees(pilot, "enter labels the 38 open")
            places = gone_to(app)
            await pilot.press("enter")
            await until(pilot, lambda: places == [("label", "arena/early")])

        drive(script, workspace, station="compare", subject="arena/early")

    def test_the_rule_judges_only_what_it_knows_and_is_called_synthetic(self, workspace: Workspace) -> None:
        make_arena(workspace, "foreign")

        async def script(app: Any, pilot: Any) -> None:
            await answers_of(app, pilot)
            gone_to(app)
            await pilot.press("b")
            await sees(pilot, "blindly")
            await pilot.press("enter")
            await until(pilot, lambda: workspace.names("arena") == ["foreign", "sample-against-dpo"])
            await pilot.press("r")
            arenas = app.screen.query_one(ArenasPane)
            await until(pilot, lambda: len(arenas.states) == 2)
            arenas.move_to("foreign")
            await pilot.press("R")
            await sees(pilot, "the sample rule knows only the sample data")
            arenas.move_to("sample-against-dpo")
            await pilot.press("R")
            await sees(pilot, "synthetic: a fixed rule gives them")
            await pilot.press("R")
            await sees(pilot, "7 verdicts of the sample rule (synthetic) on arena")
            await sees(pilot, "synthetic: judged by the sample rule")

        drive(script, workspace, station="compare", size=WIDE)
        assert open_pairs(workspace, "foreign", "arena").status().judged == 0
