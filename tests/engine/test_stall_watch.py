"""A standstill is spoken of once, and only where it is long beside the run's own steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import reporting
from engine.reporting import Reporter
from engine.run.events import read_events
from engine.run.locks import hold
from engine.run.status import describe, new_status, read_status
from engine.stall_watch import LEAST_S, StallWatch
from tests.engine.run_maker import make_run


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_watched_before_the_first_note(clock: Clock) -> None:
    watch = StallWatch(clock)
    clock.now = 10 * LEAST_S
    assert watch.look() == ""


def test_a_standstill_is_told_once_and_its_end_is_known(clock: Clock) -> None:
    watch = StallWatch(clock)
    for _ in range(3):
        assert watch.note(2.0) is False
    clock.now = LEAST_S
    assert watch.look() == ""
    clock.now = LEAST_S + 1
    assert watch.look().startswith("nothing has come of it for 301 s, where a step takes 2.0 s: see engine.log")
    assert watch.look() == ""
    assert watch.note() is True
    assert watch.note() is False
    clock.now += LEAST_S + 1
    assert watch.look() != ""


def test_a_run_of_long_steps_is_given_ten_of_them(clock: Clock) -> None:
    watch = StallWatch(clock)
    for seconds in (100.0, 60.0, 9000.0):
        watch.note(seconds)
    clock.now = 999.0
    assert watch.look() == ""
    clock.now = 1001.0
    assert "a step takes 100.0 s" in watch.look()


def test_the_heartbeat_tells_it_and_the_list_of_runs_shows_it(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "StallWatch", lambda: StallWatch(clock))
    folder = make_run(tmp_path / "still", "sft", tmp_path)
    reporter = Reporter(folder, new_status(folder, None, phase="running"))
    reporter.going_on(1.0)
    clock.now = LEAST_S + 5
    reporter._tell_standstill()
    reporter._write()
    told = [event for event in read_events(folder) if event["kind"] == "stalled"]
    assert [(event["phase"], event["what"][:38]) for event in told] == [
        ("running", "nothing has come of it for 305 s, wher")
    ]
    lock = hold(folder.lock_path)
    assert lock is not None
    assert describe(folder).reason == told[0]["what"]
    reporter.going_on(400.0)
    assert read_status(folder).stalled == ""  # type: ignore[union-attr]
    assert describe(folder).reason == ""
    lock.release()
