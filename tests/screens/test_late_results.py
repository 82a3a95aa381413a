"""What a thread finds comes late: after the screen was left, after something else was asked, or before its turn.

Each test holds a thread at the moment that matters, lets the person act, and then lets it go on. None waits for a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from textual.pilot import Pilot

from screens.app import WorkbenchApp
from screens.compare import Compare
from screens.curves import Curves
from screens.guide import Guide
from screens.palette import Palette
from screens.row_list import RowList
from screens.station import Station
from tests.screens.driving import PATIENCE_S, drive, sees, text_of, until
from tests.screens.every_station import station_of
from tests.screens.furnished_workspace import ARENA, PAIRS, PREFERENCES, RUN_DONE
from workbench.dataset_window import Hits
from workbench.dataset_window_jsonl import JsonLinesWindow
from workbench.errors import WorkbenchError
from workbench.labeling import Sitting
from workbench.labeling_opening import open_sitting
from workbench.loop_overview import LoopReader, NextStep
from workbench.palette_entries import things_of
from workbench.workspace import Workspace

pytestmark = pytest.mark.usefixtures("told")


class Held:
    """A function that waits inside until it is let go on; `entered` says that a thread is in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.entered, self.go_on = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        self.entered.set()
        assert self.go_on.wait(PATIENCE_S)
        return self._function(*arguments)


async def leave(app: WorkbenchApp, pilot: Pilot[int]) -> None:
    """Go Home, and wait until the screen that was there is taken apart."""
    left = app.screen
    app.go("home")
    await until(pilot, lambda: station_of(app) == "home" and not left.is_running)
    await pilot.pause()


class TestLeaving:
    def test_inspect_is_left_in_the_middle_of_a_search(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go_on, searching, ended = threading.Event(), threading.Event(), threading.Event()

        def matching(window: JsonLinesWindow, text: str, should_stop: Callable[[], bool]) -> Iterator[Hits]:
            try:
                searching.set()
                assert go_on.wait(PATIENCE_S)
                yield Hits([], 1)
            finally:
                ended.set()

        monkeypatch.setattr(JsonLinesWindow, "matching", matching)

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "· 40 rows")
            await pilot.press("slash", "x", "enter")
            await until(pilot, searching.is_set)
            await leave(app, pilot)
            go_on.set()
            await until(pilot, ended.is_set)

        assert drive(script, workspace, station="inspect", subject="answers").crash is None

    def test_a_file_that_opens_after_inspect_was_left_is_closed(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed = threading.Event()

        class Window(JsonLinesWindow):
            def close(self) -> None:
                super().close()
                closed.set()

        opening = Held(lambda path, kind: Window(path))
        monkeypatch.setattr("workbench.row_opening.open_window", opening)

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await until(pilot, opening.entered.is_set)
            await leave(app, pilot)
            opening.go_on.set()
            await until(pilot, closed.is_set, "it is closed")

        drive(script, workspace, station="inspect", subject="answers")

    def test_a_sitting_that_opens_after_label_was_left_gives_its_journal_back(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sittings: list[Sitting | None] = []

        def opened(*arguments: Any) -> Sitting | None:
            sittings.append(open_sitting(*arguments[:3]))  # not told how far it is, so that nothing ends it before
            return sittings[-1]

        opening = Held(opened)
        monkeypatch.setattr("screens.label.open_sitting", opening)

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await until(pilot, opening.entered.is_set)
            await leave(app, pilot)
            opening.go_on.set()
            await until(pilot, lambda: sittings[0] is not None and sittings[0]._journals._journal is None, "given back")

        drive(script, workspace, station="label", subject=PAIRS)


def test_opening_a_large_set_says_how_far_it_is_and_esc_leaves(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def opening(space: Workspace, subject: str, who: str, progress: Callable[[int, int], None]) -> None:
        try:
            while True:
                progress(25, 100)
                threading.Event().wait(0.01)
        finally:
            ended.set()

    monkeypatch.setattr("screens.label.open_sitting", opening)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "reading the pairs · 25 %, about")
        await pilot.press("escape")
        await until(pilot, lambda: station_of(app) == "home" and ended.is_set())

    drive(script, workspace, station="label", subject=PAIRS)


class TestAskedMeanwhile:
    def test_a_filter_typed_while_the_file_is_opened_is_kept_to(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opening = Held(lambda path, kind: JsonLinesWindow(path))
        monkeypatch.setattr("workbench.row_opening.open_window", opening)

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await until(pilot, opening.entered.is_set)
            await pilot.press("slash", *"question 7", "enter")
            opening.go_on.set()
            await sees(pilot, '1 row contains "question 7"')

        drive(script, workspace, station="inspect", subject="answers")

    def test_a_run_that_is_left_and_gone_back_to_before_another_was_read(self, workspace: Workspace) -> None:
        """It looks as it did; what it can be asked must be there all the same."""

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "✓ done")
            shown = app.screen
            assert isinstance(shown, Curves)
            shown.action_neighbour_run(1)
            shown.action_neighbour_run(-1)
            await until(pilot, lambda: shown.check_action("view", ("metrics",)) is True)

        drive(script, workspace, station="curves", subject=RUN_DONE)

    def test_what_was_read_of_the_run_before_is_not_shown_as_this_one(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "✓ done")
            shown = app.screen
            assert isinstance(shown, Curves)
            old = shown._look()
            shown.action_neighbour_run(1)
            shown._show(old)  # it was read before, and comes now
            assert not shown.check_action("view", ("samples",))
            await sees(pilot, "✗ failed")

        drive(script, workspace, station="curves", subject=RUN_DONE)

    def test_the_arenas_may_be_read_before_the_models(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reading = Held(Compare._read_offer)
        monkeypatch.setattr(Compare, "_read_offer", lambda screen: reading(screen))

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "▸ arenas")
            reading.go_on.set()
            await until(pilot, lambda: "sample" in [row.key for row in app.screen.query_one("#models", RowList).rows])
            assert "no run" not in text_of(app)

        drive(script, workspace, station="compare", subject=f"arena/{ARENA}")

    def test_enter_in_the_palette_waits_for_the_names(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finding = Held(things_of)
        monkeypatch.setattr("screens.palette.things_of", finding)

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await pilot.press("colon", *PREFERENCES, "enter")
            await until(pilot, finding.entered.is_set)
            assert isinstance(app.screen, Palette)
            finding.go_on.set()
            await until(pilot, lambda: station_of(app) == "inspect" and PREFERENCES in text_of(app))

        drive(script, workspace)

    def test_an_entry_chosen_by_hand_stays_when_the_names_come(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finding = Held(things_of)
        monkeypatch.setattr("screens.palette.things_of", finding)

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await pilot.press("colon", "down", "down")
            listed = app.screen.query_one(RowList)
            chosen, before = listed.key, len(listed.rows)
            finding.go_on.set()
            await until(pilot, lambda: len(listed.rows) > before)
            assert listed.key == chosen

        drive(script, workspace)

    def test_home_does_what_was_under_the_cursor(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another step that comes first moves the rows, not what Enter does; and nothing to do is nothing to do."""
        steps = [NextStep("look", "inspect", "answers"), NextStep("freeze", "pairs", PAIRS)]
        monkeypatch.setattr("workbench.loop_overview._steps", lambda *_: steps)

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "▸look")
            steps.insert(0, NextStep("it failed", "runs", urgent=True))
            assert isinstance(app.screen, Station)
            app.screen.wake()
            await sees(pilot, "▲ it failed")
            await sees(pilot, "▸look")
            steps.clear()
            app.screen.wake()
            await sees(pilot, "nothing is waiting")
            await pilot.press("enter")
            await pilot.pause()
            assert station_of(app) == "home"

        assert drive(script, workspace).crash is None


def test_nobody_is_told_that_there_is_nothing_before_it_was_looked_for(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = Held(LoopReader.look)
    monkeypatch.setattr(LoopReader, "look", lambda reader: looking(reader))

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await until(pilot, looking.entered.is_set)
        assert text_of(app).count("looking …") == 2
        assert "no runs yet" not in text_of(app)
        looking.go_on.set()
        await sees(pilot, RUN_DONE)
        assert "looking …" not in text_of(app)

    drive(script, workspace)


class TestGoneMeanwhile:
    def test_what_a_task_made_is_gone_when_its_turn_comes(self, workspace: Workspace) -> None:
        def then(_: int) -> None:
            raise WorkbenchError("it is gone again")

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            assert isinstance(app.screen, Station)
            app.screen.start_task("counting", lambda task: 1, then)
            await sees(pilot, "it is gone again")

        assert drive(script, workspace).crash is None

    def test_the_guide_bears_a_torn_file(self, workspace: Workspace) -> None:
        file = workspace.prefs / PREFERENCES / "prefs.toml"
        whole = file.read_text("utf-8")
        file.chmod(0o600)
        file.write_text("[torn", "utf-8")

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "it cannot see how far you are")
            await pilot.press("ctrl+n")
            file.write_text(whole, "utf-8")
            await sees(pilot, "guide 1 of 8")

        assert drive(script, workspace, guide=Guide(workspace)).crash is None
