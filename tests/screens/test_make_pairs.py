"""Make pairs: the form on the screen, models that answer with progress, Esc and going on; from where it is reached."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from screens.launch_rows import FormRows
from screens.row_list import RowList
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from tests.workbench.model_server import serving
from workbench.dataset_store import add_dataset
from workbench.pair_sets import open_pairs
from workbench.workspace import Workspace, init


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    made = init(tmp_path / "ws")
    for name, row in (("answers", {"prompt": "q{}", "a": "yes {}", "b": "no {}"}), ("asked", {"prompt": "q{}"})):
        file = tmp_path / f"{name}.jsonl"
        rows = [{key: text.format(n) for key, text in row.items()} for n in range(6)]
        file.write_text("".join(json.dumps(one) + "\n" for one in rows))
        add_dataset(made, file, name, copy=True)
    return made


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_the_pictures(workspace: Workspace, size: tuple[int, int]) -> None:
    async def of_a_dataset(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "6 pairs at most")
        await check_golden("make-dataset", pilot)

    async def of_models(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "12 to be given")
        await check_golden("make-models", pilot)
        app.screen.query_one(FormRows).move_to("samples")
        await pilot.press("enter", "backspace", "1", "enter")
        await sees(pilot, "▲ one model needs 2 or more to make pairs")
        await check_golden("make-problem", pilot)
        app.screen.query_one(FormRows).move_to("kind")
        await pilot.press("l")
        await sees(pilot, "▲ name a second one")
        await check_golden("make-arena-problem", pilot)
        app.screen.put_value("model2", "run:1124-dpo-better")
        await sees(pilot, "±0.31")
        await check_golden("make-arena", pilot)

    drive(of_a_dataset, workspace, size=size, station="make")
    drive(of_models, workspace, size=size, station="make", subject="asked")


def test_the_name_follows_until_it_is_typed_and_what_is_wrong_is_gone_to(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "6 pairs at most")
        await pilot.press("l")
        await sees(pilot, "make pairs · asked")
        app.screen.query_one(FormRows).move_to("name")
        await pilot.press("enter", *"-x", "enter")
        app.screen.query_one(FormRows).move_to("kind")
        await pilot.press("l", "l")
        await sees(pilot, "make pairs · asked-x")
        await pilot.press("q")
        await until(pilot, lambda: app.screen.NAME == "home")
        app.go("make")
        await sees(pilot, "make pairs · asked-x")
        app.screen.put_value("repeat_share", "7")
        await pilot.press("w")
        await sees(pilot, "repeat_share: a number from 0 to 1")
        assert app.screen.query_one(FormRows).key == "repeat_share", "a hidden setting is shown"
        app.screen.put_value("repeat_share", "0")
        app.screen.put_value("guidelines", "nowhere.md")
        app.screen.query_one(FormRows).move_to("guidelines")
        await pilot.press("enter")
        await sees(pilot, "1 field is missing or wrong")
        await pilot.press("ctrl+u")
        await sees(pilot, "6 pairs at most")

    drive(script, workspace, station="make")
    assert workspace.names("pairs") == []


def test_an_arena_is_made_by_keys_from_the_arenas(workspace: Workspace) -> None:
    with serving(lambda number, body: None) as server:

        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            await sees(pilot, "prompts ·")
            await pilot.press("r")
            await sees(pilot, "m makes one")
            await pilot.press("m")
            await sees(pilot, "name a second one")
            await pilot.press("w")
            await sees(pilot, "model2: name a second one")
            assert app.screen.query_one(FormRows).key == "model2"
            app.screen.put_value("model", f"url:{server.url}#one")
            await pilot.press("enter", *f"url:{server.url}#two", "enter")
            await sees(pilot, "±0.31")
            app.screen.query_one(FormRows).move_to("name")
            await sees(pilot, "v1-one-against-v1-two")
            await pilot.press("w")
            await until(pilot, lambda: app.screen.NAME == "compare")
            await sees(pilot, "nothing is judged yet")
            await until(pilot, lambda: app.screen.view == "arenas")

        drive(script, workspace, station="compare")
        assert len(server.asked) == 12
    made = open_pairs(workspace, "v1-one-against-v1-two", "arena")
    assert made.info.rows == 6
    assert [one["source"].rpartition("#")[2] for one in made.info.source["models"]] == ["one", "two"]


def test_models_answer_esc_ends_it_and_w_goes_on(workspace: Workspace) -> None:
    go_on = False

    with serving(lambda number, body: "hang" if number > 5 and not go_on else None) as server:

        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            nonlocal go_on
            await sees(pilot, "12 to be given")
            app.screen.put_value("model", f"url:{server.url}#m")
            await pilot.press("w")
            await sees(pilot, "left · esc cancels")
            await pilot.press("escape")
            await sees(pilot, "cancelled: making asked")
            assert app.screen.NAME == "make"
            go_on = True
            asked = len(server.asked)
            await pilot.press("w")
            await until(pilot, lambda: app.screen.NAME == "pairs")
            await until(pilot, lambda: [one.key for one in app.screen.query("#list").results(RowList)] == ["asked"])
            assert len(server.asked) - asked == 12 - 5, "what was answered is not asked again"

        drive(script, workspace, station="make", subject="asked")
    assert open_pairs(workspace, "asked").info.rows == 6


def test_a_server_that_refuses_is_told_beside_the_form(workspace: Workspace) -> None:
    reply = (401, {}, b'{"error": {"message": "who are you?"}}')
    with serving(lambda number, body: reply) as server:

        async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
            await sees(pilot, "12 to be given")
            app.screen.put_value("model", f"url:{server.url}#m")
            await pilot.press("w")
            await sees(pilot, "who are you?")
            await until(pilot, lambda: "[url_keys]" in str(app.screen.query_one("#outlook").text))
            assert app.screen.NAME == "make"
            app.screen.put_value("seed", "3")
            assert "who are you?" not in app.screen.query_one("#outlook").text
            assert text_of(app)

        drive(script, workspace, station="make", subject="asked")
    assert workspace.names("pairs") == []
