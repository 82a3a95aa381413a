"""No station ends or loses anything where it is resized in the middle, or left before it is there.

Every test here also fails where the app tells of a fault of its own.
"""

from __future__ import annotations

import asyncio
import threading

import pytest
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from screens.modals import AskText, Question, Reading
from screens.row_list import RowList
from screens.station import Station
from screens.stations import LOOP, STATIONS
from screens.tasks import Task
from tests.screens.driving import SIZE, WIDE, drive, sees, text_of, until
from tests.screens.every_station import SUBJECTS, idle, station_of
from workbench.workspace import Workspace

SMALL = (40, 10)
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("told")]


class TestResizing:
    @pytest.mark.parametrize("station", list(STATIONS))
    def test_every_station_comes_back_as_it_was(self, workspace: Workspace, station: str) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await idle(app, pilot)
            lists = [(rows, rows.key) for rows in app.screen.query(RowList).results()]
            for size in (SMALL, SIZE, SMALL, WIDE, SIZE):
                await pilot.resize_terminal(*size)
                if size == SMALL:
                    await sees(pilot, "too small")
                    await pilot.press("j", "1", "D", "w")
            await until(pilot, lambda: "too small" not in text_of(app))
            assert station_of(app) == station
            assert not app.screen.is_modal
            assert [(rows, rows.key) for rows in app.screen.query(RowList).results()] == lists

        drive(script, workspace, size=WIDE, station=station, subject=SUBJECTS.get(station, ""))

    @pytest.mark.parametrize("station", ["inspect", "label", "launch", "compare"])
    def test_a_question_and_what_is_typed_stay(self, workspace: Workspace, station: str) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await idle(app, pilot)
            answers: list[str | None] = []
            for modal in (Reading([]), Question("Sure?", []), AskText("A name?")):
                app.push_screen(modal, answers.append)
                await until(pilot, lambda modal=modal: app.screen is modal and bool(modal.query("Line")))
            await pilot.press(*"half")
            for size in (SMALL, SIZE):
                await pilot.resize_terminal(*size)
                await pilot.pause()
                assert isinstance(app.screen, AskText)
                await pilot.press("x")
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, Question))
            assert answers == ["halfxx"]
            await pilot.press("escape", "escape")
            await until(pilot, lambda: station_of(app) == station)

        drive(script, workspace, size=WIDE, station=station, subject=SUBJECTS.get(station, ""))

    @pytest.mark.parametrize("station", ["home", "add", "label"])
    def test_a_task_goes_on_and_its_result_comes(self, workspace: Workspace, station: str) -> None:
        go_on = threading.Event()

        def work(task: Task) -> int:
            while not go_on.wait(0.01):
                task.report(3, 10)
            return 7

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await idle(app, pilot)
            results: list[int] = []
            shown = app.screen
            assert isinstance(shown, Station)
            shown.start_task("counting", work, results.append)
            for size in (SMALL, SIZE):
                await pilot.resize_terminal(*size)
            await sees(pilot, "esc cancels")
            go_on.set()
            await until(pilot, lambda: results == [7])

        drive(script, workspace, size=WIDE, station=station, subject=SUBJECTS.get(station, ""))


class TestHaste:
    @pytest.mark.parametrize("key", ["right_square_bracket", "left_square_bracket"])
    def test_ten_stations_on_without_waiting(self, workspace: Workspace, key: str) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await idle(app, pilot)
            by = 1 if key.startswith("right") else -1
            for _ in range(10):
                app.go_to_neighbour(station_of(app), by)  # as keys that were typed ahead
            await idle(app, pilot)
            assert station_of(app) == LOOP[10 * by % len(LOOP)]
            assert len(app.screen_stack) <= 3
            await pilot.press(*[key] * 10)
            await idle(app, pilot)
            await until(pilot, lambda: station_of(app) in LOOP)

        drive(script, workspace)

    @pytest.mark.parametrize("first", list(STATIONS))
    def test_left_before_it_is_composed(self, workspace: Workspace, first: str) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            for then in ("home", "pairs"):
                app.go(first, SUBJECTS.get(first, ""))
                app.go(then)
                await idle(app, pilot)
                assert station_of(app) == then
                app.open(first, SUBJECTS.get(first, ""))
                app.back()
                await idle(app, pilot)
                assert station_of(app) == then

        drive(script, workspace)

    @pytest.mark.parametrize("first", [name for name in STATIONS if name != "home"])
    def test_q_while_it_loads(self, workspace: Workspace, first: str) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            for turns in (0, 1, 3, 8, 21):
                app.go(first, SUBJECTS.get(first, ""))
                for _ in range(turns):
                    await asyncio.sleep(0)
                app.back()
                under = STATIONS[first].beside or "home"
                await until(pilot, lambda under=under: station_of(app) == under)  # type: ignore[misc]

        drive(script, workspace)

    @pytest.mark.parametrize("station", ["home", "pairs", "label", "launch", "compare"])
    def test_esc_cancels_a_task_and_a_second_leaves(self, workspace: Workspace, station: str) -> None:
        ended = threading.Event()

        def work(task: Task) -> None:
            try:
                for _ in range(2000):
                    task.check()
                    threading.Event().wait(0.005)
            finally:
                ended.set()

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await idle(app, pilot)
            shown = app.screen
            assert isinstance(shown, Station)
            app.screen.set_focus(None)
            shown.start_task("counting", work, lambda _: pytest.fail("it was cancelled"))
            await pilot.press("escape")
            await sees(pilot, "cancelled: counting")
            assert app.screen is shown
            assert ended.is_set()
            if station == "home":
                return  # it lies under the others, and its task goes on
            ended.clear()
            shown.start_task("counting", work)
            app.go("home")
            await until(pilot, ended.is_set, "leaving ends it, too")

        drive(script, workspace, station=station, subject=SUBJECTS.get(station, ""))

    @pytest.mark.parametrize("station", list(STATIONS))
    def test_leaving_the_program_while_it_loads(self, workspace: Workspace, station: str) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            if station != "home":
                app.go(station, SUBJECTS.get(station, ""))
            app.exit(0)

        app = drive(script, workspace)
        assert app.crash is None
