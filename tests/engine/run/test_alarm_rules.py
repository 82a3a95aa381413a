"""The table of alarms: each has a section, words, metrics that exist, and a limit that follows from the settings."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.run.alarm_readings import Measured
from engine.run.alarm_rules import BY_NAME, RULES, Limits, kl_target, limits_of, settings_of
from engine.run.config import RunConfig, sections_of
from engine.run.config_alarms import ACTIONS, ALARM_SECTIONS
from engine.run.config_layers import parse_set, resolve
from engine.run.method_names import METHODS
from engine.run.metric_names import metric_info


def config(method: str, *settings: str) -> RunConfig:
    return resolve(method, [("--set", parse_set(text, method)) for text in settings]).config


def test_rules_and_sections_are_the_same_alarms() -> None:
    assert [rule.section for rule in RULES] == list(ALARM_SECTIONS)
    for section in ALARM_SECTIONS.values():
        assert [key.name for key in fields(section)] == ["on_alarm", "window", "threshold"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_reads_metrics_that_its_methods_write(rule: Any) -> None:
    """Each of its methods has one of them, and none of the names is made up."""
    infos = [metric_info(name) for name in rule.metrics if not name.endswith("/")]
    assert all(infos)
    for method in rule.methods:
        assert any(info is not None and method in info.methods for info in infos), method
    for words in (rule.title, rule.value, rule.explanation, rule.remedy_for("ppo")):
        assert words.strip() == words != ""


def test_an_alarm_stands_in_run_toml_of_its_methods_alone() -> None:
    for method in METHODS:
        there = {name for name in sections_of(method) if name in ALARM_SECTIONS}
        assert there == {rule.section for rule in RULES if method in rule.methods}
    with pytest.raises(ConfigError, match=r"alarm_value\.window belongs to ppo, but this is a run of grpo"):
        resolve("grpo", [("--set", parse_set("alarm_value.window=2"))])


def test_reward_hacking_and_a_runaway_kl_pause_and_the_others_are_told() -> None:
    actions = {rule.name: settings_of(rule, RunConfig()).on_alarm for rule in RULES}
    assert {name for name, action in actions.items() if action == "pause"} == {"kl_runaway", "reward_hacking"}
    assert set(actions.values()) == {"pause", "note"}
    assert ACTIONS == ("off", "note", "checkpoint", "pause", "stop")


@pytest.mark.parametrize(
    ("method", "settings", "target"),
    [
        ("ppo", ("ppo.max_new_tokens=50",), 6.0),
        ("ppo", ("ppo.max_new_tokens=100",), 10.0),
        ("ppo", ("ppo.kl_control=adaptive", "ppo.kl_target=3"), 3.0),
        ("ppo", ("ppo.kl_control=adaptive", "alarm_kl.threshold=9"), 9.0),
        ("grpo", ("grpo.max_new_tokens=200",), 20.0),
        ("dpo", (), None),
        ("dpo", ("alarm_kl.threshold=8",), 8.0),
    ],
)
def test_the_target_of_the_kl(method: str, settings: tuple[str, ...], target: float | None) -> None:
    chosen = config(method, *settings)
    assert kl_target(chosen) == target
    near, far = (limits_of(BY_NAME[name], chosen) for name in ("kl", "kl_runaway"))
    assert near == (None if target is None else Limits(5, target))
    assert far == (None if target is None else Limits(2, 2 * target))


def test_what_is_off_or_means_nothing_has_no_limits() -> None:
    assert limits_of(BY_NAME["cut_off"], config("ppo", "alarm_cut_off.on_alarm=off")) is None
    assert limits_of(BY_NAME["value"], config("grpo")) is None
    alone = config("rloo", "rloo.baseline=batch", "rloo.generations=1")
    assert limits_of(BY_NAME["flat_groups"], alone) is None
    assert limits_of(BY_NAME["flat_groups"], config("rloo")) == Limits(5, 0.8)


def test_a_reading_is_beyond_on_its_own_side_only_and_where_it_is_certain() -> None:
    above, below = BY_NAME["cut_off"], BY_NAME["value"]
    limits = Limits(1, 0.5)
    assert above.beyond(Measured(0.6), limits)
    assert not above.beyond(Measured(0.5), limits)
    assert below.beyond(Measured(0.4), limits)
    assert not below.beyond(Measured(0.6), limits)
    assert not above.beyond(Measured(0.6, certain=False), limits)


def test_what_is_no_number_is_not_read() -> None:
    assert BY_NAME["cut_off"].takes({"completions/clipped_ratio": float("nan"), "loss": 1.0}) == {}
    scores = {"rewards/lexicon/mean": 1.0, "reward": 2.0, "rewards": 3.0}
    assert BY_NAME["reward_hacking"].takes(scores) == {"rewards/lexicon/mean": 1.0, "reward": 2.0}
