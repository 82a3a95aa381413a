"""Reward over the sampled KL, of one run and of several."""

from __future__ import annotations

import math
from array import array

from engine.run.metrics_log import MetricsWriter
from tests.workbench.run_folders import make_run
from workbench.curve_scenes import panels_known, scenes_of
from workbench.curve_view import CurveView
from workbench.curves import Points, RunCurves
from workbench.overlay_view import OverlayView
from workbench.panel_choice import name_of
from workbench.plot_drawing import PlotDrawing
from workbench.reward_against_kl import KEY, points_against_kl, reward_of
from workbench.run_list import Run
from workbench.run_watch import KL
from workbench.several_runs import SeveralRuns
from workbench.workspace import Workspace

RUN = "1124-grpo-test-aaa"


def points(values: dict[int, float]) -> Points:
    return Points(array("q", values), array("d", values.values()))


def grpo_run(workspace: Workspace, name: str = RUN, gain: float = 1.0) -> Run:
    folder = make_run(workspace, name, step=0)
    writer = MetricsWriter(folder.metrics_path, 1)
    for step in range(1, 61):
        kl = {KL: step / 10, "kl/policy_reference_standard_error": 0.1} if step % 10 == 0 else {}
        writer.write(step, {"reward": gain * math.sqrt(step), "loss": 0.1, **kl})
    writer.close()
    return Run(folder, workspace)


def test_each_probe_is_a_point_with_the_reward_of_its_step_in_the_order_of_the_kl() -> None:
    metrics = {KL: points({0: 0.0, 10: 2.5, 20: -0.1, 30: math.nan, 40: 1.0}), "reward": points({5: 0.5, 20: 0.75})}
    found = points_against_kl(metrics, "reward")
    assert list(zip(found.steps, found.values, strict=True)) == [(-100, 0.75), (1000, 0.75), (2500, 0.5)]


def test_held_out_rewards_come_first_and_without_a_kl_there_is_none() -> None:
    some = points({1: 1.0})
    assert reward_of({KL: some, "reward": some, "eval_reward": some}) == "eval_reward"
    assert reward_of({KL: some, "objective/scores": some}) == "objective/scores"
    assert reward_of({"reward": some}) == reward_of({KL: some, "rewards/margins": some}) == ""


def test_the_panel_stands_behind_that_of_the_kl_and_grows_with_the_run(workspace: Workspace) -> None:
    curves = RunCurves(grpo_run(workspace))
    glance = curves.look()
    view = CurveView(curves)
    names = [name_of(panel) for panel in panels_known(glance, curves)]
    assert names.index(KEY) == names.index(KL) + 1
    scene = next(scene for scene in scenes_of(glance, curves, view) if name_of(scene.panel) == KEY)
    assert (scene.first_step, scene.last_step, scene.x.label) == (0, 6000, "KL")
    plot = PlotDrawing()
    plot.resize(60, 12)
    plot.show(scene, view.metrics)
    assert plot.text.splitlines()[0].startswith(" reward against sampled KL k1, nats/seq")
    assert plot.text.count("◆") == 6 + 1, "six probes, and the legend"
    assert plot.text.splitlines()[-1].rstrip().endswith(" 6")
    held = view.against_kl
    assert view.against_kl is held
    curves.log.take([{"attempt": 1, "step": 70, "metrics": {KL: 9.0, "reward": 2.0}}])
    assert list(view.against_kl.steps)[-1] == 9000


def test_runs_are_drawn_in_one_panel_each_with_its_letter(workspace: Workspace) -> None:
    grpo_run(workspace)
    grpo_run(workspace, "1124-grpo-more-bbb", gain=2.0)
    view = OverlayView()
    view.take(SeveralRuns(workspace, "/").look())
    scenes, curves = view.drawn()
    scene = next(scene for scene in scenes if "against" in scene.panel.title)
    assert sorted(trace.letter for trace in scene.panel.traces) == ["a", "b"]
    assert all(len(curves[trace.metric]) == 6 for trace in scene.panel.traces)
