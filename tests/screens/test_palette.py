"""The palette goes to anything by a few letters."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.screens.driving import drive, sees, text_of, until
from tests.workbench.run_folders import make_run
from workbench.pair_sets import CandidatePair, create_pairs
from workbench.palette_entries import things_of
from workbench.user_settings import read_settings
from workbench.workspace import Workspace, init


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = init(tmp_path / "ws")
    make_run(made, "1124-sft-one-abc", checkpoints=(4,))
    create_pairs(made, "support", [CandidatePair("question", "yes", "no")], {})
    return made


def test_everything_with_a_name_is_an_entry(workspace: Workspace) -> None:
    found = {(thing.kind, thing.name, thing.station) for thing in things_of(workspace)}
    assert ("pairs", "support", "label") in found
    assert ("run", "1124-sft-one-abc", "curves") in found
    assert ("checkpoint", "1124-sft-one-abc@4", "compare") in found
    assert {("model", "sample", "launch"), ("model", "run:1124-sft-one-abc", "launch")} <= found


def test_words_in_any_order_find_a_station(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "next")
        await pilot.press("colon")
        await sees(pilot, "go to or do")
        await pilot.press(*"sets screen add")
        await until(pilot, lambda: "datasets and preference sets" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.NAME == "datasets")

    drive(script, workspace)


def test_a_run_is_found_by_its_name(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "next")
        await pilot.press("ctrl+p")
        await sees(pilot, "go to or do")
        await pilot.press(*"checkpoint")
        await sees(pilot, "1124-sft-one-abc@4")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen.NAME == "home")

    drive(script, workspace)


def test_a_theme_is_worn_and_remembered(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "next")
        await pilot.press("colon")
        await sees(pilot, "go to or do")
        await pilot.press(*"theme light")
        await sees(pilot, "workbench-light")
        await pilot.press("enter")
        await until(pilot, lambda: app.theme == "workbench-light")

    drive(script, workspace)
    assert read_settings().theme == "workbench-light"


def test_a_model_leads_to_the_form_with_it_chosen(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "next")
        await pilot.press("colon", *"model sft", "enter")
        await until(pilot, lambda: app.screen.NAME == "launch")
        await sees(pilot, "launch · sft · run:1124-sft-one-abc")

    drive(script, workspace)


def test_a_long_toast_is_cut_and_can_be_read_whole(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "next")
        app.tell(f"{workspace.root}/datasets/a is torn. " + "x" * 400 + " Put it back.", "error")
        await sees(pilot, "datasets/a is torn")
        await sees(pilot, "last message")
        assert str(workspace.root) not in text_of(app).partition("\n")[2]
        await pilot.press("colon", *"last message", "enter")
        await sees(pilot, "Put it back.")

    drive(script, workspace)


def test_nothing_typed_leaves_nothing(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "next")
        await pilot.press("colon", "enter")
        await until(pilot, lambda: app.screen.NAME == "datasets")

    drive(script, workspace)


def test_a_name_comes_before_words_about_it(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "next")
        await pilot.press("colon")
        await sees(pilot, "go to or do")
        await pilot.press(*"runs")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.NAME == "runs")

    drive(script, workspace)


def test_an_action_of_the_screen_below_runs_there(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "next")
        await pilot.press("colon")
        await sees(pilot, "go to or do")
        await pilot.press(*"action datasets preference")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.NAME == "datasets")

    drive(script, workspace)


def test_help_lists_what_the_keys_do(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "next")
        await pilot.press("question_mark")
        await sees(pilot, "[home.datasets]")
        assert "Datasets and preference sets." in text_of(app)
        await pilot.press("q")
        await until(pilot, lambda: app.screen.NAME == "home")

    drive(script, workspace)
