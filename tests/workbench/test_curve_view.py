"""How curves are looked at: other axes, windows, the crosshair; and the arrangement of panels."""

from __future__ import annotations

import random
from array import array
from pathlib import Path

import pytest

from engine.run.config_layers import resolve
from engine.run.events import append_event
from engine.run.metrics_log import MetricsWriter
from tests.workbench.run_folders import make_run
from workbench.curve_axes import EPISODES, LONGEST_GAP_S, STEP, TIME, TOKENS, AxisView, XAxis, kinds_of, value_at
from workbench.curve_columns import MANY
from workbench.curve_panels import panels_of
from workbench.curve_scenes import scenes_of
from workbench.curve_view import CurveView
from workbench.curve_window import LEAST_SPAN, Window, followed, panned, zoomed
from workbench.curves import CurveLog, Event, Points, RunCurves
from workbench.errors import WorkbenchError
from workbench.panel_choice import arranged, choice_of, chosen, name_of
from workbench.panel_limits import with_limits
from workbench.run_list import Run
from workbench.user_settings import change_panels, change_setting, read_settings
from workbench.workspace import Workspace


def line(step: int, at: float, attempt: int = 1, **metrics: float) -> dict[str, object]:
    return {"attempt": attempt, "step": step, "time": at, "metrics": metrics}


def log_of(*lines: dict[str, object]) -> CurveLog:
    log = CurveLog()
    log.take(lines)
    return log


def places(view: AxisView, name: str) -> list[tuple[int, float]]:
    points = view[name]
    return list(zip(points.steps, points.values, strict=True))


class TestAxes:
    def test_over_tokens_a_value_lies_where_its_step_ended(self) -> None:
        log = log_of(line(0, 1, eval_loss=9), line(1, 1, loss=3, num_tokens=100), line(2, 2, loss=2, num_tokens=250),
                     line(3, 3, eval_loss=1))  # fmt: skip
        view = AxisView(TOKENS, log)
        assert places(view, "loss") == [(100, 3), (250, 2)]
        assert places(view, "eval_loss") == [(0, 9)], "the place of step 3 is not known yet"
        log.take([line(4, 4, loss=1, num_tokens=400)])
        view.follow()
        assert places(view, "eval_loss") == [(0, 9), (250, 1)]
        assert places(view, "loss")[-1] == (400, 1)

    def test_time_is_that_in_which_it_ran_whatever_the_clock_did(self) -> None:
        log = log_of(line(1, 1000.0, loss=1), line(2, 1002.5, loss=1), line(3, 500.0, loss=1), line(4, 501.0, loss=1),
                     line(5, 501 + 2 * LONGEST_GAP_S, loss=1), line(6, 502 + 2 * LONGEST_GAP_S, loss=1))  # fmt: skip
        assert [place for place, _ in places(AxisView(TIME, log), "loss")] == [0, 2500, 2500, 3500, 3500, 4500]

    def test_a_resume_makes_the_places_anew(self) -> None:
        log = log_of(*(line(step, float(step), loss=step, num_tokens=10 * step) for step in range(1, 6)))
        views = [AxisView(kind, log) for kind in (TOKENS, TIME)]
        assert [len(view["loss"]) for view in views] == [5, 5]
        log.take([{"attempt": 2, "resumed_from": 2}, line(3, 90.0, 2, loss=7, num_tokens=31)])
        for view in views:
            view.follow()
        assert places(views[0], "loss") == [(10, 1), (20, 2), (31, 7)]
        assert [place for place, _ in places(views[1], "loss")] == [0, 1000, 89_000]

    def test_many_points_lie_where_few_do(self) -> None:
        draw = random.Random(4)
        count = MANY + 50
        log = CurveLog()
        log.metrics["loss"] = Points(array("q", range(count)), array("d", (draw.random() for _ in range(count))))
        steps = [*sorted(draw.sample(range(1, count), 900)), count]
        log.metrics["num_tokens"] = Points(array("q", steps), array("d", (7.0 * step for step in steps)))
        view = AxisView(TOKENS, log)
        assert list(view["loss"].steps) == [view.place(step) for step in range(count)]
        assert view["loss"].values == log.metrics["loss"].values

    def test_over_steps_nothing_is_copied_and_episodes_are_counted(self) -> None:
        log = log_of(line(1, 1, reward=1), line(2, 2, reward=2))
        assert AxisView(STEP, log)["reward"] is log.metrics["reward"]
        config = resolve("grpo", [("", {"train": {"batch_size": 4}, "grpo": {"generations": 8}})]).config
        assert kinds_of(log, config) == (STEP, EPISODES, TIME)
        assert places(AxisView(EPISODES, log, episodes=32), "reward") == [(32, 1), (64, 2)]
        assert kinds_of(log_of({"attempt": 1, "step": 1, "metrics": {"a": 1}}), None) == (STEP,)

    def test_a_hostile_time_is_no_time(self) -> None:
        log = log_of(line(1, 1, loss=1), {"attempt": 1, "step": 2, "time": "noon", "metrics": {"loss": 2}},
                     {"attempt": 1, "step": 3, "time": True, "metrics": {"loss": 2}},
                     line(4, 0, loss=1))  # fmt: skip
        assert len(log.times) == 1

    def test_words(self) -> None:
        assert [XAxis(TIME).words(ms) for ms in (0, 9_900, 65_000, 3_725_000)] == ["0.0s", "9.9s", "1:05", "1:02:05"]
        assert [XAxis(TOKENS).words(n) for n in (900, 1_234_567)] == ["900", "1.23M"]
        assert XAxis(STEP).words(200_000) == "200,000"

    def test_the_value_at_a_place_is_the_last_up_to_it(self) -> None:
        points = Points(array("q", [2, 5]), array("d", [0.5, 0.25]))
        assert [value_at(points, at) for at in (1, 2, 4, 9)] == [None, (2, 0.5), (2, 0.5), (5, 0.25)]
        assert value_at(None, 3) is None


class TestWindows:
    WHOLE = Window(0, 1000)

    def test_zooming_keeps_the_place_of_the_crosshair(self) -> None:
        assert zoomed(self.WHOLE, self.WHOLE, 0.5, 200) == Window(100, 600)
        assert zoomed(self.WHOLE, self.WHOLE, 0.5) == Window(500, 1000)
        assert zoomed(Window(500, 1000), self.WHOLE, 2.0) is None
        assert zoomed(Window(0, 9), self.WHOLE, 0.5, 9) == Window(1, 9)
        small = Window(0, 4)
        assert zoomed(small, small, 0.5) is None

    def test_random_keys_stay_inside(self) -> None:
        draw = random.Random(1)
        shown = self.WHOLE
        for _ in range(500):
            match draw.randrange(3):
                case 0:
                    shown = zoomed(shown, self.WHOLE, draw.choice([0.5, 2.0]), draw.randrange(1000)) or self.WHOLE
                case 1:
                    shown = panned(shown, self.WHOLE, draw.uniform(-2, 2))
                case _:
                    shown = followed(shown, self.WHOLE, draw.randrange(1001))
            assert 0 <= shown.first < shown.last <= 1000
            assert shown.span >= LEAST_SPAN

    def test_following_moves_by_quarters(self) -> None:
        shown = Window(100, 200)
        assert followed(shown, self.WHOLE, 200) == shown
        assert followed(shown, self.WHOLE, 201) == Window(126, 226)
        assert followed(shown, self.WHOLE, 990) == Window(900, 1000)


@pytest.fixture
def curves(workspace: Workspace) -> RunCurves:
    folder = make_run(workspace, "1124-dpo-test-aaa", step=0)
    writer = MetricsWriter(folder.metrics_path, 1)
    for step in range(1, 401):
        writer.write(
            step, {"loss": 1 / step, "num_tokens": step * 50} | ({"eval_loss": 0.5} if step % 100 == 0 else {})
        )
    writer.close()
    append_event(folder, "settings_changed", changes={"optim.lr": [1e-4, 5e-5]})
    append_event(folder, "resumed", step=200)
    append_event(folder, "alarm", step=300, what="KL is high")
    found = RunCurves(Run(folder, workspace))
    found.look()
    return found


class TestTheLook:
    def view(self, curves: RunCurves, *, over: bool = True) -> CurveView:
        view = CurveView(curves)
        view.follow(400, over=over)
        return view

    def test_the_crosshair_stands_on_written_steps_and_stays_in_what_is_shown(self, curves: RunCurves) -> None:
        view = self.view(curves)
        view.move_cross(-1)
        assert view.cross == 400
        view.move_cross(-1)
        assert view.cross == 394
        view.move_cross(-1000)
        assert view.cross == 1
        view.zoom(True)
        assert view.shown == Window(1, 201)
        view.move_cross(1000)
        assert view.cross == 201
        view.next_axis()
        assert (view.x.kind, view.cross_place) == (TOKENS, 10_050)

    def test_it_says_where_it_is_and_what_happened_there(self, curves: RunCurves) -> None:
        view = self.view(curves)
        glance = curves.look()
        view.cross = 200
        words = view.cross_words(glance.events)
        assert words.startswith("step 200 · 10.0k tokens · ")
        assert words.endswith("resumed · knob: optim.lr 0.0001 → 5e-05")
        view.cross = 300
        assert view.cross_words(glance.events).endswith("alarm: KL is high")

    def test_what_is_paused_shows_nothing_that_came_later(self, curves: RunCurves) -> None:
        view = self.view(curves, over=False)
        assert view.pause()
        curves.log.take([line(step, 1e9 + step, loss=1.0) for step in range(401, 900)])
        view.follow(2000, over=False)
        assert (view.last_step, view.shown) == (400, Window(0, 512))
        view.move_cross(1)
        assert view.cross == 400
        assert not view.pause()
        view.follow(2000, over=False)
        assert view.shown == Window(0, 1024)

    def test_a_window_follows_until_it_is_moved_away_and_f_brings_it_back(self, curves: RunCurves) -> None:
        view = self.view(curves, over=False)
        view.zoom(True)
        view.zoom(True)
        assert view.shown == Window(300, 400)
        curves.log.take([line(step, 1e9 + step, loss=1.0) for step in range(401, 431)])
        view.follow(2000, over=False)
        assert view.shown.first <= 430 <= view.shown.last
        view.pan(-8)
        before = view.shown
        curves.log.take([line(step, 1e9 + step, loss=1.0) for step in range(431, 900)])
        view.follow(2000, over=False)
        assert (view.shown, view.following) == (before, False)
        view.go_to_newest()
        assert view.shown.first <= 899 <= view.shown.last
        view.whole()
        assert view.shown == Window(0, 1024)

    def test_the_axes_go_round(self, curves: RunCurves) -> None:
        view = self.view(curves)
        assert [view.next_axis() for _ in range(3)] == [TOKENS, TIME, STEP]
        assert [view.next_smoothing() for _ in range(4)] == ["strong", "off", "light", "medium"]

    def test_scenes_have_events_window_and_crosshair_on_the_same_axis(self, curves: RunCurves) -> None:
        view = self.view(curves)
        view.next_axis()
        view.cross = 100
        scenes = scenes_of(curves.look(), curves, view, ("-loss", "num_tokens"))
        assert next(name_of(scene.panel) for scene in scenes) == "num_tokens"
        assert "loss" not in [name_of(scene.panel) for scene in scenes]
        first = scenes[0]
        assert (first.first_step, first.last_step, first.cross) == (0, 20_000, 5_000)
        assert Event(10_000, "resumed") in first.events

    def test_a_log_that_is_replaced_is_looked_at_anew(self, curves: RunCurves) -> None:
        view = self.view(curves)
        curves.log = log_of(line(7, 1.0, loss=2.0))
        view.follow(400, over=True)
        assert (view.last_step, list(view.metrics)) == (7, ["loss"])


class TestArrangement:
    PANELS = panels_of("sft", ["loss", "grad_norm", "learning_rate"])

    def test_named_panels_come_first_and_new_ones_are_seen(self) -> None:
        names = [name_of(panel) for panel in chosen(self.PANELS, ("learning_rate", "-loss", "gone"))]
        assert names[0] == "learning_rate"
        assert "loss" not in names
        assert "grad_norm" in names

    def test_hiding_all_shows_all(self) -> None:
        hidden = tuple(f"-{name_of(panel)}" for panel in self.PANELS)
        assert chosen(self.PANELS, hidden) == self.PANELS

    def test_what_is_kept_says_the_same_again(self) -> None:
        rows = arranged(self.PANELS, ("grad_norm", "-loss", "-gone"))
        kept = choice_of(rows, ("grad_norm", "-loss", "-gone"))
        assert kept[-1] == "-gone"
        assert arranged(self.PANELS, kept) == rows

    def test_it_is_a_setting_of_the_person(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        change_setting("theme", "workbench-light", path)
        change_panels("ppo", ("objective/kl", "-grad_norm"), path)
        change_panels("dpo", ("loss",), path)
        change_panels("dpo", (), path)
        found = read_settings(path)
        assert (found.theme, found.curves) == ("workbench-light", {"ppo": ("objective/kl", "-grad_norm")})
        assert found.problems == ()
        path.write_text("curves = 5")
        with pytest.raises(WorkbenchError, match=r"\[curves\] must give each method its panels as a list"):
            read_settings(path)

    def test_the_limits_of_alarms_are_lines(self) -> None:
        config = resolve("ppo", [("", {"ppo": {"max_new_tokens": 50}, "alarm_clipping": {"threshold": 0.4}})]).config
        panels = {name_of(panel): panel for panel in with_limits(panels_of("ppo", []), config)}
        kl = panels["kl/policy_reference_nats_per_sequence"]
        assert [(one.value, one.label) for one in kl.references] == [(0.0, "zero"), (6.0, "target"), (12.0, "alarm")]
        assert panels["policy/clipfrac_avg"].references[-1].value == 0.4
        off = resolve("ppo", [("", {"alarm_clipping": {"on_alarm": "off"}})]).config
        panels = {name_of(panel): panel for panel in with_limits(panels_of("ppo", []), off)}
        assert panels["policy/clipfrac_avg"].references == ()
