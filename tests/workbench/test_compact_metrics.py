"""A compacted run opens with the very curves of its log, grows behind them, and never stands in for another log."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.run.folder import RunFolder
from engine.run.locks import hold
from engine.run.metrics_log import MetricsWriter
from tests.workbench.run_folders import make_run
from workbench import compact_metrics
from workbench.compact_metrics import compact, compact_later, compacted_path, load
from workbench.curves import CurveLog, RunCurves
from workbench.growing_lines import GrowingLines
from workbench.run_list import find_run
from workbench.workspace import Workspace

VALUES = st.sampled_from([0.1 + 0.2, -1e300, 5e-324, math.nan, math.inf, -math.inf, 3.0])
METRICS = st.dictionaries(st.sampled_from(["loss", "step", "eval_loss", "time", 'a"b', "KL"]), VALUES, max_size=4)
LINES = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 12), METRICS), min_size=1, max_size=14)


def told(log: CurveLog) -> object:
    """Everything that is seen of a log, exactly."""
    every = {**log.metrics, "times": log.times}
    points = {name: [*zip(p.steps, map(repr, p.values), strict=True)] for name, p in every.items() if len(p)}
    return points, list(log.steps), list(log.attempts), log.last_step, log.state()


def read_whole(folder: RunFolder) -> CurveLog:
    lines, log = GrowingLines(folder.metrics_path), CurveLog()
    log.take(lines.read().lines)
    return log


def write(folder: RunFolder, lines: list[tuple[int, int, dict[str, float]]]) -> None:
    for attempt, step, metrics in lines:
        writer = MetricsWriter(folder.metrics_path, attempt)
        if step == 12:
            writer.resumed_from(step - 6)
        else:
            writer.write(step, metrics, time=float(step) if step % 3 else 0.0)
        writer.close()


@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(LINES, LINES)
def test_curves_from_both_are_equal_and_go_on_alike(
    tmp_path_factory: pytest.TempPathFactory, before: list[tuple[int, int, dict[str, float]]],
    after: list[tuple[int, int, dict[str, float]]],
) -> None:  # fmt: skip
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    write(folder, before)
    if not compact(folder):
        assert not read_whole(folder).steps
        return
    found = load(folder)
    assert found is not None
    log, read = found
    assert told(log) == told(read_whole(folder))
    write(folder, after)
    lines = GrowingLines(folder.metrics_path)
    lines.skip(read)
    log.take(lines.read().lines)
    assert told(log) == told(read_whole(folder))


def test_what_shares_its_steps_goes_on_apart(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write(folder, [(1, step, {"loss": 1.0, "KL": 0.5 * step}) for step in (1, 2, 4, 5)])
    assert compact(folder)
    found = load(folder)
    assert found is not None
    log, read = found
    loss = log.metrics["loss"]
    assert loss.steps is log.metrics["KL"].steps, "or a long run takes twice the memory"
    write(folder, [(1, 7, {"loss": 2.0})])
    lines = GrowingLines(folder.metrics_path)
    lines.skip(read)
    log.take(lines.read().lines)
    assert told(log) == told(read_whole(folder))
    as_before = [(loss.steps[place], loss.values[place]) for place in range(len(loss))]
    assert as_before == [(step, 1.0) for step in (1, 2, 4, 5)], "of a reader who holds it still"


class TestWhatHolds:
    @pytest.fixture
    def folder(self, workspace: Workspace) -> RunFolder:
        folder = make_run(workspace, "1124-sft-a-k3f", step=30)
        assert compact(folder)
        assert not compact(folder), "it is there already"
        return folder

    def test_a_screen_reads_it_and_only_what_came_since(
        self, folder: RunFolder, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(folder, [(1, 31, {"loss": 7.0})])
        taken: list[int] = []
        take = CurveLog.take
        monkeypatch.setattr(CurveLog, "take", lambda self, lines: (taken.append(len(lines)), take(self, lines))[1])
        curves = RunCurves(find_run(workspace, "-"))
        curves.look()
        assert taken == [1]
        assert curves.log.metrics["loss"].last() == (31, 7.0)
        assert len(curves.log.metrics["loss"]) == 31

    @pytest.mark.parametrize("change", ["cut", "edited", "gone", "damaged", "newer"])
    def test_another_log_is_read_itself(self, folder: RunFolder, workspace: Workspace, change: str) -> None:
        content, path = folder.metrics_path.read_bytes(), compacted_path(folder)
        if change == "cut":
            folder.metrics_path.write_bytes(content[: len(content) // 2])
        elif change == "edited":
            folder.metrics_path.write_bytes(content.replace(b'"loss":1.0', b'"loss":9.0', 1))
        elif change == "gone":
            folder.metrics_path.unlink()
        elif change == "damaged":
            path.write_bytes(path.read_bytes()[:-20])
        else:
            path.write_bytes(path.read_bytes().replace(b'"schema":1', b'"schema":9'))
        assert load(folder) is None
        curves = RunCurves(find_run(workspace, "-"))
        curves.look()
        assert told(curves.log) == told(read_whole(folder))

    def test_a_copy_with_another_time_holds(self, folder: RunFolder) -> None:
        os.utime(folder.metrics_path, (1, 1))
        assert load(folder) is not None


def test_a_run_that_goes_on_is_not_compacted(workspace: Workspace) -> None:
    folder = make_run(workspace, "1124-sft-a-k3f")
    lock = hold(folder.lock_path)
    assert lock is not None
    assert not compact(folder)
    lock.release()
    assert compact(folder)


def test_a_process_of_its_own_does_it_where_it_is_worth_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = make_run(workspace, "1124-sft-a-k3f")
    compact_later(folder)
    assert compact_metrics._STARTED == []
    monkeypatch.setattr(compact_metrics, "WORTH_COMPACTING_BYTES", 10)
    compact_later(folder)
    (started,) = compact_metrics._STARTED
    assert started.wait(60) == 0
    assert load(folder) is not None
    compact_later(folder)
    assert len(compact_metrics._STARTED) == 1
    compact_metrics._STARTED.clear()
