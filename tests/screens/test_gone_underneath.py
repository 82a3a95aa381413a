"""What another program does to the files of a workspace while a screen shows them: deletes, tears, judges, adds."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from screens.row_list import RowList
from screens.station import Station
from tests.screens.driving import drive, sees, text_of, until
from tests.screens.furnished_workspace import PAIRS, PREFERENCES, RUN_DONE, RUN_FAILED
from workbench.dataset_store import add_dataset
from workbench.run_list import find_run
from workbench.run_removal import remove_run
from workbench.user_settings import UserSettings
from workbench.workspace import Workspace

Damage = Callable[[Path], object]
AS_ALICE = {"settings": UserSettings(annotator="alice")}
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("told")]


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def tear(path: Path) -> None:
    """The second half of the file is gone."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00 [/nope] {{{\n" * 5)


def empty(path: Path) -> None:
    path.write_bytes(b"")


class TestDatasets:
    @pytest.mark.parametrize(
        ("name", "damage"),
        [("demonstrations", tear), ("demonstrations", garbage), (PREFERENCES, remove), (PREFERENCES, tear)],
    )
    def test_it_is_harmed_while_inspect_pages(self, workspace: Workspace, name: str, damage: Damage) -> None:
        folder = workspace.root / ("prefs" if name == PREFERENCES else "datasets") / name

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, f"{name} ·")
            await pilot.press("down", "enter")
            if damage is remove:
                remove(folder)
            for file in [*workspace.blobs.rglob("*"), *folder.rglob("*")]:
                if file.is_file() and file.suffix != ".toml":
                    file.chmod(0o600)
                    damage(file)
            await pilot.press("n", "end", "r", "t", "N", "escape", "y", "slash", *"zz", "enter", "escape")
            await pilot.pause(0.1)
            await pilot.press("escape", "escape")

        drive(script, workspace, station="inspect", subject=name)

    @pytest.mark.parametrize("name", ["demonstrations", PREFERENCES])
    def test_it_is_deleted_while_it_is_listed(self, workspace: Workspace, name: str) -> None:
        folder = workspace.root / ("prefs" if name == PREFERENCES else "datasets") / name

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, name)
            app.screen.query_one("#list", RowList).move_to(name)
            remove(folder)
            await pilot.press("v")
            await pilot.press("enter")
            await until(pilot, lambda: getattr(app.screen, "NAME", "") == "inspect")
            await until(pilot, lambda: f"no dataset named {name}" in text_of(app), "told for as long as one looks")
            await pilot.press("escape")
            await until(pilot, lambda: name not in [row.key for row in app.screen.query_one("#list", RowList).rows])

        drive(script, workspace, station="datasets")

    @pytest.mark.parametrize("damage", [remove, tear])
    def test_its_description_is_harmed_while_it_is_listed(
        self, workspace: Workspace, damage: Damage, told: list[str]
    ) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "demonstrations")
            damage(workspace.datasets / "demonstrations" / "dataset.toml")
            assert isinstance(app.screen, Station)
            app.screen.wake()
            await until(pilot, lambda: any("dataset.toml" in message for message in told), "told")
            await pilot.press("v", "enter")
            await pilot.pause(0.1)

        drive(script, workspace, station="datasets", subject="demonstrations")


CURVES_KEYS = "splmop"
SAID_OF = {
    ("runs", "config empty"): "damaged", ("runs", "config garbage"): "damaged", ("runs", "all gone"): "1 in all",
    ("curves", "config empty"): "damaged", ("curves", "all gone"): "gone",
}  # fmt: skip
"""What a screen says of the harm; of what is not named here the run is shown as it was."""


class TestRuns:
    HARM: ClassVar[dict[str, tuple[str, Damage]]] = {
        "status garbage": ("status.json", garbage), "status torn": ("status.json", tear),
        "config empty": ("run.toml", empty), "config torn": ("run.toml", tear),
        "config garbage": ("run.toml", garbage),
        "metrics torn": ("metrics.jsonl", tear), "metrics garbage": ("metrics.jsonl", garbage),
        "metrics gone": ("metrics.jsonl", remove),
        "samples torn": ("samples.jsonl", tear), "samples garbage": ("samples.jsonl", garbage),
        "log garbage": ("log.txt", garbage), "all gone": (".", remove),
    }  # fmt: skip

    @pytest.mark.parametrize(
        ("station", "harm"),
        [("curves", harm) for harm in HARM]
        + [("runs", harm) for harm in ("status garbage", "config empty", "config garbage", "metrics torn", "all gone")],
    )
    def test_its_folder_is_torn_while_it_is_shown(self, workspace: Workspace, station: str, harm: str) -> None:
        name, damage = self.HARM[harm]
        file = workspace.runs / RUN_DONE / name

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "done")
            if file.exists():
                damage(file)
            shown = app.screen
            assert isinstance(shown, Station)
            shown.wake()
            await until(pilot, lambda: SAID_OF.get((station, harm), RUN_DONE[5:]) in text_of(app))
            await pilot.press(*(CURVES_KEYS if station == "curves" else "lqD"))
            await pilot.press("escape")
            await until(pilot, lambda: shown._job is None)

        drive(script, workspace, station=station, subject=RUN_DONE)

    @pytest.mark.parametrize("harm", ["status garbage", "config torn", "metrics garbage", "all gone"])
    def test_other_stations_open_beside_a_torn_run(self, workspace: Workspace, harm: str) -> None:
        name, damage = self.HARM[harm]
        damage(workspace.runs / RUN_DONE / name)

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            for other in ("home", "compare", "launch", "curves", "inspect"):
                app.open(other, RUN_DONE)
                await until(pilot, lambda other=other: getattr(app.screen, "NAME", "") == other)
                await until(pilot, lambda: bool(app.screen.query("#keys")))
                await pilot.pause(0.1)

        drive(script, workspace)

    def test_a_torn_line_of_samples_leaves_the_others(self, workspace: Workspace) -> None:
        path = workspace.runs / RUN_DONE / "samples.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2])

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "done")
            await pilot.press("s")
            await sees(pilot, "the sample prompt 0")
            await sees(pilot, "2 answers")
            await pilot.press("j")
            await sees(pilot, "the sample prompt 2")

        drive(script, workspace, station="curves", subject=RUN_DONE)


class TestPairs:
    @pytest.mark.parametrize(
        ("name", "damage"),
        [("pairs.parquet", remove), ("pairs.parquet", tear), ("pairs.toml", remove), ("pairs.toml", tear),
         ("judgments", remove), (".", remove)],
    )  # fmt: skip
    def test_the_set_is_harmed_while_a_pair_is_shown(
        self, workspace: Workspace, told: list[str], name: str, damage: Damage
    ) -> None:
        file = workspace.pairs / PAIRS / name

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "1 left")
            await pilot.pause(0.4)
            damage(file)
            await pilot.press("3")
            await until(pilot, lambda: "saved #" in text_of(app) or "NOT SAVED" in text_of(app), "saved, or said not")
            if "saved #" in text_of(app):
                assert any(b'"tie"' in journal.read_bytes() for journal in file.parent.rglob("alice.*.jsonl"))
            await pilot.press("u", "c", "x", "enter", "s")
            await pilot.pause(0.1)
            app.go("pairs", PAIRS)
            await until(pilot, lambda: "arena" in text_of(app).splitlines()[0], "the list is there")
            await pilot.press("f", "escape", "R", "enter")
            await pilot.pause(0.1)

        drive(script, workspace, station="label", subject=PAIRS, **AS_ALICE)


class TestTwoPrograms:
    def test_two_apps_judge_under_two_names(self, workspace: Workspace) -> None:
        asyncio.run(asyncio.wait_for(two_judge(workspace, "bob", "carol"), 40))
        journals = workspace.pairs / PAIRS / "judgments"
        for name in ("bob", "carol"):
            assert b'"tie"' in b"".join(path.read_bytes() for path in journals.glob(f"{name}.*"))

    def test_two_apps_judge_under_the_same_name(self, workspace: Workspace) -> None:
        """The same pair stands on both: one verdict is kept, the other is refused in words."""
        seen = asyncio.run(asyncio.wait_for(two_judge(workspace, "bob", "bob"), 40))
        journals = (workspace.pairs / PAIRS / "judgments").glob("bob.*")
        verdicts = [line for path in journals for line in path.read_bytes().splitlines() if b'"tie"' in line]
        assert len(verdicts) == sum("saved #" in text for text in seen), seen
        assert verdicts

    def test_a_run_is_deleted_by_one_while_the_other_shows_it(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, RUN_FAILED)
            await pilot.press("D")
            await sees(pilot, "for good?")
            remove_run(find_run(workspace, app.screen._question.split()[1]))
            await pilot.press("D")
            await until(pilot, lambda: not app.screen.is_modal)
            await until(pilot, lambda: len(app.screen.query_one("#list", RowList).rows) == 1)

        drive(script, workspace, station="runs", subject=RUN_FAILED)

    def test_a_dataset_added_by_one_is_listed_by_the_other(self, workspace: Workspace, tmp_path: Path) -> None:
        (tmp_path / "new.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 3, "utf-8")

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "demonstrations")
            await pilot.press("j")
            chosen = app.screen.query_one("#list", RowList).key
            add_dataset(workspace, tmp_path / "new.jsonl", "aaa-new")
            await sees(pilot, "aaa-new")
            assert app.screen.query_one("#list", RowList).key == chosen, "the cursor stays on its row"

        drive(script, workspace, station="datasets")


async def two_judge(workspace: Workspace, first: str, second: str) -> list[str]:
    """Two apps on the same set, each a tie at the same time; what their screens said then."""
    seen: list[str] = []
    both = asyncio.Barrier(2)

    async def sit(name: str) -> None:
        app = WorkbenchApp(
            workspace, station="label", subject=PAIRS, settings=UserSettings(annotator=name), ascii_only=False
        )
        async with app.run_test(size=(80, 24), notifications=True) as pilot:
            await sees(pilot, "1 left")
            await pilot.pause(0.4)
            await both.wait()
            await pilot.press("3")
            await until(pilot, lambda: any(word in text_of(app) for word in ("saved #", "judged meanwhile")))
            seen.append(text_of(app))
            await both.wait()

    await asyncio.gather(sit(first), sit(second))
    return seen
