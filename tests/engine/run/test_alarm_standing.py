"""When an alarm is raised, what it blames, when it is over, and that a checkpoint in between changes nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

import pytest

from engine.run.alarm_rules import BY_NAME, RULES, AlarmRule, Limits
from engine.run.alarm_standing import Raised, Standing, advance, first_to_blame

KL = BY_NAME["kl"]
LIMITS = Limits(3, 6.0)


def heard(
    values: Iterable[tuple[int, float]], rule: AlarmRule = KL, limits: Limits = LIMITS, *, saved_at: int = -1
) -> tuple[Standing, list[Raised]]:
    """The standing after (step, KL) readings and what was raised; at `saved_at` it goes through a checkpoint."""
    standing, raised = Standing(), []
    for step, value in values:
        standing, one = advance(rule, limits, standing, step, {"objective/kl": value, "loss": 0.0})
        raised += [one] if one else []
        if step == saved_at:
            standing = Standing.of_json(json.loads(json.dumps(standing.as_json())))
    return standing, raised


def test_it_is_raised_by_a_whole_window_beyond_the_threshold_and_blames_its_first_step() -> None:
    standing, raised = heard([(1, 5.0), (2, 7.0), (3, 8.0)])
    assert not raised
    assert first_to_blame(KL, LIMITS, standing) == 2
    _, (alarm,) = heard([(1, 5.0), (2, 7.0), (3, 8.0), (4, 9.0)])
    assert (alarm.step, alarm.onset) == (4, 2)
    assert alarm.what == (
        "the KL to the reference was above 6 nats a sequence in 3 steps in a row, at step 2 to 4: 7, 8, 9"
    )


def test_a_reading_within_the_threshold_begins_the_window_anew() -> None:
    assert heard([(1, 7.0), (2, 7.0), (3, 6.0), (4, 7.0), (5, 7.0)])[1] == []


def test_readings_that_are_steps_apart_blame_all_behind_the_last_good_one() -> None:
    _, (alarm,) = heard([(0, 0.0), (10, 1.0), (20, 7.0), (30, 7.0), (40, 7.0)])
    assert (alarm.step, alarm.onset) == (40, 11)


def test_it_is_raised_once_for_each_onset() -> None:
    beyond = [(step, 7.0) for step in range(1, 21)]
    assert len(heard(beyond)[1]) == 1
    # One good reading in between is no end of it; a window of them is.
    assert len(heard([*beyond, (21, 1.0), *[(s, 7.0) for s in range(22, 30)]])[1]) == 1
    twice = [*beyond, (21, 1.0), (22, 1.0), (23, 1.0), *[(s, 7.0) for s in range(24, 30)]]
    standing, raised = heard(twice)
    assert [(one.step, one.onset) for one in raised] == [(3, 1), (26, 24)]
    assert standing.onset == 24


@pytest.mark.parametrize("saved_at", range(1, 12))
def test_a_checkpoint_in_between_changes_nothing(saved_at: int) -> None:
    draw = random.Random(3)
    values = [(step, draw.uniform(4.0, 9.0)) for step in range(1, 40)]
    assert heard(values, limits=Limits(2, 6.0), saved_at=saved_at) == heard(values, limits=Limits(2, 6.0))


def test_a_step_that_is_measured_again_is_no_new_reading() -> None:
    assert heard([(0, 7.0), (0, 7.0), (0, 7.0)])[1] == []


def test_a_single_reading_says_so() -> None:
    _, (alarm,) = heard([(7, 6.5)], limits=Limits(1, 6.0))
    assert alarm.what == "the KL to the reference was 6.5 at step 7, above 6 nats a sequence"
    assert alarm.onset == 7


def test_a_trend_is_raised_at_once_and_blames_the_latest_window() -> None:
    rule, limits = BY_NAME["reward_hacking"], Limits(3, 0.5)
    standing, raised = Standing(), []
    for step in range(1, 13):
        reward = {"reward": step / 10, "completions/distinct_bigrams": 0.4 if step < 8 else 0.05}
        standing, one = advance(rule, limits, standing, step, reward)
        raised += [one] if one else []
        assert len(standing.rows) <= 6
        if step == 6:
            assert first_to_blame(rule, limits, standing) == 4
    (alarm,) = raised
    assert (alarm.step, alarm.onset) == (9, 7)  # two of three steps are bad: 1 - (0.4 + 0.05 + 0.05) / 1.2
    assert alarm.what.endswith(": the share lost is 0.58, above 0.5 (means of 3 steps)")


def test_what_is_remembered_stays_small_and_unknown_steps_are_passed_over() -> None:
    for rule in RULES:
        limits, standing = Limits(4, 0.5), Standing()
        for step in range(200):
            row = dict.fromkeys((name for name in rule.metrics if not name.endswith("/")), 0.3)
            standing, _ = advance(rule, limits, standing, step, row if step % 2 else {"loss": 1.0})
        assert len(standing.rows) <= 10
        assert len(standing.readings) <= 4
        assert standing.heard in (-1, 199)
