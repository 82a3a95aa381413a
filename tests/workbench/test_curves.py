"""Curves while they grow: what `read_metrics` would say at any moment, decimated so that no spike is lost."""

from __future__ import annotations

import json
import math
import random
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.run.config_layers import resolve
from engine.run.events import append_event
from engine.run.method_names import METHODS
from engine.run.metrics_log import MetricsWriter, read_metrics
from engine.run.samples_log import append_samples
from tests.workbench.run_folders import make_run
from workbench.curve_columns import MANY, Columns, smoothed
from workbench.curve_panels import panels_of, why_empty
from workbench.curve_words import metric_rows, neighbour, state_words
from workbench.curves import CurveLog, Points, RunCurves, x_range
from workbench.growing_lines import GrowingLines
from workbench.run_list import find_run, summarise
from workbench.run_samples import RunSamples, summary_of
from workbench.run_watch import KL
from workbench.value_axis import axis, nice_step, short_number
from workbench.workspace import Workspace

RUN = "1124-dpo-test-aaa"


def as_read(path: Path) -> dict[str, dict[int, float]]:
    """What `read_metrics` says, by metric."""
    found: dict[str, dict[int, float]] = {}
    for line in read_metrics(path):
        for name, value in line.metrics.items():
            found.setdefault(name, {})[line.step] = value
    return found


def as_curves(log: CurveLog) -> dict[str, dict[int, float]]:
    return {name: dict(zip(p.steps, p.values, strict=True)) for name, p in log.metrics.items() if len(p)}


def same(one: dict[str, dict[int, float]], other: dict[str, dict[int, float]]) -> bool:
    return repr(one) == repr({name: other[name] for name in one}) and set(one) == set(other)


def points_of(values: list[float], first: int = 0) -> Points:
    return Points(array("q", range(first, first + len(values))), array("d", values))


def follow(path: Path, lines: GrowingLines, log: CurveLog) -> CurveLog:
    batch = lines.read()
    log = CurveLog() if batch.anew else log
    log.take(batch.lines)
    return log


class TestGrowingLines:
    def test_hands_over_whole_lines_once(self, tmp_path: Path) -> None:
        path = tmp_path / "f.jsonl"
        lines = GrowingLines(path)
        assert lines.read().lines == []
        assert lines.missing
        path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a"')
        assert [line["a"] for line in lines.read().lines] == [1, 2]
        assert lines.read().lines == []
        with path.open("ab") as stream:
            stream.write(b": 3}\nno json\n[4]\n\n")
        assert [line["a"] for line in lines.read().lines] == [3]
        assert not lines.missing

    @pytest.mark.parametrize("new", [b'{"a": 9}\n', b'{"a": 9}\n' * 50], ids=["shorter", "longer"])
    def test_a_rewritten_file_is_read_from_its_beginning(self, tmp_path: Path, new: bytes) -> None:
        path = tmp_path / "f.jsonl"
        path.write_bytes(b'{"a": 1}\n' * 20)
        lines = GrowingLines(path)
        lines.read()
        path.write_bytes(new)
        batch = lines.read()
        assert batch.anew
        assert len(batch.lines) == new.count(b"\n")

    def test_a_replaced_file_with_the_same_beginning_goes_on(self, tmp_path: Path) -> None:
        path, other = tmp_path / "f.jsonl", tmp_path / "g.jsonl"
        path.write_bytes(b'{"a": 1}\n')
        lines = GrowingLines(path)
        lines.read()
        other.write_bytes(b'{"a": 1}\n{"a": 2}\n')
        other.replace(path)
        batch = lines.read()
        assert not batch.anew
        assert batch.lines == [{"a": 2}]

    def test_a_long_file_comes_in_parts_and_an_endless_line_is_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "f.jsonl"
        path.write_bytes(b'{"a": 1}\n' + b'"' + b"x" * 500 + b'"\n' + b'{"a": 2}\n')
        lines = GrowingLines(path, at_once=64)
        found, more = [], True
        while more:
            batch = lines.read()
            found, more = found + batch.lines, batch.more
        assert found == [{"a": 1}, {"a": 2}]

    def test_a_deleted_file_is_missing_and_comes_back(self, tmp_path: Path) -> None:
        path = tmp_path / "f.jsonl"
        path.write_bytes(b'{"a": 1}\n')
        lines = GrowingLines(path)
        lines.read()
        path.unlink()
        assert lines.read().lines == []
        assert lines.missing
        path.write_bytes(b'{"b": 1}\n')
        assert lines.read().anew


class TestCurveLog:
    def test_follows_a_writer_through_a_resume(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        lines, log = GrowingLines(path), CurveLog()
        first = MetricsWriter(path, 1)
        for step in range(1, 8):
            first.write(step, {"loss": 1.0 / step, "rare": 5.0} if step > 5 else {"loss": 1.0 / step})
            log = follow(path, lines, log)
        held = log.metrics["loss"]
        assert log.last_step == 7
        first.close()
        with path.open("ab") as stream:
            stream.write(b'{"schema":1,"step":8,"att')
        second = MetricsWriter(path, 2)
        second.resumed_from(4)
        log = follow(path, lines, log)
        assert log.last_step == 4
        assert log.metrics["loss"] is not held, "whoever draws must see that the past has changed"
        assert len(held) == 7, "and what it still holds is whole"
        second.write(5, {"loss": math.nan, "grad_norm": math.inf})
        second.close()
        log = follow(path, lines, log)
        assert same(as_curves(log), as_read(path))
        assert math.isnan(log.metrics["loss"].values[-1])

    line = st.one_of(
        st.fixed_dictionaries(
            {
                "attempt": st.integers(1, 4),
                "step": st.integers(0, 12),
                "metrics": st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=3),
            }
        ),
        st.fixed_dictionaries({"attempt": st.integers(1, 4), "resumed_from": st.integers(0, 12)}),
        st.fixed_dictionaries({"attempt": st.just("x"), "step": st.just(1)}),
    )

    @settings(max_examples=300, deadline=None)
    @given(st.lists(line, max_size=30), st.lists(st.integers(0, 30), max_size=4))
    def test_is_what_read_metrics_says_in_whatever_order_lines_come(
        self, tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, object]], stops: list[int]
    ) -> None:
        path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
        path.write_text("".join(json.dumps({"schema": 1, **line}) + "\n" for line in lines))
        log, begin = CurveLog(), 0
        for stop in [*sorted(stops), len(lines)]:
            log.take(json.loads(json.dumps(lines[begin:stop])))
            begin = max(begin, stop)
        assert same(as_curves(log), as_read(path))

    def test_hostile_lines_and_two_hundred_names(self, tmp_path: Path) -> None:
        log = CurveLog()
        evil = "\x1b]52;c;AAAA\x07[/nope]"
        log.take(
            [
                {"attempt": 1, "step": 2**70, "metrics": {"a": 1}},
                {"attempt": 1, "step": 1, "metrics": {evil: 1.0, "t": True, "s": "x", "n": None}, "nonfinite": 5},
                {"attempt": True, "step": 1, "metrics": {}},
                {"attempt": 1, "step": 2, "metrics": {f"m{i}": i for i in range(200)}},
            ]
        )
        assert set(log.metrics) == {evil, *(f"m{i}" for i in range(200))}
        panels = panels_of("dpo", list(log.metrics))
        shown = {trace.metric for panel in panels for trace in panel.traces}
        assert set(log.metrics) <= shown


class TestColumns:
    @pytest.mark.parametrize("count", [50, 3000, MANY + 17])
    @pytest.mark.parametrize("width", [1, 7, 66])
    def test_against_brute_force(self, count: int, width: int) -> None:
        draw = random.Random(count * width)
        values = [draw.gauss(0, 1) for _ in range(count)]
        for place in draw.sample(range(count), 9):
            values[place] = draw.choice([math.nan, math.inf, -math.inf])
        columns = Columns(0, count - 1, width)
        columns.follow(points_of(values))
        by_column: dict[int, list[float]] = {}
        for step, value in enumerate(values):
            by_column.setdefault(round(step * (width - 1) / (count - 1) + 1e-9), []).append(value)
        for x in range(width):
            finite = [value for value in by_column.get(x, []) if math.isfinite(value)]
            assert columns.count[x] == len(finite)
            assert columns.broken[x] == len(by_column.get(x, [])) - len(finite)
            if finite:
                assert (columns.low[x], columns.high[x]) == (min(finite), max(finite))
                assert (columns.first[x], columns.last[x]) == (finite[0], finite[-1])
                assert columns.total[x] == pytest.approx(math.fsum(finite))

    def test_one_spike_in_a_hundred_thousand_is_kept(self) -> None:
        values = [0.0] * 100_000
        values[54_321] = 9.0
        columns = Columns(0, 99_999, 60)
        columns.follow(points_of(values))
        assert columns.high_at_all == 9.0
        assert [high for high in columns.high if high > 0] == [9.0]

    def test_growing_is_the_same_as_filling_anew(self) -> None:
        draw = random.Random(3)
        points, columns = Points(), Columns(0, 999, 40)
        for step in range(1000):
            points.steps.append(step)
            points.values.append(draw.random() if step % 50 else math.nan)
            if step % 7 == 0:
                assert columns.follow(points)
        columns.follow(points)
        assert not columns.follow(points)
        anew = Columns(0, 999, 40)
        anew.follow(points)
        for name in ("low", "high", "first", "last", "count", "broken"):
            assert repr(getattr(columns, name)) == repr(getattr(anew, name))

    def test_many_points_join_those_that_are_there(self) -> None:
        draw = random.Random(5)
        values = [draw.gauss(0, 1) for _ in range(2 * MANY + 10)]
        values[3], values[MANY], values[-3] = 50.0, 60.0, -50.0
        points, columns = points_of(values[:9]), Columns(0, 10 * MANY, 3)
        columns.follow(points)
        points.steps.extend(range(9, len(values)))
        points.values.extend(values[9:])
        assert columns.follow(points)
        assert (columns.low[0], columns.high[0], columns.count[0]) == (-50.0, 60.0, len(values))
        assert (columns.first[0], columns.last[0]) == (values[0], values[-1])

    def test_another_past_is_filled_anew(self) -> None:
        columns = Columns(0, 9, 10)
        columns.follow(points_of([5.0] * 10))
        assert columns.follow(points_of([1.0] * 4))
        assert columns.high_at_all == 1.0
        assert columns.points == 4

    def test_smoothing_looks_back_only(self) -> None:
        columns = Columns(0, 19, 20)
        columns.follow(points_of([1.0] * 10 + [3.0] * 10))
        means = smoothed(columns, 3.0)
        assert means[:10] == pytest.approx([1.0] * 10)
        assert 1.0 < means[10] < means[15] < 3.0


class TestAxis:
    @pytest.mark.parametrize(
        ("low", "high"),
        [(0, 0.693), (-3, 11), (1e-5, 2e-4), (3, 3), (0, 0), (-1e300, 1e300), (1e-320, 1e-319), (-5, -5)],
    )
    def test_holds_the_values_between_round_ticks(self, low: float, high: float) -> None:
        found = axis(low, high, 4)
        assert found.low <= low <= high <= found.high
        assert found.low < found.high
        assert 1 <= len(found.ticks) <= 8
        assert all(len(short_number(tick, 6, found.step)) <= 6 for tick in found.ticks)

    def test_steps_are_one_two_or_five(self) -> None:
        assert [nice_step(value) for value in (0.9, 1.0, 1.1, 3, 7, 0.03)] == [1.0, 1.0, 2.0, 5.0, 10.0, 0.05]

    def test_a_share_stays_between_nothing_and_all(self) -> None:
        assert (axis(0.5, 1.0, 4, share=True).low, axis(0.93, 1.0, 4, share=True).high) == (0.5, 1.0)

    def test_logarithmic_where_values_allow_it(self) -> None:
        found = axis(1e-5, 3, 4, log=True)
        assert found.log
        assert found.share(1e-5) == 0
        assert 0 < found.share(1e-3) < found.share(1e-1) < 1
        assert not axis(0, 3, 4, log=True).log
        assert not axis(2, 3, 4, log=True).log

    def test_short_numbers(self) -> None:
        values = (0.69314, 12.3456, 1234.5, 148786.0, 3.3e-4, -0.00012, math.nan, -math.inf, 0.0)
        assert [short_number(value) for value in values] == [
            "0.693", "12.35", "1234", "149k", "3.3e-4", "-1e-4", "nan", "-inf", "0",
        ]  # fmt: skip

    def test_the_range_of_steps_doubles_and_ends_with_the_run(self) -> None:
        assert [x_range(step, 1320, over=False)[1] for step in (0, 128, 129, 600, 1200)] == [128, 128, 256, 1024, 1320]
        assert x_range(7, 40, over=False) == (0, 40)
        assert x_range(0, 0, over=False) == (0, 128)
        assert x_range(50, 1320, over=True) == (0, 50)
        assert x_range(0, 0, over=True) == (0, 1)


class TestPanels:
    @pytest.mark.parametrize(("method", "measured"), [(m, m != "reward") for m in METHODS])
    def test_the_sampled_kl_is_shown_early_wherever_a_policy_changes(self, method: str, measured: bool) -> None:
        first = [trace.metric for panel in panels_of(method, [])[:4] for trace in panel.traces]
        everything = [trace.metric for panel in panels_of(method, []) for trace in panel.traces]
        assert (KL in first, KL in everything) == (measured, measured)

    def test_panels_of_the_gpu_are_there_where_a_run_has_one(self) -> None:
        written = ["loss", "tokens_per_second", "step_time_s", "mfu", "gpu/memory_bytes", "gpu/power_watts"]
        titles = [(panel.title, panel.unit, panel.share) for panel in panels_of("sft", written)]
        machine = [("MFU", "", True), ("GPU memory", "GB", False), ("GPU power", "watts", False)]
        assert titles[titles.index(machine[0]) :][:3] == machine
        for metrics in ([], written[:3]):
            assert not [panel for panel in panels_of("sft", metrics) if "GPU" in panel.title or panel.title == "MFU"]

    def test_train_and_held_out_share_a_panel_with_its_reference(self) -> None:
        loss = panels_of("dpo", ["loss", "eval_loss"])[0]
        assert [(trace.metric, trace.kind) for trace in loss.traces] == [("loss", "line"), ("eval_loss", "points")]
        assert [reference.label for reference in loss.references] == ["ln 2"]
        assert loss.unit == "nats"

    def test_with_an_nll_only_the_preference_term_begins_at_ln_2(self) -> None:
        panels = panels_of("dpo", ["loss", "preference_loss", "nll_loss", "eval_loss"])
        assert [trace.metric for trace in panels[0].traces] == ["preference_loss", "eval_preference_loss"]
        assert [reference.label for reference in panels[0].references] == ["ln 2"]
        whole = next(panel for panel in panels if panel.traces[0].metric == "loss")
        assert [trace.metric for trace in whole.traces] == ["loss", "eval_loss"]
        assert whole.references == ()

    def test_methods_that_mean_both_terms_show_their_sum_first(self) -> None:
        panels = panels_of("orpo", ["loss", "preference_loss", "nll_loss", "eval_loss"])
        assert [panel.traces[0].metric for panel in panels[:4]] == ["loss", KL, "preference_loss", "nll_loss"]

    def test_a_loss_of_another_form_has_no_reference_line(self) -> None:
        ipo = resolve("dpo", [("test", {"dpo": {"loss": "ipo"}})]).config
        assert panels_of("dpo", ["loss"], ipo)[0].references == ()

    def test_the_displacement_of_chosen_answers_stands_beside_the_margins(self) -> None:
        titles = [panel.title for panel in panels_of("dpo", ["loss", "rewards/margins", "displacement/chosen"])]
        assert titles.index("log-probs since the start") == titles.index("rewards/margins") + 1

    def test_each_reward_has_a_panel_in_the_order_of_the_run(self) -> None:
        names = [
            f"{side}rewards/{reward}/{what}" for side in ("", "eval_") for reward in "ab" for what in ("mean", "std")
        ]
        config = resolve("grpo", [("", {"rewards": {"functions": ["f.py:b", "f.py:a"]}})]).config
        panels = panels_of("grpo", ["reward", "eval_rewards/a/mean_standard_error", *names], config)
        assert [panel.title for panel in panels[:3]] == ["reward", "reward b", "reward a"]
        assert [trace.metric for trace in panels[1].traces] == ["rewards/b/mean", "eval_rewards/b/mean"]
        assert "rewards/a/mean" not in [panel.title for panel in panels]

    def test_held_out_figures_of_several_sources_share_panels_of_three(self) -> None:
        names = [f"{family}/{source}" for source in "abcd" for family in ("eval_accuracy", "eval_loss")]
        errors = [f"eval_loss_standard_error/{source}" for source in "abcd"]
        panels = panels_of("reward", ["loss", "eval_loss", "accuracy", "eval_accuracy", *names, *errors])
        of_sources = [panel for panel in panels if panel.by_name]
        assert [[trace.label for trace in panel.traces] for panel in of_sources] == [["a", "b", "c"], ["d"]] * 2
        assert panels[2:4] == (*of_sources[:2],)
        assert of_sources[0].title == "eval_loss by source"
        assert len({trace.kind for trace in of_sources[0].traces}) == 3
        assert [panel.share for panel in of_sources] == [False, False, True, True]
        # Neither a standard error nor a source has a panel of its own beside these.
        shown = [trace.metric for panel in panels for trace in panel.traces]
        assert sorted(name for name in shown if "/" in name) == sorted(names)

    def test_the_kl_says_estimator_reference_and_error(self) -> None:
        panel = next(panel for panel in panels_of("ppo", []) if panel.traces[0].metric == KL)
        assert "k1" in panel.title
        assert "reference" in panel.title
        assert panel.traces[0].error

    def test_the_kl_of_rollouts_says_which_estimator_acts_and_where(self) -> None:
        steered = {"kl_in": "loss", "kl_estimator": "k3_prefix", "kl_control": "adaptive", "kl_target": 2.0}
        config = resolve("ppo", [("test", {"ppo": steered})]).config
        panel = next(panel for panel in panels_of("ppo", [], config) if panel.traces[0].metric == "objective/kl")
        assert panel.title == "KL of the rollouts to the reference, k1; k3_prefix acts in the loss"
        assert [(line.value, line.label) for line in panel.references] == [(0.0, "zero"), (2.0, "target")]

    @pytest.mark.parametrize(("method", "where"), [("ppo", "reward"), ("grpo", "loss"), ("rloo", "reward")])
    def test_each_method_on_rollouts_says_its_own(self, method: str, where: str) -> None:
        estimator = "k3_prefix" if where == "loss" else "k3"
        config = resolve(method, [("test", {method: {"kl_estimator": estimator}})]).config
        panels = {panel.traces[0].metric: panel.title for panel in panels_of(method, [], config)}
        assert panels["objective/kl"].endswith(f"; {estimator} acts in the {where}")
        assert method == "rloo" or panels["loss/kl_avg"] == f"KL in the loss, {estimator}"

    def test_what_the_first_step_did_not_bring_takes_no_room(self) -> None:
        assert "entropy" in [panel.title for panel in panels_of("dpo", ["eval_loss"])]
        after = panels_of("dpo", ["loss", "grad_norm"])
        assert [panel.traces[0].metric for panel in after] == ["loss", KL, "grad_norm"]

    def test_a_foreign_run_shows_what_it_has(self) -> None:
        panels = panels_of("", ["zeta", "loss", "loss_standard_error", "eval_loss"])
        assert [panel.traces[0].metric for panel in panels] == ["loss", "zeta"]

    def test_an_empty_panel_says_why(self, workspace: Workspace) -> None:
        make_run(workspace, RUN)
        config = find_run(workspace, "-").config()
        loss, kl = panels_of("dpo", [])[:2]
        assert why_empty(loss, config, 100, over=False) == "no values yet: first at step 1"
        assert why_empty(kl, None, 100, over=False) == "no values yet"
        assert why_empty(kl, config, 100, over=True) == "no values: the run wrote none"


class TestRunCurves:
    def test_looks_at_what_is_new(self, workspace: Workspace) -> None:
        folder = make_run(workspace, RUN, checkpoints=(2,))
        append_event(folder, "checkpoint", step=2)
        append_event(folder, "resumed", step=2)
        append_event(folder, "done")
        curves = RunCurves(find_run(workspace, RUN))
        glance = curves.look()
        assert (glance.summary.state, glance.missing, curves.log.last_step) == ("done", False, 4)
        assert [(event.step, event.kind) for event in glance.events] == [(2, "checkpoint"), (2, "resumed")]
        assert curves.look() == glance
        writer = MetricsWriter(folder.metrics_path, 1)
        writer.write(5, {"loss": 0.1})
        writer.close()
        assert curves.look().revision == glance.revision + 1
        assert curves.log.metrics["loss"].last() == (5, 0.1)

    def test_a_folder_that_goes_leaves_its_curves(self, workspace: Workspace) -> None:
        import shutil

        folder = make_run(workspace, RUN)
        curves = RunCurves(find_run(workspace, RUN))
        curves.look()
        shutil.rmtree(folder.path)
        curves.forget_state()
        glance = curves.look()
        assert glance.missing
        assert glance.summary.state == "damaged"
        assert curves.log.last_step == 4

    def test_words(self, workspace: Workspace) -> None:
        make_run(workspace, RUN)
        make_run(workspace, "1124-sft-test-bbb", created="2026-11-24T11:00:00+00:00")
        run = find_run(workspace, RUN)
        assert state_words(summarise(run), 4) == "✓ done · step 4/8 · 50 % · dpo · cpu"
        assert neighbour(workspace, RUN, 1) == "1124-sft-test-bbb"
        assert neighbour(workspace, RUN, -1) == RUN
        curves = RunCurves(run)
        curves.look()
        rows = dict(metric_rows(curves.log, plain=True))
        assert rows["loss"][:3] == ("loss", "0.250", "4")


ROW = {"prompt_id": "p", "prompt": "Why?", "completion": "So.", "logratio": [0.5, 0.25], "length": 2, "stopped": True}


class TestSamples:
    def test_the_last_attempt_at_a_step_counts(self, workspace: Workspace) -> None:
        folder = make_run(workspace, RUN)
        append_samples(folder, 2, 1, "probe", [ROW])
        append_samples(folder, 4, 1, "probe", [ROW, ROW])
        samples, curves = RunSamples(folder), RunCurves(find_run(workspace, RUN))
        curves.look()
        assert samples.read() == 3
        assert samples.places(curves.log.superseded) == [(2, "probe"), (4, "probe")]
        assert summary_of(samples.at((4, "probe"), curves.log.superseded)) == "2 answers · mean log-ratio 0.750 nats"
        writer = MetricsWriter(folder.metrics_path, 2)
        writer.resumed_from(3)
        writer.close()
        append_samples(folder, 4, 2, "probe", [{**ROW, "reward": 2.0, "stopped": False}])
        curves.look()
        assert samples.read() == 4
        (only,) = samples.at((4, "probe"), curves.log.superseded)
        assert only.figures == "2 tokens, cut off · reward 2.000 · log-ratio 0.750 nats"
