"""No station ends or falls silent where nothing can be written, or nothing is there.

Every test here also fails where the app tells of a fault of its own.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from screens.app import WorkbenchApp
from screens.station import Station
from screens.stations import STATIONS
from tests.screens.driving import drive, sees, text_of, until
from tests.screens.every_station import SUBJECTS, idle, station_of
from tests.screens.furnished_workspace import PAIRS, PREFERENCES, RUN_DONE
from workbench.user_settings import UserSettings
from workbench.workspace import SCHEMA, Workspace, init, open_workspace

pytestmark = pytest.mark.usefixtures("told")


@pytest.fixture
def read_only(workspace: Workspace) -> Workspace:
    """Read-only for root, too: a newer program made it."""
    marker = workspace.root / "workspace.toml"
    marker.write_text(marker.read_text("utf-8").replace(f"schema = {SCHEMA}", f"schema = {SCHEMA + 1}"), "utf-8")
    opened = open_workspace(workspace.root)
    assert opened.read_only_reason
    return opened


def files_of(workspace: Workspace) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(workspace.root.rglob("*")) if path.is_file()}


class TestReadOnly:
    @pytest.mark.parametrize("station", list(STATIONS))
    def test_every_station_opens_and_says_so(self, read_only: Workspace, told: list[str], station: str) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await idle(app, pilot)
            assert station_of(app) == station
            assert any("read-only" in message for message in told)
            assert "read-only" in text_of(app).splitlines()[0], "the header says so as long as it is true"

        before = files_of(read_only)
        drive(script, read_only, station=station, subject=SUBJECTS.get(station, ""))
        assert files_of(read_only) == before

    @pytest.mark.parametrize(
        ("station", "subject", "keys", "begins"),
        [
            ("label", PAIRS, ["3"], "1 left"),
            ("label", PAIRS, ["u"], "1 left"),
            ("pairs", PAIRS, ["f", "enter"], PAIRS),
            ("pairs", "from:answers", ["enter"], "A pair set of"),
            ("make", "answers", ["w"], "pairs at most"),
            ("runs", RUN_DONE, ["D", "D"], RUN_DONE),
            ("runs", "1124-sft-torn-bb2", ["R"], RUN_DONE),
            ("curves", "1124-sft-torn-bb2", ["R"], "failed"),
            ("launch", PREFERENCES, ["w"], "method"),
            ("launch", PREFERENCES, ["W"], "method"),
            ("compare", RUN_DONE, ["b"], "models"),
        ],
    )
    def test_what_would_write_says_why_not(
        self, read_only: Workspace, told: list[str], station: str, subject: str, keys: list[str], begins: str
    ) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, begins)
            if station == "label":
                await pilot.pause(0.4)  # it takes no verdict sooner
            told.clear()
            for key in keys:
                await pilot.press(key)
                await pilot.pause(0.15)
                if station in ("pairs", "runs") and key == keys[0] and len(keys) > 1:
                    await until(pilot, lambda: app.screen.is_modal or bool(told), "asked or refused")
            if station != "compare":
                await until(pilot, lambda: any("read-only" in message for message in told) or
                            "read-only" in text_of(app).splitlines()[-2], "refused")  # fmt: skip

        before = files_of(read_only)
        drive(script, read_only, station=station, subject=subject, settings=UserSettings(annotator="alice"))
        assert files_of(read_only) == before

    def test_no_dataset_is_added(self, read_only: Workspace, told: list[str], tmp_path: Path) -> None:
        (tmp_path / "new.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 3, "utf-8")

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await until(pilot, lambda: app.screen.query_one("#name", Input).value == "new", "recognised")
            app.screen.query_one("#name", Input).focus()
            told.clear()
            await pilot.press("enter")
            await until(pilot, lambda: any("read-only" in message for message in told), "refused")

        drive(script, read_only, station="add", subject=str(tmp_path / "new.jsonl"))
        assert "new" not in read_only.names("datasets")

    def test_a_disk_that_became_read_only_is_told_without_ending(self, workspace: Workspace) -> None:
        """What was writable when it was opened."""

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            app.workspace = replace(app.workspace, read_only_reason="the disk went read-only.")
            app.go("launch", PREFERENCES)
            await sees(pilot, "method")
            await pilot.press("w")
            await sees(pilot, "read-only")
            assert station_of(app) == "launch"

        drive(script, workspace)
        assert len(workspace.names("runs")) == 2


NOTHING_YET = {
    "home": "add", "datasets": "a adds one", "inspect": "a adds", "lint": "a adds", "sql": "enter runs it",
    "add": "file", "pairs": "m makes one", "profile": "a adds",
    "make": "nothing here has prompts", "annotators": "m on Pairs makes one",
    "label": "m goes to the pair sets", "launch": "data",
    "runs": "t starts one", "curves": "t starts one", "compare": "m",
    "several": "o looks for others",
}  # fmt: skip
"""What an empty workspace says at each station."""


class TestNothingThere:
    @pytest.mark.parametrize("station", list(STATIONS))
    def test_an_empty_workspace_says_which_key_helps(self, tmp_path: Path, station: str) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, NOTHING_YET[station])
            for key in "jfSRDcmbuvn":
                if station_of(app) == station and not isinstance(app.focused, Input):
                    await pilot.press(key)
            await pilot.pause()

        drive(script, init(tmp_path / "ws"), station=station)

    @pytest.mark.parametrize("station", list(STATIONS))
    def test_a_subject_that_does_not_exist(self, workspace: Workspace, station: str) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            for subject in ("\x1b[2J[/nope]", "clone:none"):
                app.open(station, subject)
                await idle(app, pilot)
                assert station_of(app) == station or app.screen.is_modal
                await pilot.press("j", "escape")

        drive(script, workspace, station=station, subject="nothing-here")

    @pytest.mark.parametrize(("station", "words"), [("inspect", "nothing-here"), ("label", "cannot be opened"),
                                                    ("curves", "nothing-here")])  # fmt: skip
    def test_a_station_about_one_thing_names_what_is_missing(
        self, workspace: Workspace, station: str, words: str
    ) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, words)

        drive(script, workspace, station=station, subject="nothing-here")


def test_every_station_is_there() -> None:
    for place in STATIONS.values():
        assert issubclass(getattr(import_module(place.module), place.class_name), Station)
