"""The station curves: it follows a run that grows, says why one ended, and touches nothing but by S and R."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.run.control import pending
from engine.run.events import append_event
from engine.run.folder import RunFolder
from engine.run.locks import hold
from engine.run.metrics_log import MetricsWriter
from engine.run.samples_log import append_samples
from engine.run.status import Status, write_status
from screens.app import WorkbenchApp
from screens.curves import Curves
from screens.line import Line
from screens.plot_widget import Plot
from tests.screens.driving import SIZE, WIDE, check_golden, drive, sees, text_of, until
from tests.workbench.run_folders import make_run
from tests.workbench.test_newer_run import NEWER
from workbench.workspace import Workspace, init

RUN = "1124-dpo-test-aaa"
STEPS = 200
MIDDLE = (120, 30)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return init(tmp_path / "ws")


def metrics_at(step: int) -> dict[str, float]:
    """A DPO run that learns, the same every time."""
    wave = math.sin(step * 2.3) * 0.03
    margin = 2.0 * (1 - math.exp(-step / 80)) + wave
    found = {
        "loss": math.log(1 + math.exp(-margin)) + wave, "grad_norm": 0.5 + abs(wave) * 8,
        "learning_rate": 1e-4 * (1 - step / 320),
        "rewards/margins": margin, "rewards/chosen": margin / 3, "rewards/rejected": -2 * margin / 3,
        "rewards/accuracies": min(1.0, 0.5 + margin / 3),
    }  # fmt: skip
    if step % 40 == 0:
        found |= {"eval_loss": found["loss"] + 0.02, "eval_rewards/accuracies": min(1.0, 0.48 + margin / 3)}
        found |= {"kl/policy_reference_nats_per_sequence": step / 60, "kl/policy_reference_standard_error": 0.2}
    return found


def write_steps(folder: RunFolder, begin: int, end: int, attempt: int = 1) -> None:
    writer = MetricsWriter(folder.metrics_path, attempt)
    for step in range(begin, end):
        writer.write(step, metrics_at(step))
    writer.close()


def recorded(workspace: Workspace, phase: str = "done", **status: object) -> RunFolder:
    """A run folder with a run that somebody recorded."""
    folder = make_run(workspace, RUN, phase=phase, step=0)
    folder.metrics_path.unlink(missing_ok=True)
    write_steps(folder, 0, STEPS + 1)
    append_event(folder, "checkpoint", step=100)
    append_event(folder, "resumed", step=100)
    facts = {"step": STEPS, "total_steps": 320, "attempt": 1, "device": "cpu", **status}
    write_status(folder, Status(run=RUN, phase=phase, **facts))  # type: ignore[arg-type]
    row = {"prompt_id": "p", "logratio": [0.5, 0.25], "length": 2, "stopped": True}
    for step, said in ((0, "Hello."), (100, "Hello again."), (200, "\x1b[31mGoodbye[/nope]")):
        append_samples(folder, step, 1, "probe", [{**row, "prompt": "My wheel wobbles.", "completion": said}])
    folder.log_path.write_text("supervisor: attempt 1\n\x1b]0;evil\x07 a line\n")
    return folder


def state(app: WorkbenchApp) -> str:
    return app.screen.query_one("#state", Line).text


def curves(app: WorkbenchApp) -> Curves:
    assert isinstance(app.screen, Curves)
    return app.screen


@pytest.mark.parametrize("size", [SIZE, MIDDLE, WIDE])
def test_a_finished_run(workspace: Workspace, size: tuple[int, int]) -> None:
    recorded(workspace)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "rewards/accuracies")
        assert state(app).startswith("✓ done · step 200/320")
        await check_golden("curves", pilot)
        await pilot.press("s")
        await sees(pilot, "␛[31mGoodbye[/nope]")
        await check_golden("curves-samples", pilot)
        await pilot.press("m")
        await sees(pilot, "learning_rate")
        await check_golden("curves-metrics", pilot)

    drive(script, workspace, size=size, station="curves", subject=RUN)


def test_an_alarm_stands_above_the_panels_and_on_their_axes(workspace: Workspace) -> None:
    folder = recorded(workspace, "stopped", alarm="KL above its target since step 140 (kl). Clone the run")
    append_event(folder, "alarm", alarm="kl", step=150, onset=140)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "rewards/accuracies")
        health = app.screen.query_one("#health", Line).text
        assert health == (
            "▲ KL 3.33 nats is past its target since step 140 and rising: lower the learning rate or raise dpo.beta"
        )
        await sees(pilot, "raise dpo.beta")  # what to do is not cut off
        titles = [plot.text.splitlines()[0] for plot in app.screen.query(Plot) if plot.display and plot.text]
        assert [title[0] for title in titles] == [" ", "!", " ", " "]
        assert "KL" in titles[1]
        axes = [line for line in curves(app)._plots.text.splitlines() if "step└" in line]
        assert axes
        assert all(axis.count("!") == 1 for axis in axes)

    drive(script, workspace, station="curves", subject=RUN)


def test_it_follows_a_run_through_a_resume(workspace: Workspace) -> None:
    folder = recorded(workspace, "running")
    lock = hold(folder.lock_path)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "step 200/320")
        assert "● running" in state(app)
        write_steps(folder, 201, 220)
        with folder.metrics_path.open("ab") as stream:
            stream.write(b'{"schema":1,"step":220,"atte')
        await sees(pilot, "step 219/320")
        shown = curves(app)._plots.text
        writer = MetricsWriter(folder.metrics_path, 2)
        writer.resumed_from(100)
        writer.close()
        write_steps(folder, 101, 111, attempt=2)
        await until(pilot, lambda: metric(app, "loss") == 110)
        await until(pilot, lambda: curves(app)._plots.text != shown)

    drive(script, workspace, station="curves", subject=RUN)
    lock.release()


def metric(app: WorkbenchApp, name: str) -> int:
    """The last step of a metric, as the screen knows it."""
    watched = curves(app)._curves
    last = watched.log.metrics[name].last() if watched else None
    return last[0] if last else -1


def test_stopping_asks_first(workspace: Workspace) -> None:
    folder = recorded(workspace, "running")
    lock = hold(folder.lock_path)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "S stop")
        await pilot.press("R")
        await pilot.press("S")
        await sees(pilot, f"Stop {RUN}?")
        await pilot.press("escape")
        assert pending(folder, "stop") is None
        await pilot.press("S")
        await sees(pilot, "Stop")
        await pilot.press("S")
        await until(pilot, lambda: pending(folder, "stop") is not None)
        await sees(pilot, "stopping")

    drive(script, workspace, station="curves", subject=RUN)
    lock.release()


def test_a_failed_run_says_why(workspace: Workspace) -> None:
    recorded(workspace, "failed", error={"what": "loss is nan\x1b[2J since step 199", "remedy": ""})

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "loss is nan␛[2J since step 199")
        assert state(app).startswith("✗ failed")
        await sees(pilot, "R resume")
        await check_golden("curves-failed", pilot)

    drive(script, workspace, station="curves")


def test_the_log_and_the_way_back(workspace: Workspace) -> None:
    folder = recorded(workspace)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "l log")
        await pilot.press("l")
        await sees(pilot, "␛]0;evil␇ a line")
        with folder.log_path.open("a") as log:
            log.write("one line more\n")
        await sees(pilot, "one line more")
        await pilot.press("slash", *"LINE MORE", "enter")
        await until(pilot, lambda: "a line" not in text_of(app) and "one line more" in text_of(app))
        await pilot.press("slash", *"ever", "enter")
        await sees(pilot, "no line of the last 3 holds 'ever'")
        await pilot.press("c")
        await sees(pilot, "rewards/margins")
        await pilot.press("L")
        await sees(pilot, "grad_norm" if "grad_norm" in text_of(app) else "log")
        await pilot.press("j")
        await sees(pilot, "panels 2 of")

    drive(script, workspace, station="curves", subject=RUN)


def test_samples_by_step(workspace: Workspace) -> None:
    folder = recorded(workspace)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "s samples")
        await pilot.press("s")
        await sees(pilot, "step 200 · probe · 3 of 3")
        await pilot.press("N")
        await sees(pilot, "Hello again.")
        await pilot.press("left", "left", "left")
        await sees(pilot, "step 0 · probe · 1 of 3")
        await pilot.press("n", "n")
        append_samples(folder, 240, 1, "probe", [{"prompt": "P", "completion": "The newest."}])
        await sees(pilot, "The newest.")

    drive(script, workspace, station="curves", subject=RUN)


def test_from_run_to_run(workspace: Workspace) -> None:
    recorded(workspace)
    shutil.copytree(NEWER, workspace.runs / "1130-dpo-newer-k3f")

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "1130-dpo-newer-k3f")
        await sees(pilot, "written by a newer version of this program: what is understood")
        await sees(pilot, "0.318")  # the last value of its loss
        await pilot.press("full_stop")
        await sees(pilot, "there is no run after this one")
        await pilot.press("comma")
        await sees(pilot, RUN)
        await sees(pilot, "step 200/320")

    drive(script, workspace, station="curves")


def test_no_run_yet_says_which_key_starts_one(workspace: Workspace) -> None:
    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "no runs yet; t starts one")
        await sees(pilot, "t new run")
        recorded(workspace)
        await sees(pilot, "✓ done")

    drive(script, workspace, station="curves")


def test_a_folder_deleted_while_watched(workspace: Workspace) -> None:
    folder = recorded(workspace)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "✓ done")
        await sees(pilot, "rewards/margins, nats")
        shutil.rmtree(folder.path)
        await sees(pilot, "metrics.jsonl is gone")
        await until(pilot, lambda: "✗ damaged" in state(app))
        await sees(pilot, "rewards/margins, nats")

    drive(script, workspace, station="curves", subject=RUN)


def test_two_hundred_hostile_metrics(workspace: Workspace) -> None:
    folder = make_run(workspace, "1124-sft-test-ccc", step=0)
    writer = MetricsWriter(folder.metrics_path, 1)
    for step in range(5):
        writer.write(step, {f"\x1b[{i}m[/nope]\u202e{i}": i * step for i in range(200)})
    writer.close()

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "j more")
        await pilot.press("k")
        await sees(pilot, "␛[")
        await pilot.press("m", "G")
        await sees(pilot, "[/nope]<U+202E>199")
        assert "\x1b" not in text_of(app)

    drive(script, workspace, station="curves")


def test_resized_in_the_middle(workspace: Workspace) -> None:
    recorded(workspace)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "rewards/margins")
        await pilot.resize_terminal(40, 10)
        await sees(pilot, "too small")
        await pilot.resize_terminal(60, 16)
        await sees(pilot, "nats")
        await pilot.resize_terminal(160, 48)
        await sees(pilot, "grad_norm")

    drive(script, workspace, station="curves", subject=RUN)
