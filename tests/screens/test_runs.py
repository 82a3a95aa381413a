"""The board of runs: every state has its words, and what is asked of a run is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.run import control
from engine.run.folder import RunFolder
from engine.run.locks import hold
from engine.run.status import read_status, write_status
from screens.app import WorkbenchApp
from screens.modals import Question
from screens.row_list import RowList
from screens.runs_log import LogPage
from screens.text_view import TextView
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from tests.workbench.run_folders import make_run
from workbench.run_board import BoardReader
from workbench.workspace import Workspace, init

LIVE, DONE, FAILED = "1124-dpo-live-aaa", "1123-sft-done-bbb", "1122-ppo-sad-ccc"
QUEUED, STOPPED, TORN = "1125-sft-next-ddd", "1121-sft-half-eee", "1120-sft-torn-fff"
Board = Callable[..., Workspace]


@pytest.fixture(autouse=True)
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A run in every state; this process holds the locks of those that are alive."""
    workspace = init(tmp_path / "ws")
    with ExitStack() as held:
        for run_id, phase in ((LIVE, "running"), (QUEUED, "queued")):
            folder = made(workspace, run_id, phase, checkpoints=(2,) if run_id == LIVE else ())
            lock = hold(folder.lock_path)
            assert lock is not None
            held.enter_context(closing(Closer(lock.release)))
        made(workspace, DONE, "done", step=8, checkpoints=(4, 8), best=8)
        error = {"what": "the loss was not finite", "remedy": "lower optim.lr"}
        made(workspace, FAILED, "failed", checkpoints=(2,), error=error)
        made(workspace, STOPPED, "stopped", checkpoints=(4,))
        made(workspace, TORN, "running").config_path.write_text("[ru")
        yield workspace


class Closer:
    def __init__(self, close: Callable[[], None]) -> None:
        self.close = close


def made(workspace: Workspace, run_id: str, phase: str, *, step: int = 4, **options: object) -> RunFolder:
    day = f"2026-11-{run_id[2:4]}T10:00:00+00:00"
    error = options.pop("error", None)
    folder = make_run(workspace, run_id, created=day, phase=phase, step=0 if phase == "queued" else step, **options)  # type: ignore[arg-type]
    status = read_status(folder)
    assert status is not None
    live = {"steps_per_s": 2.5, "seconds_left": 65.0, "heartbeat": 4e9} if phase == "running" else {}
    queued = {"queued": 5.0, "waits_for": f"run {LIVE} to end", "last": {}} if phase == "queued" else {}
    write_status(folder, replace(status, error=error, **live, **queued))  # type: ignore[arg-type]
    return folder


def rows(app: WorkbenchApp) -> RowList:
    return app.screen.query_one("#list", RowList)


async def shown(app: WorkbenchApp, pilot: Pilot[int], count: int = 6) -> None:
    await until(pilot, lambda: bool(app.screen.query("#list")) and len(rows(app).rows) == count, "the runs in the list")


class TestBoard:
    @pytest.mark.parametrize("size", [SIZE, WIDE])
    def test_every_state_has_its_mark_and_word(self, workspace: Workspace, size: tuple[int, int]) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await shown(app, pilot)
            states = {row.key: row.cells[0] for row in rows(app).rows}
            assert states == {
                QUEUED: "… queued", LIVE: "● running", DONE: "✓ done", FAILED: "✗ failed", STOPPED: "■ stopped",
                TORN: "✗ damaged",
            }  # fmt: skip
            await sees(pilot, f"queued: it waits for run {LIVE} to end" if size == SIZE else f"it waits for run {LIVE}")
            await check_golden("runs", pilot)

        drive(script, workspace, size=size, station="runs")

    def test_the_reason_under_the_cursor_is_in_view(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await shown(app, pilot)
            await sees(pilot, "failed: the loss was not finite (at step 4; resume continues from step 2)")
            rows(app).move_to(TORN)
            await sees(pilot, "damaged: its run.toml is torn")
            rows(app).move_to(LIVE)
            await sees(pilot, "2.50/s")
            assert "1m 05s" in text_of(app) or "65s" in text_of(app) or "1m" in text_of(app)

        drive(script, workspace, station="runs", subject=FAILED)

    @pytest.mark.parametrize("size", [SIZE, WIDE])
    def test_an_alarm_is_in_the_row_and_in_words_below(self, workspace: Workspace, size: tuple[int, int]) -> None:
        folder = RunFolder(workspace.runs / DONE)
        status = read_status(folder)
        assert status is not None
        write_status(folder, replace(status, alarm="completions are cut off since step 3 (cut_off)."))

        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await shown(app, pilot)
            assert {row.key: row.cells[0] for row in rows(app).rows}[DONE] == "✓ done !"
            await sees(pilot, "completions are cut off since")

        drive(script, workspace, size=size, station="runs", subject=DONE)

    def test_a_step_repaints_the_row(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "4/8  50 %")
            folder = RunFolder(workspace.runs / LIVE)
            status = read_status(folder)
            assert status is not None
            write_status(folder, replace(status, step=6))
            await sees(pilot, "6/8  75 %")

        drive(script, workspace, station="runs")

    def test_no_runs_say_which_key_starts_one(self, tmp_path: Path) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "no runs yet; t starts one")
            await pilot.press("S", "R", "D", "c", "l", "e", "y", "enter")
            assert app.screen.TITLE == "runs"

        drive(script, init(tmp_path / "empty"), station="runs")

    def test_a_run_that_goes_while_it_is_shown(self, workspace: Workspace) -> None:
        async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await shown(app, pilot)
            os.rename(workspace.runs / DONE, workspace.runs / f".new-{DONE}")
            await shown(app, pilot, 5)

        drive(script, workspace, station="runs", subject=DONE)

    def test_a_look_reads_no_config_twice(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        from workbench import run_board

        reader = BoardReader(workspace)
        first = reader.look()
        monkeypatch.setattr(run_board, "_read", lambda run: pytest.fail(f"{run.id} was read again"))
        assert reader.look() == first


class TestKeys:
    def press(self, workspace: Workspace, subject: str, *keys: str) -> Callable[..., None]:
        def run(check: Callable[[WorkbenchApp, Pilot[int]], object]) -> None:
            async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
                await shown(app, pilot)
                await pilot.press(*keys)
                await check(app, pilot)  # type: ignore[misc]

            drive(script, workspace, station="runs", subject=subject)

        return run

    def test_stop_asks_and_then_asks_the_run(self, workspace: Workspace) -> None:
        folder = RunFolder(workspace.runs / LIVE)

        async def check(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await until(pilot, lambda: isinstance(app.screen, Question))
            assert control.pending(folder, "stop") is None
            await pilot.press("S")
            await until(pilot, lambda: control.pending(folder, "stop") is not None)
            await sees(pilot, "● stopping")

        self.press(workspace, LIVE, "S")(check)

    def test_esc_stops_nothing(self, workspace: Workspace) -> None:
        async def check(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await until(pilot, lambda: not isinstance(app.screen, Question))
            assert control.pending(RunFolder(workspace.runs / LIVE), "stop") is None

        self.press(workspace, LIVE, "S", "escape")(check)

    def test_a_run_that_is_over_cannot_be_stopped(self, workspace: Workspace) -> None:
        async def check(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "is done; there is nothing to stop")

        self.press(workspace, DONE, "S")(check)

    def test_delete_names_what_goes(self, workspace: Workspace) -> None:
        async def check(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await until(pilot, lambda: isinstance(app.screen, Question))
            await sees(pilot, "1 checkpoint, the metrics of 4 steps")
            await pilot.press("D")
            await until(pilot, lambda: not (workspace.runs / STOPPED).exists())
            await shown(app, pilot, 5)

        self.press(workspace, STOPPED, "D")(check)

    def test_a_living_run_is_not_deleted(self, workspace: Workspace) -> None:
        async def check(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "is running; stop it")
            assert (workspace.runs / LIVE).exists()

        self.press(workspace, LIVE, "D")(check)

    def test_what_cannot_be_resumed_says_why(self, workspace: Workspace) -> None:
        async def check(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await sees(pilot, "cannot be resumed")

        self.press(workspace, DONE, "R")(check)

    def test_clone_opens_the_form_with_the_run(self, workspace: Workspace) -> None:
        async def check(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await until(pilot, lambda: app.screen.TITLE == "launch")
            assert app.subjects["launch"] == f"clone:{DONE}"

        self.press(workspace, DONE, "c")(check)

    def test_the_log_opens_at_its_end(self, workspace: Workspace) -> None:
        log = RunFolder(workspace.runs / DONE).log_path
        log.write_text("".join(f"line {n} \x1b[31m\n" for n in range(1000)))

        async def check(app: WorkbenchApp, pilot: Pilot[int]) -> None:
            await until(pilot, lambda: isinstance(app.screen, LogPage))
            await sees(pilot, "line 999 ␛[31m")
            with log.open("a") as stream:
                stream.write("the last word\n")
            await sees(pilot, "the last word")
            assert app.screen.query_one(TextView).scroll_offset.y > 0
            await pilot.press("q")
            await until(pilot, lambda: app.screen.TITLE == "runs")

        self.press(workspace, DONE, "l")(check)
