"""The keys by which a person looks at curves: crosshair, zoom, x axis, pause, and the panels they want to see."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.run.locks import hold
from engine.run.samples_log import append_samples
from screens.app import WorkbenchApp
from screens.line import Line
from screens.plot_widget import Plot
from tests.screens.driving import check_golden, drive, sees, text_of, until
from tests.screens.test_curves import RUN, STEPS, curves, metric, recorded, write_steps
from workbench.user_settings import read_settings, settings_path
from workbench.workspace import Workspace, init


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return init(tmp_path / "ws")


def message(app: WorkbenchApp) -> str:
    return app.screen.query_one("#message", Line).text


def titles(app: WorkbenchApp) -> list[str]:
    return [plot.text.splitlines()[0] for plot in app.screen.query(Plot) if plot.display and plot.text]


def axes(app: WorkbenchApp) -> list[str]:
    return [line for line in curves(app)._plots.text.splitlines() if "└" in line]


def test_the_crosshair_says_exact_values_and_esc_takes_it_away(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(1_800_000_000, 1_900_000_000))
    with monkeypatch.context() as patch:
        patch.setattr("engine.run.metrics_log.clock", lambda: float(next(seconds)))
        recorded(workspace)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "rewards/accuracies")
        await pilot.press("left", "shift+left")
        await until(pilot, lambda: message(app).startswith(f"step {STEPS - 30} · "), "ten stops of three steps")
        await pilot.press("shift+left", "shift+left", "shift+left", "right", "shift+left", "right")
        await until(pilot, lambda: message(app).startswith("step 56 · "))
        assert titles(app)[0].rstrip().endswith("─0.311546  ◆0.379158")
        assert all("┊" in plot.text and "┼" in plot.text for plot in app.screen.query(Plot) if plot.display)
        await check_golden("curves-crosshair", pilot)
        await pilot.press("escape")
        await until(pilot, lambda: "┊" not in curves(app)._plots.text)
        await pilot.press("escape")
        await until(pilot, lambda: getattr(app.screen, "NAME", "") == "home")

    drive(script, workspace, station="curves", subject=RUN)


def test_zoom_pan_and_the_way_back(workspace: Workspace) -> None:
    recorded(workspace)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "rewards/accuracies")
        await pilot.press("plus", "plus")
        await until(pilot, lambda: all("└150 " in axis and axis.rstrip().endswith(" 200") for axis in axes(app)))
        await pilot.press("less_than_sign")
        await until(pilot, lambda: "└138 " in axes(app)[0])
        await pilot.press("f")
        await until(pilot, lambda: "200" in axes(app)[0])
        await pilot.press("minus", "0")
        await until(pilot, lambda: "└──" in axes(app)[0])

    drive(script, workspace, station="curves", subject=RUN)


def test_over_time_and_back_over_steps(workspace: Workspace) -> None:
    recorded(workspace)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "rewards/accuracies")
        await pilot.press("x")
        await until(pilot, lambda: all(axis.lstrip().startswith("time└") for axis in axes(app)))
        await pilot.press("e", "e")
        await sees(pilot, "smoothing: off")
        await pilot.press("x")
        await until(pilot, lambda: all(axis.lstrip().startswith("step└") for axis in axes(app)))

    drive(script, workspace, station="curves", subject=RUN)


def test_paused_it_draws_nothing_new_and_collects_all(workspace: Workspace) -> None:
    folder = recorded(workspace, "running")
    lock = hold(folder.lock_path)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "rewards/accuracies")
        await pilot.press("p")
        await sees(pilot, "paused at step 200")
        shown = curves(app)._plots.text
        write_steps(folder, 201, 260)
        await until(pilot, lambda: metric(app, "loss") == 259)
        await pilot.press("left", "escape")
        assert curves(app)._plots.text == shown
        await pilot.press("p")
        await until(pilot, lambda: curves(app)._plots.text != shown)
        await until(pilot, lambda: "paused" not in app.screen.query_one("#state", Line).text)

    drive(script, workspace, station="curves", subject=RUN)
    lock.release()


def test_panels_are_hidden_moved_and_remembered_for_the_method(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    recorded(workspace)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "rewards/accuracies")
        await pilot.press("P")
        await sees(pilot, "Panels of dpo runs")
        await check_golden("curves-panels", pilot)
        await pilot.press("space", "j", "J", "enter")
        await until(pilot, lambda: "Panels of" not in text_of(app))
        await until(pilot, lambda: "rewards/margins" in titles(app)[0])
        assert "KL" in titles(app)[1]
        assert not any(title.startswith(" loss") for title in titles(app))

    drive(script, workspace, station="curves", subject=RUN)
    kept = read_settings(settings_path())
    assert kept.curves["dpo"][:3] == ("-loss", "rewards/margins", "kl/policy_reference_nats_per_sequence")

    async def again(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await until(pilot, lambda: "rewards/margins" in titles(app)[0])
        await pilot.press("P")
        await sees(pilot, "Panels of dpo runs")
        await pilot.press("0", "enter")
        await until(pilot, lambda: titles(app)[0].startswith(" loss"))

    drive(again, workspace, station="curves", subject=RUN, settings=kept)
    assert read_settings(settings_path()).curves == {}


def test_samples_prompt_by_prompt_with_marks_and_flags(workspace: Workspace) -> None:
    folder = recorded(workspace)
    rows = [
        {"prompt_id": str(i), "prompt": f"Question {i}?", "completion": f"Answer {i} is here.", "logratio": [1.5, -0.5],
         "ends": [6, 16 + 1], "length": 2, "stopped": True, "reward": 0.5}
        for i in range(2)
    ]  # fmt: skip
    append_samples(folder, 0, 1, "rollout", [{**row, "completion": f"Old {row['completion']}"} for row in rows])
    append_samples(folder, 200, 1, "rollout", rows)

    async def script(app: WorkbenchApp, pilot: Pilot[int]) -> None:
        await sees(pilot, "rewards/margins")
        await pilot.press("s")
        await sees(pilot, "step 200 · rollout · 5 of 5 · 2 answers")
        await sees(pilot, "step 0: words new: 0, gone: 1")
        await pilot.press("d")
        await sees(pilot, "+ above 0.1 nats, # above 1")
        await until(pilot, lambda: "######-----------" in text_of(app))
        await pilot.press("d", "j")
        await sees(pilot, "Question 1?")
        await pilot.press("M")
        await sees(pilot, "nothing is flagged yet")
        await pilot.press("F")
        await sees(pilot, "1 flagged in this run")
        await sees(pilot, "F 2 tokens · reward 0.500")
        await pilot.press("M")
        await sees(pilot, "Name of the pair set of 1 flagged answers?")
        await pilot.press("enter")
        await until(pilot, lambda: workspace.names("pairs") == ["flagged-test"])
        await pilot.press("N", "N", "N", "b", "F")
        await sees(pilot, "is the same: nobody could prefer one")

    drive(script, workspace, station="curves", subject=RUN)
