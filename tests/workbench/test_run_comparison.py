"""Several runs beside each other: differences, best and last values, and what must not be compared."""

from __future__ import annotations

import math
import random
import statistics
from array import array
from dataclasses import replace

import pytest

from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.folder import RunFolder
from engine.run.metrics_log import MetricsWriter
from tests.workbench.run_folders import make_run
from workbench.curves import Points
from workbench.errors import UsageError
from workbench.run_comparison import (
    ABSENT,
    MetricValue,
    RunFacts,
    compare,
    facts_of,
    goal_of,
    settings_as_typed,
    value_of,
    why_not_comparable,
)
from workbench.run_comparison_choice import finds, mean_curve, pattern_of, seed_groups, texts_of
from workbench.run_list import Run, find_run
from workbench.workspace import Workspace


def points(values: dict[int, float]) -> Points:
    return Points(array("q", values), array("d", values.values()))


def facts(name: str, **changes: object) -> RunFacts:
    values = {"eval_loss": MetricValue(0.5, 40, 0.4, 30), "kl/policy_reference_nats_per_sequence": MetricValue(
        3.0, 40, None, None
    )}  # fmt: skip
    return replace(RunFacts(name, "dpo", {"run.method": "dpo", "dpo.beta": "0.1"}, values, "e", "", "r"), **changes)  # type: ignore[arg-type]


class TestValues:
    def test_best_is_the_first_of_the_finite_ones(self) -> None:
        curve = points({1: math.nan, 2: 0.5, 3: 0.25, 4: math.inf, 5: 0.25, 6: 0.75, 7: math.nan})
        assert value_of(curve, "min") == MetricValue(0.75, 6, 0.25, 3)
        assert value_of(curve, "max") == MetricValue(0.75, 6, 0.75, 6)
        assert value_of(curve, "") == MetricValue(0.75, 6, None, None)
        assert value_of(points({1: math.nan}), "min") is None
        assert value_of(points({}), "min") is None

    @pytest.mark.parametrize(
        ("name", "goal"),
        [("eval_loss", "min"), ("eval_loss/forum", "min"), ("nll_loss", "min"), ("eval_rewards/accuracies", "max"),
         ("reward", "max"), ("objective/scores", "max"), ("rewards/length/mean", "max"), ("val/explained_variance",
         "max"), ("kl", ""), ("kl/policy_reference_nats_per_sequence", ""), ("objective/kl", ""),
         ("completions/mean_length", ""), ("loss/value_avg", ""), ("grad_norm", ""), ("entropy", ""),
         ("eval_loss_standard_error", ""), ("learning_rate", ""), ("policy/approxkl_avg", "")],
    )  # fmt: skip
    def test_which_direction_is_better(self, name: str, goal: str) -> None:
        assert goal_of(name) == goal


class TestComparing:
    def test_the_best_of_those_that_can_be_compared(self) -> None:
        better, same = MetricValue(0.3, 40, 0.2, 20), MetricValue(0.6, 40, 0.2, 25)
        rows = [facts("a"), facts("b", values={"eval_loss": better}), facts("c", values={"eval_loss": same})]
        row = compare(rows).metrics[0]
        assert (row.name, row.unit, row.goal, row.winners) == ("eval_loss", "nats", "min", (1, 2))
        rows[1] = replace(rows[1], held_out="other")
        found = compare(rows)
        assert found.metrics[0].winners == (2,)
        assert found.metrics[0].why_not == ("", "other held-out data", "")
        assert found.warnings == (
            "held-out values are not comparable with those of a, which has other held-out data: b.",
        )

    def test_a_kl_has_no_winner_and_a_single_run_none_at_all(self) -> None:
        found = compare([facts("a"), facts("b")])
        assert [row.winners for row in found.metrics] == [(0, 1), ()]
        assert found.metrics[1].name.startswith("kl/")
        assert all(not row.winners for row in compare([facts("a")]).metrics)
        with pytest.raises(ValueError, match="at least one run"):
            compare([])

    def test_settings_that_differ_in_the_order_of_run_toml(self) -> None:
        one = facts("a", settings={"run.method": "dpo", "optim.lr": "5e-05", "train.seed": "1", "dpo.beta": "0.1"})
        two = facts("b", settings={"run.method": "sft", "optim.lr": "5e-05", "train.seed": "2"})
        assert [(row.key, row.values) for row in compare([one, two]).settings] == [
            ("run.method", ("dpo", "sft")), ("train.seed", ("1", "2")), ("dpo.beta", ("0.1", ABSENT)),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("metric", "change", "reason"),
        [("eval_loss", {"held_out": "x"}, "other held-out data"), ("loss", {"method": "sft"}, "another objective"),
         ("loss", {"held_out": "x"}, ""), ("reward", {"method": "grpo", "judge": "x"}, "another judge of rewards"),
         ("kl/policy_reference_nats_per_token", {"reference": "x"}, "another reference or probe"),
         ("grad_norm", {"held_out": "x", "method": "sft", "reference": "x"}, "")],
    )  # fmt: skip
    def test_why_not(self, metric: str, change: dict[str, str], reason: str) -> None:
        assert why_not_comparable(metric, facts("b", **change), facts("a")) == reason

    def test_settings_of_two_run_folders(self, workspace: Workspace) -> None:
        for name, lr, eval_sha in (("1124-dpo-one-aaa", 1e-5, "e" * 64), ("1124-dpo-two-bbb", 2e-5, "f" * 64)):
            layer = {"run": {"id": name}, "optim": {"lr": lr}, "data": {"eval_sha256": eval_sha, "eval_rows": 8}}
            config = resolve("dpo", [("test", layer)]).config
            folder = RunFolder.create(workspace.runs / name, to_toml(config))
            writer = MetricsWriter(folder.metrics_path, 1)
            writer.write(1, {"loss": 0.7, "eval_loss": 0.6})
            writer.write(2, {"loss": 0.5, "eval_loss": math.nan})
            writer.close()
            assert "dpo.beta" in settings_as_typed(config)
        found = compare([facts_of(find_run(workspace, name)) for name in ("1124-dpo-one-aaa", "1124-dpo-two-bbb")])
        assert [row.key for row in found.settings] == ["data.eval_sha256", "optim.lr"]
        rows = {row.name: row for row in found.metrics}
        assert rows["eval_loss"].values[0] == MetricValue(0.6, 1, 0.6, 1)
        assert rows["eval_loss"].why_not == ("", "other held-out data")
        assert rows["loss"].winners == (0, 1)
        assert found.as_json()["schema"] == 1

    def test_a_damaged_run_toml_is_said_and_its_values_are_shown(self, workspace: Workspace) -> None:
        folder = make_run(workspace, "1124-sft-torn-ccc")
        folder.config_path.write_text("[run\n")
        found = facts_of(Run(folder, workspace))
        assert found.settings == {}
        assert found.values["loss"].last == 0.25
        assert compare([found]).warnings == ("the settings are not known of 1124-sft-torn-ccc.",)


class TestChoosing:
    def test_a_pattern_is_looked_for_in_ids_names_and_settings(self) -> None:
        texts = texts_of("1124-dpo-support-aaa", "Support v2", {"optim.lr": "5e-05", "model.source": '"sample"'})
        for text in ("dpo-supp", "support V2", r"optim\.lr=5e", "sample", ""):
            assert finds(pattern_of(text), texts), text
        assert not finds(pattern_of("optim.lr=1"), texts)

    def test_what_is_no_pattern_is_said_with_its_place(self) -> None:
        with pytest.raises(UsageError, match=r"no regular expression: .* at character 4"):
            pattern_of("lr=(5")
        with pytest.raises(UsageError, match="Shorten it"):
            pattern_of("x" * 500)

    def test_runs_that_differ_by_their_seed_alone(self) -> None:
        rows = [facts(str(seed), settings={"train.seed": str(seed), "dpo.beta": beta}) for seed, beta in
                ((1, "0.1"), (1, "0.2"), (2, "0.1"), (3, "0.1"))]  # fmt: skip
        rows += [facts("?", settings={}), facts("??", settings={})]
        assert seed_groups(rows) == ((0, 2, 3), (1,), (4,), (5,))

    def test_mean_and_standard_error_by_hand(self) -> None:
        found = mean_curve([points({1: 1.0, 2: 2.0, 3: 5.0}), points({1: 3.0, 2: math.nan, 4: 1.0}),
                            points({1: 5.0, 2: 0.0})])  # fmt: skip
        assert list(found.mean.steps) == [1, 2]
        assert found.mean.values[0] == 3.0
        assert found.error.values[0] == pytest.approx(2.0 / math.sqrt(3))
        assert math.isnan(found.mean.values[1])
        alone = mean_curve([points({1: 1.0})])
        assert (list(alone.mean.values), len(alone.error)) == ([1.0], 0)
        assert len(mean_curve([]).mean) == 0

    def test_mean_and_error_against_statistics(self) -> None:
        rng = random.Random(5)
        runs = [[rng.gauss(0, 1) for _ in range(9)] for _ in range(4)]
        found = mean_curve([points(dict(enumerate(run))) for run in runs])
        for step, values in enumerate(zip(*runs, strict=True)):
            assert found.mean.values[step] == pytest.approx(statistics.fmean(values))
            assert found.error.values[step] == pytest.approx(statistics.stdev(values) / 2)
