"""Datasets: the list, its details, and the ways onward."""

from __future__ import annotations

from pathlib import Path

import pytest

from screens.modals import Question
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from workbench.dataset_store import add_dataset
from workbench.pair_sets import CandidatePair, create_pairs
from workbench.preferences import freeze
from workbench.workspace import Workspace, init


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = init(tmp_path / "ws")
    file = tmp_path / "ws" / "chat.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n' * 3 + '{"prompt": "a", "completion": ""}\n')
    add_dataset(made, file, "chat", note="synthetic", origin="chat.jsonl")
    rows = [CandidatePair(f"question {i}", f"yes {i}", f"no {i}") for i in range(12)]
    pairs = create_pairs(made, "support", rows, {})
    with pairs.journal("alice") as journal:
        journal.append_many([journal.prepare(pair.id, "a", origin="screen") for pair in pairs.pairs()])
    freeze(made, "support", "v1")
    return made


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_the_picture(workspace: Workspace, size: tuple[int, int]) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "1 dataset, 1 preference set")
        app.screen.query_one("#list").move_to("chat")
        await sees(pilot, "1 row")
        await check_golden("datasets", pilot)

    drive(script, workspace, size=size, station="datasets")


def test_the_filter_keeps_what_matches_and_esc_ends_it(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "preferences, frozen")
        await pilot.press("slash", *"froz")
        await until(pilot, lambda: "prompt-completion" not in text_of(app))
        assert "preferences, frozen" in text_of(app)
        await pilot.press("escape")
        await sees(pilot, "prompt-completion")
        assert app.screen.NAME == "datasets"  # the first Esc ends the filter, it does not leave

    drive(script, workspace, station="datasets")


def test_verify_tells_a_changed_file(workspace: Workspace, tmp_path: Path) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "chat")
        app.screen.query_one("#list").move_to("chat")
        await pilot.press("v")
        await sees(pilot, "chat is what was recorded")
        with open(tmp_path / "ws" / "chat.jsonl", "a") as file:
            file.write("{}\n")
        await pilot.press("v")
        await sees(pilot, "sha256")

    drive(script, workspace, station="datasets")


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_delete_names_what_goes_and_what_stays(workspace: Workspace, tmp_path: Path, size: tuple[int, int]) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "prompt-completion")
        app.screen.query_one("#list").move_to("chat")
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, Question))
        await sees(pilot, "Delete dataset chat for good?")
        await sees(pilot, "the file stays where it is")
        await pilot.press("escape")
        assert (workspace.datasets / "chat").is_dir()
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, Question))
        await pilot.press("D")
        await until(pilot, lambda: not (workspace.datasets / "chat").exists())
        await until(pilot, lambda: "prompt-completion" not in text_of(app))
        assert (tmp_path / "ws" / "chat.jsonl").is_file()

    drive(script, workspace, size=size, station="datasets")


def test_a_dataset_deleted_while_listed_goes_away(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "prompt-completion")
        (workspace.datasets / "chat" / "dataset.toml").unlink()
        app.screen.wake()
        await until(pilot, lambda: "prompt-completion" not in text_of(app))
        await sees(pilot, "is missing")

    drive(script, workspace, station="datasets")
