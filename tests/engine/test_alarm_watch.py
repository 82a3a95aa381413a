"""Alarms of whole runs on the tiny model: told once, the checkpoint before them kept, a pause and a stop, a resume.

The alarm is that of the sampled KL, whose target is so low here that the policy passes it within a few steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import train
from engine.run import control
from engine.run.config_toml import read_config
from engine.run.events import read_events
from engine.run.folder import RunFolder
from engine.run.metrics_log import read_metrics
from engine.run.resume_settings import change_settings, changes_of
from engine.run.status import Status, describe, new_status, read_status, write_status
from tests.engine.run_maker import make_run

KL = "kl/policy_reference_nats_per_sequence"
TARGET = 0.1
Make = Callable[..., RunFolder]


def attempt(folder: RunFolder) -> Status:
    """One attempt, counted as the supervisor does; what it says at its end."""
    before = new_status(folder, read_status(folder), phase="preparing")
    write_status(folder, replace(before, attempt=before.attempt + 1))
    train.main([str(folder.path)])
    status = read_status(folder)
    assert status is not None
    return status


def curve(folder: RunFolder) -> dict[int, tuple[float, float]]:
    """Loss and KL by step."""
    return {m.step: (m.metrics["loss"], m.metrics[KL]) for m in read_metrics(folder.metrics_path) if m.step}


def alarms(folder: RunFolder) -> list[dict[str, Any]]:
    return [event for event in read_events(folder) if event["kind"] == "alarm"]


def build(path: Path, model: Path, on_alarm: str, **settings: Any) -> RunFolder:
    """SFT of 6 steps whose KL is read after each; it passes its target in the middle."""
    chosen = {
        "optim__lr": 3e-3, "optim__schedule": "constant", "probe__every": 1, "probe__prompts": 2,
        "probe__max_new_tokens": 4, "alarm_kl__on_alarm": on_alarm, "alarm_kl__threshold": TARGET,
        "alarm_kl__window": 2, "alarm_kl_runaway__on_alarm": "off", "checkpoint__every": 1, "checkpoint__keep": 1,
    }  # fmt: skip
    return make_run(path, "sft", model, eval_rows=0, **{**chosen, **settings})


@pytest.fixture
def make(tiny_model_folder: Path, tmp_path: Path) -> Make:
    """`make(name, on_alarm, …)`: a run as `build` makes it, not begun."""
    return lambda name, on_alarm, **settings: build(tmp_path / name, tiny_model_folder, on_alarm, **settings)


@pytest.fixture(scope="module")
def noted(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A whole run whose alarm was noted."""
    folder = build(tmp_path_factory.mktemp("noted") / "noted", tiny_model_folder, "note")
    assert attempt(folder).phase == "done"
    return folder


def test_a_note_is_an_event_with_its_reason_and_the_run_goes_on(noted: RunFolder) -> None:
    (alarm,) = alarms(noted)
    first = next(step for step, (_, kl) in curve(noted).items() if kl > TARGET)
    assert (alarm["alarm"], alarm["onset"], alarm["step"]) == ("kl", first, first + 1)
    assert (alarm["action"], alarm["window"], alarm["threshold"]) == ("note", 2, TARGET)
    assert f"above 0.1 nats a sequence in 2 steps in a row, at step {first} to {first + 1}: " in alarm["what"]
    assert "reference" in alarm["explanation"]
    assert "optim.lr" in alarm["remedy"]
    status = read_status(noted)
    assert status is not None
    assert status.alarm.startswith(f"KL above its target since step {first} (kl). Clone the run ")
    assert noted.checkpoint_steps() == [6]


def test_the_checkpoint_before_the_onset_outlives_the_run(make: Make) -> None:
    """The newest alone is kept, and the window is longer than it is: what came before the onset was spared already."""
    folder = make("kept", "checkpoint")
    attempt(folder)
    (alarm,) = alarms(folder)
    assert alarm["kept_checkpoint"] == alarm["onset"] - 1 >= 1
    assert folder.checkpoint_steps() == [alarm["kept_checkpoint"], 6]


@pytest.mark.parametrize("action", ["pause", "stop"])
def test_a_run_that_its_alarm_ended_goes_on_as_if_it_had_not(make: Make, noted: RunFolder, action: str) -> None:
    ended = make("ended", action)
    status = attempt(ended)
    (alarm,) = alarms(ended)
    step = alarm["step"]
    assert (status.phase, status.step, status.stopped_by) == ("stopped", step, {"alarm": "kl", "action": action})
    assert describe(ended).reason == (
        f"{'paused' if action == 'pause' else 'stopped'} by the alarm kl at step {step}; resume continues from "
        f"step {step}"
    )
    assert read_events(ended)[-1]["alarm"] == "kl"
    again = attempt(ended)
    assert (again.phase, again.stopped_by, again.alarm) == ("done", None, status.alarm)
    assert alarms(ended) == [alarm]
    assert curve(ended) == curve(noted)


def test_a_kill_between_the_alarm_and_its_checkpoint_tells_nothing_twice_and_still_pauses(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine import training_loop

    folder = make("killed", "pause", checkpoint__every=100)
    save = training_loop.save_checkpoint
    monkeypatch.setattr(training_loop, "save_checkpoint", lambda *_, **__: (_ for _ in ()).throw(OSError("killed")))
    assert attempt(folder).phase == "failed"
    assert folder.checkpoint_steps() == []
    (alarm,) = alarms(folder)
    assert alarm["kept_checkpoint"] is None
    monkeypatch.setattr(training_loop, "save_checkpoint", save)
    assert attempt(folder).stopped_by == {"alarm": "kl", "action": "pause"}
    assert alarms(folder) == [alarm]
    # Now it was carried out: the same steps, run once more, pause no more.
    (folder.checkpoint_path(alarm["step"]) / "MANIFEST.json").unlink()
    assert attempt(folder).phase == "done"
    assert alarms(folder) == [alarm]


def test_a_stop_inside_a_window_changes_nothing(make: Make, noted: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    halved = make("halved", "note")
    (alarm,) = alarms(noted)
    from engine.reporting import Reporter

    write = Reporter.metrics

    def write_and_ask(self: Reporter, step: int, metrics: Any) -> None:
        write(self, step, metrics)
        if step == alarm["onset"]:
            control.request(halved, "stop")

    monkeypatch.setattr(Reporter, "metrics", write_and_ask)
    assert attempt(halved).step == alarm["onset"]
    assert alarms(halved) == []
    monkeypatch.setattr(Reporter, "metrics", write)
    attempt(halved)
    differing = ("time", "attempt")
    assert [{k: v for k, v in one.items() if k not in differing} for one in alarms(halved)] == [
        {k: v for k, v in alarm.items() if k not in differing}
    ]


def test_what_an_alarm_does_may_change_when_the_run_goes_on_and_at_its_end_it_ends_nothing(make: Make) -> None:
    folder = make("changed", "off", train__steps=5)
    settings = ["alarm_kl.on_alarm=pause", "alarm_kl.threshold=0.2"]
    change_settings(folder, changes_of(read_config(folder.config_path), settings, "changed"))
    config = read_config(folder.config_path)
    assert (config.alarm_kl.on_alarm, config.alarm_kl.threshold) == ("pause", 0.2)
    assert attempt(folder).phase == "done"  # the window is full with the last step
    assert [alarm["step"] for alarm in alarms(folder)] == [5]
