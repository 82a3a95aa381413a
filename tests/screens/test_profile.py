"""Profile on the screen: a sample at once, then all rows; tokens by a key; over to Lint."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from textual.pilot import Pilot

import screens.profile
from screens.app import WorkbenchApp
from screens.modals import AskText
from screens.text_view import TextView
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, until
from workbench.dataset_store import add_dataset
from workbench.workspace import Workspace, init


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = init(tmp_path / "ws")
    rows = [
        {
            "prompt": f"My rear wheel wobbles since I changed tyre {n}. " * (n % 5 + 1),
            "completion": "Check that the tyre bead sits evenly." if n % 3 else "Проверьте обод колеса.",
            "source\x1b[2J": ("forum", "manual", None)[n % 3],
            "score": n / 4,
        }
        for n in range(300)
    ]
    file = made.root / "support.jsonl"
    file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    add_dataset(made, file, "support")
    return made


@pytest.mark.parametrize("size", [SIZE, WIDE])
def test_the_picture_and_tokens(workspace: Workspace, size: tuple[int, int]) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await pilot.press("i")
        await sees(pilot, "support · prompt-completion · 300 rows, 300 usable")
        await sees(pilot, "rows with")
        await check_golden("profile", pilot)
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, AskText))
        await pilot.press("enter")
        await sees(pilot, "an example, tokens")
        if size == WIDE:
            return
        await pilot.press("c")
        await sees(pilot, "300 usable · ")  # looked through: esc would cancel the looking first
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen.NAME == "datasets")

    drive(script, workspace, size=size, station="datasets", subject="support")


def test_a_sample_is_there_while_all_rows_are_read_and_esc_ends_that(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, hold = screens.profile.profile, threading.Event()

    def held(*names: Any, sample: int, progress: Any, **options: Any) -> Any:
        while not sample and not hold.wait(0.01):
            progress(1, 2)
        return work(*names, sample=sample, progress=progress, **options)

    monkeypatch.setattr(screens.profile, "SAMPLE_ROWS", 50)
    monkeypatch.setattr(screens.profile, "profile", held)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "a sample, the first 50 rows; all of them follow")
        await sees(pilot, "profiling support")
        await pilot.press("escape")
        await sees(pilot, "cancelled")
        assert "a sample, the first 50 rows" in app.screen.query_one("#what").text  # type: ignore[attr-defined]
        assert "prompt, characters" in app.screen.query_one(TextView).text
        hold.set()
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, AskText))
        await pilot.press("backspace", "enter")
        await sees(pilot, "support · prompt-completion · 300 rows, 300 usable")

    drive(script, workspace, station="profile", subject="support")


def test_a_model_that_is_not_there_is_told_and_the_numbers_stay(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "300 rows, 300 usable")
        await pilot.press("m")
        await until(pilot, lambda: isinstance(app.screen, AskText))
        await pilot.press("x", "enter")
        await until(pilot, lambda: "no model named x" in app.last_told)
        await sees(pilot, "300 rows, 300 usable")

    drive(script, workspace, station="profile", subject="support")
