"""Home: the loop, what wants doing next, and the way to every station."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from screens.home import _run_row
from screens.row_list import RowList
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from tests.workbench.run_folders import make_run
from workbench.dataset_store import add_dataset
from workbench.pair_sets import CandidatePair, create_pairs, open_pairs
from workbench.run_list import find_run, summarise
from workbench.workspace import Workspace, init


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = init(tmp_path / "ws")
    make_run(made, "1124-sft-one-abc", created="2026-11-24T10:00:00+00:00")
    make_run(made, "1124-dpo-two-abd", phase="failed", created="2026-11-24T11:00:00+00:00")
    create_pairs(made, "support", [CandidatePair(f"question {i}", f"yes {i}", f"no {i}") for i in range(8)], {})
    return made


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_the_picture(workspace: Workspace, size: tuple[int, int]) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "label 8 pairs of support")
        await sees(pilot, "gpus")
        await check_golden("home", pilot)

    drive(script, workspace, size=size)


def test_a_run_with_an_alarm_is_marked(workspace: Workspace) -> None:
    quiet = summarise(find_run(workspace, "1124-sft-one-abc"))
    assert _run_row(quiet).cells[1] == "✓ done"
    loud = _run_row(replace(quiet, alarm="the KL is past its target"))
    assert (loud.cells[1], loud.tone) == ("✓ done !", "bad")


def test_an_empty_workspace_says_what_to_do_first(tmp_path: Path) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "▸add a dataset")
        assert "no runs yet; t starts one" in text_of(app)

    drive(script, init(tmp_path / "empty"))


def test_a_new_verdict_shows_without_a_key(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "0/8")
        pairs = open_pairs(workspace, "support")
        with pairs.journal("alice") as journal:
            journal.append(next(iter(pairs.pairs())).id, "a", origin="screen")
        app.screen.wake()
        await sees(pilot, "1/8")
        await sees(pilot, "label 7 pairs of support (alice 1)")

    drive(script, workspace)


def test_letters_and_brackets_go_to_the_stations(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "label 8 pairs")
        await pilot.press("d")
        await until(pilot, lambda: app.screen.NAME == "datasets")
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: app.screen.NAME == "home")
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: app.screen.NAME == "datasets")
        await pilot.press("q")
        await until(pilot, lambda: app.screen.NAME == "home")

    drive(script, workspace)


def test_what_wants_freezing_is_asked_for_at_once(workspace: Workspace) -> None:
    pairs = open_pairs(workspace, "support")
    with pairs.journal("alice") as journal:
        journal.append_many([journal.prepare(pair.id, "a", origin="screen") for pair in pairs.pairs()])

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "freeze 8 judged pairs of support")
        app.screen.query_one("#steps", RowList).move_to("pairs freeze:support")
        await pilot.press("enter")
        await sees(pilot, "Freeze the verdicts on 8 pairs of support")

    drive(script, workspace)


def test_back_goes_where_one_would_look(workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n')
    add_dataset(workspace, file, "chat")

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "label 8 pairs")
        app.go("inspect", "chat")
        await until(pilot, lambda: app.screen.NAME == "inspect" and "1 row" in text_of(app))
        await pilot.press("q")
        await until(pilot, lambda: app.screen.NAME == "datasets")
        await pilot.press("q", "p")
        await until(pilot, lambda: app.screen.NAME == "pairs" and "support" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.NAME == "label")
        await pilot.press("q")
        await until(pilot, lambda: app.screen.NAME == "pairs")

    drive(script, workspace)


def test_leaving_asks_and_esc_stays(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "label 8 pairs")
        await pilot.press("q")
        await sees(pilot, "Leave the workbench?")
        await pilot.press("escape")
        await until(pilot, lambda: "Leave the workbench?" not in text_of(app))
        await pilot.press("ctrl+q")  # flow control, never an end
        await pilot.press("q", "q")
        await until(pilot, lambda: not app.is_running or app.return_value == 0)

    assert drive(script, workspace).return_value == 0


def test_too_small_says_so_and_loses_nothing(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "label 8 pairs")
        await pilot.press("j")
        key = app.screen.query_one("#steps", RowList).key
        await pilot.resize_terminal(40, 10)
        await sees(pilot, "40x10 is too small")
        await pilot.press("d")  # keys of a screen that cannot be seen do nothing
        assert app.screen.NAME == "home"
        await pilot.resize_terminal(80, 24)
        await sees(pilot, "label 8 pairs")
        assert app.screen.query_one("#steps", RowList).key == key

    drive(script, workspace)
