"""Label: one key is one verdict on the pair that was read, and it is on the disk before the next pair shows."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from textual.events import Key
from textual.screen import Screen
from textual.widgets import Input

from screens.label import TOO_FAST, Label
from screens.label_browse import Browse
from screens.label_saving import GUARD_S, KeyClock, SavedLine
from screens.modals import AskText
from screens.narrow_updates import NarrowUpdate
from screens.pair_layout import PairLayout, PairTexts
from screens.pair_view import Look, PairView
from screens.row_list import RowList
from tests.benchmarks.label import answer
from tests.screens.driving import SIZE, WIDE, burst, check_golden, drive, sees, text_of, until
from workbench.label_form import form_of
from workbench.pair_sets import CandidatePair, create_pairs, open_pairs
from workbench.preferences import open_preference_set
from workbench.user_settings import UserSettings
from workbench.workspace import Workspace, init

ALICE = UserSettings(annotator="alice")
WORDS = "the wheel turns well and the brake holds the rim from both sides "


class HandClock(KeyClock):
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def of(self, event: Key) -> float:
        return self.at


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = init(tmp_path / "ws")
    candidates = [
        CandidatePair(f"question {n}?", f"yes {n} {WORDS * 3}", f"no {n} {WORDS * 14}", "model-x", "model-y")
        for n in range(4)
    ]
    create_pairs(made, "support", candidates, {"dataset": "answers"})
    return made


def verdicts(workspace: Workspace) -> dict[str, str]:
    said = open_pairs(workspace, "support").judgments().current
    return {showing.pair: judgment.verdict for showing, judgment in said.items()}


async def begin(app, pilot, clock: HandClock, subject: str = "support") -> Label:  # type: ignore[no-untyped-def]
    screen = Label(subject, clock=clock)
    app.push_screen(screen)
    await until(pilot, lambda: screen._sitting is not None and screen._guard_from is not None)
    return screen


async def press(pilot, screen: Label, clock: HandClock, *keys: str) -> None:  # type: ignore[no-untyped-def]
    """Each key when the pair was there for five seconds."""
    for key in keys:
        await until(pilot, lambda: screen._guard_from is not None and not screen._saving)
        clock.at += 5
        before = screen._appearance
        await pilot.press(key)
        await until(pilot, lambda: screen._appearance > before, f"{key} is done")  # noqa: B023
    await until(pilot, lambda: screen._guard_from is not None and not screen._saving)


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_the_pictures(workspace: Workspace, size: tuple[int, int]) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        await press(pilot, screen, clock, "1", "2", "3")
        await sees(pilot, "saved #3  tie  5.0 s")
        await check_golden("label", pilot)
        assert "model-" not in text_of(app)
        await press(pilot, screen, clock, "s")
        await sees(pilot, "All 4 pairs of support are judged by alice.")
        await check_golden("label-end", pilot)

    drive(script, workspace, size=size, settings=ALICE)


def test_what_stood_on_the_side_is_what_the_journal_says(workspace: Workspace) -> None:
    chosen: dict[str, str] = {}

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        for key in ("1", "2", "1", "2"):
            assert screen._sitting is not None
            shown, seen = screen._sitting.present, screen.query_one(PairView).texts
            assert shown is not None
            assert seen is not None
            chosen[shown.id] = seen.left if key == "1" else seen.right
            await press(pilot, screen, clock, key)

    drive(script, workspace, settings=ALICE)
    pairs = {pair.id: pair for pair in open_pairs(workspace, "support").pairs()}
    said = {pair: pairs[pair].a if verdict == "a" else pairs[pair].b for pair, verdict in verdicts(workspace).items()}
    assert said == chosen


def test_a_verdict_is_on_the_disk_and_then_the_next_pair_which_is_ready_shows_in_one_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = init(tmp_path / "ws")
    candidates = [CandidatePair(f"question {n}?", answer(n * 7), answer(n * 7 + 5)) for n in range(4)]
    create_pairs(made, "support", candidates, {"made": "here"})
    on_disk_when_sent: list[int] = []
    calls: Counter[str] = Counter()

    def counted(owner: type, name: str) -> None:
        true = getattr(owner, name)

        def counting(*given: object, **named: object) -> object:
            calls[name] += 1
            return true(*given, **named)

        monkeypatch.setattr(owner, name, counting)

    counted(Look, "strip")
    counted(PairLayout, "rows")
    counted(Screen, "_refresh_layout")

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        view, console, sizes = screen.query_one(PairView), Console(width=80, color_system="256"), []
        shown: list[PairTexts] = []

        def sent(_: object, update: NarrowUpdate | None) -> None:
            if update is not None:
                sizes.append(len(update.render_segments(console)))
                on_disk_when_sent.append(len(verdicts(made)))

        for _ in "123":
            following = screen._sitting.upcoming
            texts = PairTexts(following.prompt, following.left, following.right)
            coming = (texts, view.size, False)
            await until(pilot, lambda: coming in view._made)  # noqa: B023
            await until(pilot, lambda: all(worker.is_finished for worker in app.workers if worker.group == "ahead"))
            calls.clear()
            monkeypatch.setattr(app, "_display", sent)
            await pilot.press("down")
            await until(pilot, lambda: view._made[coming].before is view._frame, "compared anew after a step")  # noqa: B023
            assert calls["strip"] < 40
            sizes.clear()
            on_disk_when_sent.clear()
            calls.clear()
            clock.at += 5
            screen._prepare_next = nothing
            await pilot.press("1")
            await until(pilot, lambda: view.texts == texts and not screen._saving)  # noqa: B023
            await pilot.pause(0.05)
            assert calls == {}, "neither laid out nor styled while the key is answered"
            assert len(sizes) == 1
            assert 500 < sizes[0] < 2500
            assert on_disk_when_sent == [screen._sitting.counts.done]
            shown.append(texts)
            del screen._prepare_next
            screen.in_quiet()
        assert gc.get_freeze_count() > 0
        await until(pilot, lambda: all(worker.is_finished for worker in app.workers if worker.group == "ahead"))
        calls.clear()
        screen._prepare_next = nothing
        await pilot.press("u")
        await until(pilot, lambda: view.texts == shown[-2] and not screen._saving)
        assert calls == {}, "what was shown before is kept"

    drive(script, made, settings=ALICE)
    assert gc.get_freeze_count() == 0, "what was there before is collected again"


async def nothing(_: object) -> None:
    """In the place of what is done in quiet."""


def test_keys_before_the_pair_could_be_read_judge_nothing(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        clock.at += GUARD_S * 0.9
        await pilot.press("1")
        await sees(pilot, TOO_FAST)
        assert verdicts(workspace) == {}
        clock.at += GUARD_S * 0.2
        before = screen._appearance
        # Three keys of one chunk: the first is for the pair that is seen, the others were typed ahead.
        for key in "122":
            app.post_message(Key(key, key))
        await until(pilot, lambda: screen._appearance > before and screen._guard_from is not None)
        await sees(pilot, TOO_FAST)
        await pilot.pause()
        assert len(verdicts(workspace)) == 1

    drive(script, workspace, settings=ALICE)


def test_undo_shows_the_pair_again_as_it_was_and_leaving_resumes(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        first = screen.query_one(PairView).texts
        await press(pilot, screen, clock, "1")
        second = screen.query_one(PairView).texts
        await press(pilot, screen, clock, "u")
        assert screen.query_one(PairView).texts == first
        await sees(pilot, "taken back: left better")
        assert verdicts(workspace) == {}
        await press(pilot, screen, clock, "2")
        await pilot.press("q")
        await until(pilot, lambda: app.screen.NAME == "home")
        again = await begin(app, pilot, clock)
        assert again.query_one(PairView).texts == second

    drive(script, workspace, settings=ALICE)


def test_leaving_while_it_is_saved_loses_nothing(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        clock.at += 5
        app.post_message(Key("1", "1"))
        app.post_message(Key("q", "q"))
        await until(pilot, lambda: app.screen.NAME == "home" and len(verdicts(workspace)) == 1)
        await until(pilot, lambda: all(worker.is_finished for worker in app.workers if worker.node is screen))

    drive(script, workspace, settings=ALICE)


def test_a_comment_goes_with_the_verdict(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        await pilot.press("c")
        await sees(pilot, "A comment on this pair")
        await pilot.press(*"0 x1", "enter")
        await sees(pilot, "the comment goes with your verdict")
        await until(pilot, lambda: app.screen is screen and screen._guard_from is not None)
        await press(pilot, screen, clock, "3")

    drive(script, workspace, settings=ALICE)
    (judgment,) = open_pairs(workspace, "support").judgments().current.values()
    assert (judgment.verdict, judgment.comment, judgment.origin) == ("tie", "0 x1", "screen")


def test_resizing_keeps_the_pair_and_too_small_judges_nothing(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        texts = screen.query_one(PairView).texts
        await pilot.resize_terminal(64, 20)
        await until(pilot, lambda: "─ left ─" in text_of(app) and "┬" not in text_of(app))
        await check_golden("label-stacked", pilot)
        await pilot.resize_terminal(40, 10)
        await sees(pilot, "too small")
        clock.at += 5
        await pilot.press("1", "u", "c")
        assert app.screen is screen
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "┬" in text_of(app) and screen._guard_from is not None)
        assert screen.query_one(PairView).texts == texts
        assert verdicts(workspace) == {}
        await press(pilot, screen, clock, "1")
        assert len(verdicts(workspace)) == 1

    drive(script, workspace, settings=ALICE)


def test_a_full_disk_says_so_and_the_pair_stays(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if b'"verdict"' in data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        texts = screen.query_one(PairView).texts
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            clock.at += 5
            await pilot.press("1")
            await sees(pilot, "NOT SAVED, the same pair is here")
        assert screen.query_one(PairView).texts == texts
        assert verdicts(workspace) == {}
        await press(pilot, screen, clock, "1")
        await sees(pilot, "saved #1")

    drive(script, workspace, settings=ALICE)


def test_a_read_only_workspace_shows_the_pair_and_saves_nothing(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        assert screen.query_one(SavedLine).text.endswith("1 of 4"), "under the toast that says why"
        clock.at += 5
        await pilot.press("1")
        await sees(pilot, "NOT SAVED")
        assert screen._sitting is not None
        assert screen._sitting.counts.done == 0

    drive(script, replace(workspace, read_only_reason="it is a copy"), settings=ALICE)
    assert verdicts(workspace) == {}


class TestFiveWay:
    def test_its_keys_its_strength_and_its_picture(self, tmp_path: Path) -> None:
        made = five_way(tmp_path)

        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            clock = HandClock()
            screen = await begin(app, pilot, clock)
            await press(pilot, screen, clock, "1", "5", "4")
            await sees(pilot, "saved #3  right better  5.0 s")
            await check_golden("label-five", pilot)

        drive(script, made, settings=ALICE)
        said = open_pairs(made, "support").judgments().current.values()
        assert sorted((one.strength, one.verdict in "ab") for one in said) == [(1, True), (2, True), (2, True)]

    def test_four_and_five_mean_nothing_on_three(self, workspace: Workspace) -> None:
        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            clock = HandClock()
            await begin(app, pilot, clock)
            clock.at += 5
            await pilot.press("4", "5")
            await pilot.pause()

        drive(script, workspace, settings=ALICE)
        assert verdicts(workspace) == {}


def five_way(folder: Path) -> Workspace:
    made = init(folder / "ws")
    (folder / "g.md").write_text("Choose what a rider can do at once.", "utf-8")
    form = form_of("5", ["too long", "made up"], guidelines=str(folder / "g.md"))
    candidates = [CandidatePair(f"question {n}?", f"yes {n} {WORDS}", f"no {n} {WORDS * 2}") for n in range(6)]
    create_pairs(made, "support", candidates, {"dataset": "answers"}, form=form)
    return made


class TestNotes:
    def test_reasons_and_a_flag_by_keys(self, tmp_path: Path) -> None:
        made = five_way(tmp_path)

        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            clock = HandClock()
            screen = await begin(app, pilot, clock)
            await pilot.press("t")
            await sees(pilot, "Why?")
            await pilot.press("2", "1", "1", "t")
            await sees(pilot, "A reason, in a word or a few.")
            await pilot.press(*"two, no", "enter")
            await sees(pilot, "no comma")
            await pilot.press("escape")
            await sees(pilot, "Why?")
            await pilot.press("t", *"odd", "enter")
            await sees(pilot, "3 [x] odd")
            await check_golden("label-reasons", pilot)
            await pilot.press("enter")
            await sees(pilot, "made up, odd: with your verdict")
            await until(pilot, lambda: not screen._saving)
            await pilot.press("f")
            await sees(pilot, "alice · flagged · made up, odd · blind")
            await press(pilot, screen, clock, "2")
            assert "flagged" not in text_of(app)

        drive(script, made, settings=ALICE)
        (said,) = open_pairs(made, "support").judgments().current.values()
        assert (said.tags, said.flagged) == (("made up", "odd"), True)

    def test_guidelines_are_behind_the_question_mark(self, tmp_path: Path) -> None:
        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            await begin(app, pilot, HandClock())
            await pilot.press("question_mark")
            await sees(pilot, "Choose what a rider can do at once.")

        drive(script, five_way(tmp_path), settings=ALICE)


class TestGoingBack:
    def test_redo_a_pair_by_its_number_and_revising(self, workspace: Workspace) -> None:
        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            clock = HandClock()
            screen = await begin(app, pilot, clock)
            await press(pilot, screen, clock, "1", "2", "u", "u", "ctrl+r")
            await sees(pilot, "done again: left better")
            assert len(verdicts(workspace)) == 1
            await pilot.press("colon", *"5", "enter")
            await sees(pilot, "a number from 1 to 4")
            await pilot.press("backspace", *":3", "enter")
            await sees(pilot, "question 2?")
            await press(pilot, screen, clock, "3")
            await sees(pilot, "question 3?")
            await pilot.press("colon", "1", "enter")
            await sees(pilot, "pair 1: left better")
            await pilot.press("escape")
            await sees(pilot, "question 3?")
            assert app.screen is screen

        drive(script, workspace, settings=ALICE)

    def test_what_follows_a_colon_in_one_burst_is_its_number_and_no_verdict(self, workspace: Workspace) -> None:
        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            clock = HandClock()
            screen = await begin(app, pilot, clock)
            for opening, typed in (("colon", ":23"), ("c", "c12")):
                await until(pilot, lambda: screen._guard_from is not None)
                clock.at += 5
                for key, character in zip((opening, *typed[1:]), typed, strict=True):
                    app.post_message(Key(key, character))  # none waits for the one before, as over a slow link
                await until(pilot, lambda: isinstance(app.screen, AskText) and bool(app.screen.query(Input)))
                await until(pilot, lambda: app.screen.query_one(Input).value == typed[1:], "all is there")  # noqa: B023
                await pilot.press("escape")
                await until(pilot, lambda: app.screen is screen)
            assert verdicts(workspace) == {}

        drive(script, workspace, settings=ALICE)

    @pytest.mark.parametrize("size", [SIZE, WIDE])
    def test_the_list_of_pairs(self, workspace: Workspace, size: tuple[int, int]) -> None:
        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            clock = HandClock()
            screen = await begin(app, pilot, clock)
            await press(pilot, screen, clock, "1", "s", "3")
            await pilot.press("b")
            await sees(pilot, "enter shows one")
            await check_golden("label-browse", pilot)
            await pilot.press("slash", *"skip", "enter", "enter")
            await sees(pilot, "pair 2: skipped")
            await press(pilot, screen, clock, "2")
            await sees(pilot, "question 3?")

        drive(script, workspace, size=size, settings=ALICE)
        assert sorted(verdicts(workspace).values(), key=str)[-1] == "tie"
        assert "skip" not in verdicts(workspace).values()

    @pytest.mark.parametrize("action", ["filter", "decline"])
    def test_what_is_asked_of_the_list_waits_until_it_has_its_widgets(
        self, workspace: Workspace, action: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        composed, opened = Browse._compose, []

        async def late(browse: Browse) -> None:
            opened.append(browse)
            app = browse.app
            app.call_later(app.run_action, action, browse)  # a key that has gone up to the app by now
            await asyncio.sleep(0.1)
            await composed(browse)

        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            screen = await begin(app, pilot, HandClock())
            monkeypatch.setattr(Browse, "_compose", late)
            await pilot.press("b")
            if action == "decline":
                await until(pilot, lambda: bool(opened) and app.screen is screen)
            else:
                await until(pilot, lambda: app.screen is opened[0] and isinstance(app.focused, Input))
                await pilot.press(*"3?", "enter")
                await until(pilot, lambda: [row.key for row in opened[0].query_one(RowList).rows] == ["4"])

        drive(script, workspace, settings=ALICE)
        assert verdicts(workspace) == {}

    def test_a_verdict_key_behind_what_a_burst_opens_and_closes_is_none(self, workspace: Workspace) -> None:
        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            clock = HandClock()
            screen = await begin(app, pilot, clock)
            clock.at += 5
            judge = screen._judge
            judged: list[object] = []
            screen._judge = lambda said, came: (judged.append(said), judge(said, came))
            burst(app, "question_mark", "q", "1")
            await pilot.pause(0.3)
            assert judged == []

        drive(script, workspace, settings=ALICE)
        assert verdicts(workspace) == {}

    def test_a_list_that_cannot_be_read_says_so_and_leaves_the_pair(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(sitting: object) -> list[object]:
            raise ValueError("no list")

        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            screen = await begin(app, pilot, HandClock())
            monkeypatch.setattr("screens.label.listed_pairs", broken)
            await pilot.press("b")
            await until(pilot, lambda: "no list" in app.last_told and app.screen is screen)

        app = drive(script, workspace, settings=ALICE)
        assert app.crash is None


def test_the_difference_is_marked_by_a_key_on_this_pair_and_the_next(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        before = text_of(app).splitlines()
        await pilot.press("d")
        await sees(pilot, "left · 1 word of its own")
        assert text_of(app).splitlines()[3:] == before[3:], "nothing moved"
        view = screen.query_one(PairView)
        assert any("changed" in style for row in view._frame.rows for _, style in row.pieces)
        await press(pilot, screen, clock, "1")
        await sees(pilot, "of its own")
        await pilot.press("d")
        await until(pilot, lambda: "of its own" not in text_of(app))
        assert not any("changed" in style for row in view._frame.rows for _, style in row.pieces)

    drive(script, workspace, settings=ALICE)


def test_several_questions_are_asked_in_turn_and_frozen_by_one_of_them(tmp_path: Path) -> None:
    made = init(tmp_path / "ws")
    form = form_of(criteria=["helpful=Which helps a rider more?", "honest"])
    candidates = [CandidatePair(f"question {n}?", f"yes {n} {WORDS * 14}", f"no {n}") for n in range(2)]
    create_pairs(made, "support", candidates, {"dataset": "answers"}, form=form)

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock)
        await pilot.press("space")
        await sees(pilot, "above, the end")
        await press(pilot, screen, clock, "1")
        await sees(pilot, "2 of 2  honest")
        assert "above, the end" in text_of(app), "another question moves nothing"
        await check_golden("label-question", pilot)
        await press(pilot, screen, clock, "3", "2", "2")
        await sees(pilot, "All 2 pairs of support are judged")
        await pilot.press("f")
        await until(pilot, lambda: app.screen.NAME == "pairs")
        await sees(pilot, "support")
        await pilot.press("f")
        await sees(pilot, "Name?")
        await pilot.press("enter")
        await sees(pilot, "on which question?")
        await pilot.press("2")
        await until(pilot, lambda: made.names("prefs") != [])

    drive(script, made, settings=ALICE)
    rule = open_preference_set(made, made.names("prefs")[0]).info
    assert (rule.rule.criterion, rule.counts["ties"], rule.counts["train"]) == ("honest", 1, 1)


def test_an_empty_workspace_says_which_key_makes_pairs(tmp_path: Path) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "There are no pairs to label yet.")
        await pilot.press("1", "u", "s")
        await pilot.press("m")
        await until(pilot, lambda: app.screen.NAME == "pairs")

    drive(script, init(tmp_path / "empty"), station="label", settings=ALICE)


def test_the_end_of_an_arena_unblinds_it(tmp_path: Path) -> None:
    made = init(tmp_path / "ws")
    models = {"models": [{"source": "run:old"}, {"source": "run:new"}]}
    candidates = [CandidatePair(f"q{n}", f"x{n} \x1b[2J [/nope]", f"y{n}", "run:old", "run:new") for n in range(2)]
    create_pairs(made, "duel", candidates, models, kind="arena")

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        clock = HandClock()
        screen = await begin(app, pilot, clock, "arena/duel")
        assert "run:" not in text_of(app)
        await press(pilot, screen, clock, "1")
        assert "run:" not in text_of(app)
        await press(pilot, screen, clock, "3")
        await sees(pilot, "run:old against run:new")
        await sees(pilot, "95 % interval")

    drive(script, made, settings=ALICE)
