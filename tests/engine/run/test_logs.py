"""Metrics, samples, events and requests: what counts after kills, and what a reader bears."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable

import pytest

from engine.errors import RunFolderError
from engine.run import control
from engine.run.events import append_event, read_events
from engine.run.folder import RunFolder
from engine.run.metrics_log import MetricsWriter, read_metrics
from engine.run.samples_log import append_samples, read_samples

MakeRun = Callable[..., RunFolder]


def write(folder: RunFolder, attempt: int, steps: list[int], *, resumed_from: int | None = None) -> None:
    """One attempt: the value of a step says who wrote it."""
    writer = MetricsWriter(folder.metrics_path, attempt)
    if resumed_from is not None:
        writer.resumed_from(resumed_from)
    for step in steps:
        writer.write(step, {"loss": attempt * 100 + step})
    writer.close()


def losses(folder: RunFolder) -> dict[int, float]:
    return {line.step: line.metrics["loss"] for line in read_metrics(folder.metrics_path)}


class TestMetrics:
    """metrics.jsonl."""

    def test_lines_come_back(self, make_run: MakeRun) -> None:
        folder = make_run()
        write(folder, 1, [0, 1, 2])
        lines = read_metrics(folder.metrics_path)
        assert [(line.step, line.attempt, line.metrics) for line in lines] == [
            (0, 1, {"loss": 100.0}), (1, 1, {"loss": 101.0}), (2, 1, {"loss": 102.0}),
        ]  # fmt: skip
        assert all(line.time > 1e9 for line in lines)
        assert folder.metrics_path.stat().st_mode & 0o777 == 0o600

    def test_numbers_that_are_not_finite_survive(self, make_run: MakeRun) -> None:
        folder = make_run()
        writer = MetricsWriter(folder.metrics_path, 1)
        writer.write(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5})
        writer.sync()
        writer.close()
        assert b'"a":null' in folder.metrics_path.read_bytes()
        metrics = read_metrics(folder.metrics_path)[0].metrics
        assert math.isnan(metrics["a"])
        assert (metrics["b"], metrics["c"], metrics["d"]) == (math.inf, -math.inf, 1.5)

    def test_the_last_attempt_of_a_step_counts(self, make_run: MakeRun) -> None:
        folder = make_run()
        write(folder, 1, [1, 2, 3, 4])
        write(folder, 2, [3, 4, 5], resumed_from=2)
        assert losses(folder) == {1: 101, 2: 102, 3: 203, 4: 204, 5: 205}

    def test_what_lies_beyond_the_point_of_resumption_is_void_at_once(self, make_run: MakeRun) -> None:
        folder = make_run()
        write(folder, 1, [1, 2, 3, 4])
        write(folder, 2, [], resumed_from=2)
        assert losses(folder) == {1: 101, 2: 102}
        write(folder, 3, [2, 3], resumed_from=1)
        assert losses(folder) == {1: 101, 2: 302, 3: 303}

    def test_an_attempt_that_began_anew_voids_all_before(self, make_run: MakeRun) -> None:
        folder = make_run()
        write(folder, 1, [0, 1, 2, 3])
        write(folder, 2, [0, 1])
        assert losses(folder) == {0: 200, 1: 201}

    def test_a_torn_tail_is_closed_by_the_next_attempt(self, make_run: MakeRun) -> None:
        folder = make_run()
        write(folder, 1, [1, 2])
        whole = folder.metrics_path.read_bytes()
        folder.metrics_path.write_bytes(whole[:-7])
        assert losses(folder) == {1: 101}
        write(folder, 2, [2], resumed_from=1)
        assert losses(folder) == {1: 101, 2: 202}

    def test_foreign_lines_are_left_out(self, make_run: MakeRun) -> None:
        folder = make_run()
        folder.metrics_path.write_text(
            '{"step":1}\n{"step":true,"attempt":1,"metrics":{}}\nnoise\n{"attempt":1,"resumed_from":null}\n'
            '{"step":2,"attempt":1,"metrics":{"loss":1,"s":"x","t":true},"nonfinite":{"q":"huge"}}\n'
        )
        assert [(line.step, line.metrics) for line in read_metrics(folder.metrics_path)] == [(2, {"loss": 1.0})]

    def test_a_full_disk_is_named_and_the_log_goes_on_whole(self, make_run: MakeRun) -> None:
        folder = make_run()
        writer = MetricsWriter(folder.metrics_path, 1)
        writer.write(1, {"loss": 101})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (folder.metrics_path.stat().st_size + 10, hard))
        try:
            with pytest.raises(RunFolderError, match=r"writing the metrics: no space left .* MB are free"):
                writer.write(2, {"loss": 102})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert losses(folder) == {1: 101}
        writer.write(2, {"loss": 102})
        assert losses(folder) == {1: 101, 2: 102}
        writer.close()
        with pytest.raises(RunFolderError, match="closed"):
            writer.write(3, {})


class TestSamples:
    """samples.jsonl."""

    def test_the_last_attempt_of_a_step_counts(self, make_run: MakeRun) -> None:
        folder = make_run()
        write(folder, 1, [1, 2, 3])
        for step in (0, 2, 3):
            append_samples(folder, step, 1, "probe", [{"completion": f"1@{step}"}])
        append_samples(folder, 3, 1, "rollout", [{"completion": "r"}])
        write(folder, 2, [2], resumed_from=1)
        append_samples(folder, 2, 2, "probe", [{"completion": "2@2", "x": "\ud800"}, {"completion": "2@2 b"}])
        assert [row["completion"] for row in read_samples(folder)] == ["1@0", "2@2", "2@2 b"]
        assert read_samples(folder, "rollout") == []
        assert set(read_samples(folder, "probe")[0]) == {"schema", "step", "attempt", "time", "source", "completion"}

    def test_foreign_lines_are_left_out_and_an_unknown_source_is_refused(self, make_run: MakeRun) -> None:
        folder = make_run()
        folder.samples_path.write_text('{"step":1}\n[]\n{"step":1,"attempt":1,"source":"probe","completion":"x"}\n')
        assert [row["completion"] for row in read_samples(folder)] == ["x"]
        with pytest.raises(ValueError, match="no source"):
            append_samples(folder, 1, 1, "dream", [])


class TestEvents:
    """events.jsonl."""

    def test_events_come_back_in_order(self, make_run: MakeRun) -> None:
        folder = make_run()
        append_event(folder, "started", device="cpu")
        append_event(folder, "failed", what="\udc80 \x1b[2J", value=math.nan)
        with open(folder.events_path, "ab") as file:
            file.write(b'{"kind":3}\n{"torn')
        append_event(folder, "resumed", step=3)
        events = read_events(folder)
        assert [event["kind"] for event in events] == ["started", "failed", "resumed"]
        assert events[0]["device"] == "cpu"
        assert events[0]["schema"] == 1
        assert events[1]["value"] is None


class TestControl:
    """control/."""

    def test_a_request_stays_until_it_is_cleared(self, make_run: MakeRun) -> None:
        folder = make_run()
        assert control.pending(folder, "stop") is None
        control.request(folder, "stop", by="ada")
        found = control.pending(folder, "stop")
        assert found is not None
        assert found["by"] == "ada"
        assert control.pending(folder, "checkpoint") is None
        control.clear(folder, "stop")
        control.clear(folder, "stop")
        assert control.pending(folder, "stop") is None

    def test_a_request_that_cannot_be_read_is_still_one(self, make_run: MakeRun) -> None:
        folder = make_run()
        (folder.control / "stop.json").write_text("")
        assert control.pending(folder, "stop") == {}

    def test_an_unknown_request_is_refused(self, make_run: MakeRun) -> None:
        with pytest.raises(ValueError, match="no request"):
            control.request(make_run(), "../../evil")
