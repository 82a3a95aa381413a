"""Mirrors: every step reaches the other program, training never notices, and what fails is one event."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.run import mirror as mirroring
from engine.run.config_layers import parse_set, resolve
from engine.run.detached_start import import_root, start_detached
from engine.run.durable_files import read_json_object
from engine.run.event_file_writer import EventFileWriter
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.locks import hold, is_held
from engine.run.metrics_log import MetricsWriter
from engine.run.mirror import logged_name, main, mirror, missing_packages, start_mirrors
from engine.run.status import describe
from tests.engine.run.fake_worker import loss_of
from tests.engine.run.run_processes import fake_worker, wait_until
from workbench.foreign_logs import open_log

MakeRun = Callable[..., RunFolder]


def losses(folder: Path) -> dict[int, float]:
    log = open_log(folder)
    log.read()
    return {step: row.metrics["loss"] for step, row in log.rows.items()}


class Ears:
    """A target that remembers, and fails where it is told to."""

    def __init__(self, fails_at: int = -1) -> None:
        self.heard: list[tuple[int, dict[str, float]]] = []
        self.closed, self._fails_at = 0, fails_at

    def write(self, step: int, when: float, scalars: Mapping[str, float]) -> None:
        if step == self._fails_at:
            raise ConnectionError("the line is dead")
        self.heard.append((step, dict(scalars)))

    def close(self) -> None:
        self.closed += 1


def write(folder: RunFolder, steps: range, attempt: int = 1) -> None:
    writer = MetricsWriter(folder.metrics_path, attempt)
    for step in steps:
        writer.write(step, {"loss": loss_of(step)})
    writer.close()


class TestFollowing:
    def test_each_step_once_through_ends_and_beginnings(self, make_run: MakeRun) -> None:
        folder, ears = make_run(), Ears()
        write(folder, range(1, 4))
        rounds = iter([True, True, False])

        def alive() -> bool:
            going_on = next(rounds)
            write(folder, range(10, 12) if going_on else range(20, 21))
            return going_on

        assert mirror(folder, "x", ears, alive, poll_s=0) == 3 + 2 + 2 + 1
        write(folder, range(30, 32), attempt=2)
        assert mirror(folder, "x", ears, lambda: False, poll_s=0) == 2
        assert [step for step, _ in ears.heard] == [1, 2, 3, 10, 11, 10, 11, 20, 30, 31]
        assert ears.closed == 2

    def test_a_torn_line_waits_and_odd_values_are_handed_on_as_they_are(self, make_run: MakeRun) -> None:
        folder, ears = make_run(), Ears()
        writer = MetricsWriter(folder.metrics_path, 1)
        writer.write(1, {"eval_loss": math.inf, "objective/kl": math.nan})
        writer.resumed_from(0)
        writer.close()
        with open(folder.metrics_path, "ab") as stream:
            stream.write(b'{"step": 2, "metr')
        mirror(folder, "x", ears, lambda: False)
        ((step, scalars),) = ears.heard
        assert (step, scalars["eval/loss"]) == (1, math.inf)
        assert math.isnan(scalars["train/objective/kl"])
        with open(folder.metrics_path, "ab") as stream:
            stream.write(b'ics": {"loss": 1}}\n')
        mirror(folder, "x", ears, lambda: False)
        assert ears.heard[-1] == (2, {"train/loss": 1.0})


class TestAProcess:
    def test_it_copies_a_run_that_does_not_know_it(self, make_run: MakeRun) -> None:
        folder = make_run(mirror={"to": ["tensorboard"]})
        start_detached(folder.path, worker=fake_worker(folder, steps=12, crash_at=7, crash="kill", crash_in_attempts=1))
        wait_until(lambda: not describe(folder).alive, "the end of the run")
        wait_until(lambda: handed_on(folder), "the end of the mirror")
        assert losses(folder.path / "tensorboard") == pytest.approx({step: loss_of(step) for step in range(1, 8)})
        assert [event["to"] for event in read_events(folder) if event["kind"] == "mirror"] == ["tensorboard"]
        resolved = describe(folder)
        assert resolved.state == "failed", "a crash, as without a mirror"
        start_detached(folder.path, worker=fake_worker(folder, steps=12))
        wait_until(lambda: not describe(folder).alive, "the end of the resumed run")
        wait_until(lambda: handed_on(folder), "the end of the second mirror")
        assert losses(folder.path / "tensorboard") == pytest.approx({step: loss_of(step) for step in range(1, 13)})

    def test_a_failure_is_one_event(self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = make_run()
        write(folder, range(1, 4))
        monkeypatch.setattr(mirroring, "open_target", lambda *_: Ears(fails_at=2))
        assert main([str(folder.path), "wandb"]) == 1
        monkeypatch.undo()
        monkeypatch.setitem(sys.modules, "trackio", None)  # as where it is not installed
        assert main([str(folder.path), "trackio"]) == 1
        failures = [event for event in read_events(folder) if event["kind"] == "mirror_failed"]
        assert failures[0]["what"] == "ConnectionError: the line is dead"
        assert failures[1]["remedy"].startswith("pip install 'workbench[trackio]'")

    def test_one_that_reads_on_keeps_its_place(self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = make_run()
        lock = hold(folder.path / ".mirror-tensorboard.lock")
        assert lock is not None
        monkeypatch.setattr(mirroring, "TAKE_OVER_S", 0.0)
        assert main([str(folder.path), "tensorboard"]) == 0
        assert not (folder.path / "tensorboard").exists()
        lock.release()

    def test_one_that_cannot_be_started_is_an_event(self, make_run: MakeRun) -> None:
        folder = make_run(mirror={"to": ["tensorboard"]})
        start_mirrors(folder, resolve("sft", [("t", {"mirror": {"to": ["wandb"]}})]).config, folder.path / "nowhere")
        assert [event["kind"] for event in read_events(folder)] == ["mirror_failed"]


def handed_on(folder: RunFolder) -> bool:
    """Whether the mirror has come to the end of the metrics and ended."""
    place = read_json_object(folder.path / ".mirror-tensorboard.json") or {}
    whole = place.get("offset") == folder.metrics_path.stat().st_size
    return whole and not is_held(folder.path / ".mirror-tensorboard.lock")


@settings(deadline=None, max_examples=12)
@given(
    st.dictionaries(
        st.integers(0, 2**40),
        st.dictionaries(st.text(min_size=1, max_size=9), st.floats(width=32), min_size=1, max_size=3), max_size=4,
    )
)  # fmt: skip
def test_event_files_say_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, steps: dict[int, dict[str, float]]
) -> None:
    folder = tmp_path_factory.mktemp("events")
    writer = EventFileWriter(folder, 1e9)
    for step, scalars in steps.items():
        writer.write(step, 1e9 + step, {f"x/{tag}": value for tag, value in scalars.items()})
    writer.close()
    log = open_log(folder)
    log.read()
    found = {step: {name: repr(value) for name, value in row.metrics.items()} for step, row in log.rows.items()}
    assert found == {step: {f"x/{tag}": repr(v) for tag, v in scalars.items()} for step, scalars in steps.items()}


def test_the_real_tensorboard_reads_them(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for attempt in range(2):
        writer = EventFileWriter(tmp_path, 1e9)  # the same second: the second file must still come second
        for step in range(1, 4):
            writer.write(step + 2 * attempt, 1e9 + step, {"train/loss": step / 4 + attempt, "eval/loss": math.nan})
        writer.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["scalars"] == ["train/loss", "eval/loss"]
    read = [(one.step, one.value) for one in events.Scalars("train/loss")]
    assert read[-3:] == [(3, 1.25), (4, 1.5), (5, 1.75)]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_real_packages_take_them(name: str, make_run: MakeRun, tmp_path: Path) -> None:
    pytest.importorskip(name)
    folder = make_run(mirror={"to": [name]})
    write(folder, range(1, 6))
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "engine.run.mirror", str(folder.path), name]
    done = subprocess.run(command, cwd=import_root(), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [event["kind"] for event in read_events(folder)] == ["mirror"]
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".jsonl")
    assert b"train/loss" in content


def test_names_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [logged_name(name) for name in ("loss", "eval_loss")] == ["train/loss", "eval/loss"]
    layer: dict[str, Any] = {"mirror": {"to": ["tensorboard", "wandb"]}}
    monkeypatch.setattr(mirroring, "find_spec", lambda name: None)
    config = resolve("dpo", [("t", layer)]).config
    assert missing_packages(config) == ["wandb"]
    assert parse_set("mirror.to=tensorboard, wandb", "dpo") == layer
    assert parse_set("mirror.to=", "dpo") == {"mirror": {"to": []}}
    with pytest.raises(Exception, match="must be one of 'tensorboard', 'wandb', 'trackio'"):
        resolve("dpo", [("t", {"mirror": {"to": ["neptune"]}})])
