"""The sentence on a run's health: what it says of alarms and numbers, and where it keeps silent."""

from __future__ import annotations

import math
import random
from array import array

import pytest

from engine.run.alarm_rules import BY_NAME
from engine.run.config_layers import resolve
from workbench.curves import CurveLog, Points
from workbench.run_health import _ALARMS, Health, health_of, trend_of
from workbench.run_list import RunSummary
from workbench.run_watch import KL


def summary(method: str = "dpo", *, alarm: str = "", total_steps: int = 200) -> RunSummary:
    return RunSummary("1124-x", method, "x", "", "running", "", 100, total_steps, None, None, "", {}, None, "", alarm)


def log_of(**metrics: list[float]) -> CurveLog:
    log = CurveLog()
    for name, values in metrics.items():
        log.metrics[name] = points(values)
    log.last_step = max((len(values) for values in metrics.values()), default=0)
    return log


def points(values: list[float]) -> Points:
    return Points(array("q", range(1, len(values) + 1)), array("d", values))


RISING_KL = {KL: [step / 10 for step in range(82)]}


class TestAlarms:
    def test_the_kl_with_its_target_and_where_it_goes(self) -> None:
        config = resolve("dpo", [("", {"alarm_kl": {"threshold": 6.0}})]).config
        found = health_of(summary(alarm="KL above its target since step 140 (kl). Clone"), log_of(**RISING_KL), config)
        assert found.words == (
            "KL 8.1 nats is past its target 6 since step 140 and rising: lower the learning rate or raise dpo.beta"
        )
        assert found.tone == "bad"
        assert KL in found.metrics

    def test_the_gravest_of_several_and_how_many_more(self) -> None:
        alarm = "KL above its target since step 5 (kl). A. KL far beyond since step 9 (kl_runaway). B."
        config = resolve("ppo", [("", {"ppo": {"max_new_tokens": 20}})]).config
        found = health_of(summary("ppo", alarm=alarm), log_of(**RISING_KL), config)
        assert found.words.startswith("KL 8.1 nats is far past its target, beyond 12, since step 9 and rising: go")
        assert found.words.endswith("raise the KL coefficient (+1 more)")

    @pytest.mark.parametrize("name", list(BY_NAME))
    def test_every_alarm_has_a_sentence_of_figures(self, name: str) -> None:
        method = BY_NAME[name].methods[0]
        config = resolve(method, [("", {"alarm_kl": {"threshold": 2.0}} if name.startswith("kl") else {})]).config
        values = {metric: [0.5] * 8 for metric in _ALARMS[name].metrics} | {"eval_accuracy": [0.25] * 8}
        found = health_of(summary(method, alarm=f"T since step 7 ({name}). R."), log_of(**values), config)
        assert found.tone == "bad"
        assert "since step 7" in found.words
        assert ": " in found.words
        assert not set("{}?") & set(found.words), found.words
        assert found.metrics == set(_ALARMS[name].metrics)

    def test_an_alarm_that_is_not_known_is_told_as_it_is(self) -> None:
        found = health_of(summary(alarm="Too hot since step 3 (heat). Cool it."), log_of(), None)
        assert found == Health("Too hot since step 3 (heat). Cool it.", "bad")

    def test_without_config_and_curves_it_still_says_what_and_since_when(self) -> None:
        found = health_of(summary("grpo", alarm="X since step 3 (cut_off)."), log_of(), None)
        assert "are cut off, past its limit, since step 3: raise grpo.max_new_tokens" in found.words


class TestNumbers:
    def test_the_newest_value_is_no_number(self) -> None:
        found = health_of(summary(), log_of(grad_norm=[1.0, math.nan], loss=[1.0, math.inf]), None)
        assert found.words.startswith("loss is inf at step 2: ")
        assert found.words.endswith("(+1 more)")
        assert found.metrics == {"loss", "grad_norm"}
        assert health_of(summary(), log_of(loss=[math.nan, 1.0]), None).tone != "bad"

    @pytest.mark.parametrize(
        ("values", "error", "said"),
        [([1.0, 0.5, 0.7, 0.7], 0.05, True), ([1.0, 0.5, 0.7, 0.7], 0.2, False), ([1.0, 0.9, 0.8, 0.7], 0.01, False),
         ([0.5, 0.7], 0.01, False), ([0.5, 0.7, 0.51], 0.05, False)],
    )  # fmt: skip
    def test_a_held_out_loss_above_its_best_beyond_its_errors(
        self, values: list[float], error: float, said: bool
    ) -> None:
        log = log_of(eval_loss=values, eval_loss_standard_error=[error] * len(values))
        found = health_of(summary(), log, None)
        assert (found.tone == "bad") == said
        assert not said or "is above its best, 0.5 at step 2: stop here and use the best checkpoint" in found.words

    @pytest.mark.parametrize(
        ("accuracy", "error", "total", "said"),
        [(0.52, 0.02, 6, True), (0.52, 0.005, 6, False), (0.52, 0.02, 20, False)],
    )
    def test_an_accuracy_beside_chance_when_half_is_over(
        self, accuracy: float, error: float, total: int, said: bool
    ) -> None:
        log = log_of(eval_accuracy=[0.5, 0.5, accuracy], eval_accuracy_standard_error=[error] * 3)
        found = health_of(summary("reward", total_steps=total), log, None)
        assert ("no different from chance" in found.words) == said

    def test_where_all_is_well_it_says_by_which_figures(self) -> None:
        config = resolve("dpo", [("", {"alarm_kl": {"threshold": 6.0}})]).config
        found = health_of(summary(), log_of(loss=[1 / (1 + step) for step in range(60)], **{KL: [0.5, 2.0]}), config)
        assert found == Health("no alarm: loss 0.0167 and falling, KL 2 nats of its target 6", "good")
        assert health_of(summary(), log_of(), config) == Health()

    def test_nobody_watches_a_run_made_elsewhere(self) -> None:
        assert health_of(summary("", total_steps=0), log_of(**{KL: [1.0]}), None) == Health("KL 1 nats")


class TestTrends:
    def test_noise_has_none(self) -> None:
        said = [trend_of(points([random.Random(seed).gauss(0, 1) for _ in range(80)])) for seed in range(200)]
        assert sum(map(bool, said)) <= 6, "beyond three standard errors of twenty values: one in a hundred by chance"

    def test_what_goes_up_or_down_is_said(self) -> None:
        assert trend_of(points([float(step) for step in range(8)])) == "rising"
        assert trend_of(points([-float(step) for step in range(80)])) == "falling"
        assert trend_of(points([1.0] * 80)) == ""
        assert trend_of(points([1.0, 2.0])) == ""
        assert trend_of(points([3.0, 1.0, 2.0, 3.0, 4.0])) == "rising"
        assert trend_of(points([3.0, 1.0, 2.0, 3.0])) == ""
        assert trend_of(points([math.nan, 2.0, 1.0, 0.0])) == ""
        assert trend_of(points([math.nan] * 80)) == ""
        assert trend_of(None) == ""
