"""Annotators: who labels, how alike and how one-sided, live; disagreements, settled blind from the list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from screens.row_list import RowList
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from workbench import judgments
from workbench.labeling import Sitting
from workbench.pair_sets import CandidatePair, PairSet, create_pairs
from workbench.pair_sharing import Sharing
from workbench.user_settings import UserSettings
from workbench.workspace import Workspace, init

CAROL = UserSettings(annotator="carol")
START = datetime(2026, 11, 30, 9, tzinfo=UTC)
SAID = {"alice": "aabbaabbabtt", "bob": "aabbabababt-"}
LIST = "- one\n- two"


@pytest.fixture
def workspace(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Workspace:  # type: ignore[no-untyped-def]
    ticks = iter(range(10_000))
    monkeypatch.setattr(judgments, "now", lambda: (START + timedelta(seconds=10 * next(ticks))).isoformat())
    return init(tmp_path / "ws")


def make(workspace: Workspace, count: int = 12) -> PairSet:
    rows = [CandidatePair(f"What is {n}?", LIST if n < 4 else f"long answer {n}", f"no {n}") for n in range(count)]
    return create_pairs(workspace, "support", rows, {"dataset": "d"}, sharing=Sharing(overlap=2))


def say(made: PairSet, who: str, verdicts: str, order: str = "ab") -> None:
    words = {"a": "a", "b": "b", "t": "tie"}
    with made.journal(who) as journal:
        for pair, letter in zip(made.pairs(), verdicts, strict=True):
            if letter != "-":
                journal.append(pair.id, words[letter], origin="screen", order=order)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_the_picture(workspace: Workspace, size: tuple[int, int]) -> None:
    made = make(workspace)
    for who, verdicts in SAID.items():
        say(made, who, verdicts)

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "kappa")
        await check_golden("annotators", pilot)
        await pilot.press("tab")
        await sees(pilot, "enter settles it")
        await check_golden("annotators-disagreement", pilot)

    drive(script, workspace, size=size, station="annotators", subject="support", settings=CAROL)


def test_it_is_reached_from_pairs_and_by_the_palette(workspace: Workspace) -> None:
    say(make(workspace), "alice", SAID["alice"])

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "support")
        await pilot.press("o")
        await until(pilot, lambda: app.screen.NAME == "annotators")
        await sees(pilot, "overlap 2: 0 full")
        await sees(pilot, "No pair has the verdicts of two people yet")
        await sees(pilot, "none: no pair has verdicts")
        await pilot.press("q")
        await until(pilot, lambda: app.screen.NAME == "pairs")
        await pilot.press("colon", *"annotators support", "enter")
        await until(pilot, lambda: app.screen.NAME == "annotators")
        await sees(pilot, "alice picks left")

    drive(script, workspace, station="pairs", settings=CAROL)


def test_it_follows_while_others_label(workspace: Workspace) -> None:
    made = make(workspace)

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "nobody yet: enter on Pairs labels it")
        with Sitting(made, "bob") as bob:
            app.screen.wake()
            await sees(pilot, "1 here now")
            await sees(pilot, "here now")
            bob.judge("left")
            app.screen.wake()
            await sees(pilot, "1 judged · 11 open")
        app.screen.wake()
        await until(pilot, lambda: "here now" not in text_of(app), "bob has gone")

    drive(script, workspace, station="annotators", subject="support", settings=CAROL)


def test_enter_settles_the_disagreement_under_the_cursor_blind(workspace: Workspace) -> None:
    made = make(workspace)
    for who, verdicts in SAID.items():
        say(made, who, verdicts)
    ids = [pair.id for pair in made.pairs()]
    assert [a != b for a, b in zip(SAID["alice"], SAID["bob"], strict=True)][5:7] == [True, True]

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "2 open, 0 settled")
        await pilot.press("enter")
        await sees(pilot, "tab goes to the disagreements")
        await pilot.press("tab", "j")
        assert app.screen.query_one("#disagreements", RowList).key == ids[6]
        await sees(pilot, "What is 6?")
        assert "better" not in text_of(app), "the third voice hears nothing beforehand"
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.NAME == "label")
        await sees(pilot, "What is 6?")
        await pilot.pause(0.2)
        await check_golden("label-settling", pilot)
        await pilot.press("1")
        await sees(pilot, "What is 5?")
        await pilot.press("q")
        await until(pilot, lambda: app.screen.NAME == "annotators")
        await sees(pilot, "1 open, 1 settled")
        await sees(pilot, "settled by carol")
        await sees(pilot, ", settling it")

    drive(script, workspace, station="annotators", subject="support", settings=CAROL)
    [line] = [one for one in made.judgments().current.values() if one.annotator == "carol"]
    assert (line.pair, line.purpose) == (ids[6], "adjudication")


def test_who_judged_a_pair_is_told_that_somebody_else_must_settle_it(workspace: Workspace) -> None:
    made = make(workspace)
    for who, verdicts in SAID.items():
        say(made, who, verdicts)

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "you judged it")
        await pilot.press("tab", "enter")
        await sees(pilot, "somebody else has to be the third voice")
        await pilot.press("a")
        await sees(pilot, "there is nothing that you could settle")
        assert app.screen.NAME == "annotators"

    drive(script, workspace, station="annotators", subject="support", settings=UserSettings(annotator="alice"))


def test_a_person_who_goes_by_the_side_is_told(workspace: Workspace) -> None:
    made = make(workspace, 24)
    say(made, "alice", "a" * 24)

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "left 100% of 24")
        await sees(pilot, "the side decides more than chance would")

    drive(script, workspace, station="annotators", subject="support", settings=CAROL)


def test_without_a_set_and_with_a_damaged_one(workspace: Workspace) -> None:
    async def nothing(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "There are no pair sets yet; m on Pairs makes one.")
        await pilot.press("enter", "a", "tab", "enter")
        assert app.screen.NAME == "annotators"

    drive(nothing, workspace, station="annotators", settings=CAROL)
    made = make(workspace)
    made.parquet_path.write_bytes(b"nonsense")

    async def damaged(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "is not the file that was made")
        await pilot.press("tab", "enter", "q")
        await until(pilot, lambda: app.screen.NAME == "home")

    drive(damaged, workspace, station="annotators", subject="support", settings=CAROL)
