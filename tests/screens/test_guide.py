"""The guide: its panel on every screen, and the key that leads on."""

from __future__ import annotations

from pathlib import Path

import pytest

from screens.guide import Guide
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from workbench.dataset_store import add_dataset
from workbench.guide_steps import PAIRS
from workbench.pair_sets import CandidatePair, create_pairs
from workbench.workspace import Workspace, init


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = init(tmp_path / "ws")
    file = made.root / "answers.jsonl"
    file.write_text('{"prompt": "a", "a": "b", "b": "c"}\n')
    add_dataset(made, file, "answers", origin="answers.jsonl")
    create_pairs(made, PAIRS, [CandidatePair(f"question {i}", f"yes {i}", f"no {i}") for i in range(12)], {})
    return made


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_the_panel_names_the_step_and_the_key(workspace: Workspace, size: tuple[int, int]) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "guide 1 of 8 · look at the data")
        await sees(pilot, "label 12 pairs")
        await sees(pilot, "gpus")
        await check_golden("guide", pilot)

    drive(script, workspace, size=size, guide=Guide(workspace))


def test_one_key_leads_from_step_to_step(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "guide 1 of 8")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: app.screen.NAME == "inspect")
        await sees(pilot, "guide 1 of 8 · look at the data")  # still looking
        await pilot.press("q")
        await sees(pilot, "guide 2 of 8 · label 10 pairs by hand")
        assert "press ctrl+n" in text_of(app)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: app.screen.NAME == "label")

    drive(script, workspace, guide=Guide(workspace))


def test_without_a_guide_the_key_does_nothing(workspace: Workspace) -> None:
    async def script(app, pilot) -> None:  # type: ignore[no-untyped-def]
        await sees(pilot, "label 12 pairs")
        await pilot.press("ctrl+n")
        assert app.screen.NAME == "home"
        assert not app.screen.query("#guide")

    drive(script, workspace)
