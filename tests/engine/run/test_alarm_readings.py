"""What alarms read off metric rows, against figures worked by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from engine.run.alarm_readings import (
    Measured,
    Row,
    accuracy_gap,
    both_ends,
    displacement,
    explained_variance,
    first_of,
    share_lost,
)

ROLLOUT = {
    "objective/raw_scores": 0.0, "objective/response_length": 20.0, "completions/distinct_bigrams": 0.4,
    "completions/repeated_trigrams": 0.0, "objective/entropy": 16.0,
}  # fmt: skip


def rows(*metrics: Mapping[str, float]) -> list[Row]:
    return list(enumerate(metrics, start=1))


def ends(first: Mapping[str, float], last: Mapping[str, float], *, jitter: float = 0.01) -> list[Row]:
    """Two steps at either end, alike but for the reward, which is `jitter` below and above the given figure."""
    out = []
    for end in (first, last):
        for sign in (-1, 1):
            reward = {name: end[name] + sign * jitter for name in ("objective/raw_scores", "reward") if name in end}
            out.append({**end, **reward})
    return rows(*out)


def measured(found: Measured | None) -> Measured:
    assert found is not None
    return found


def test_the_first_metric_that_a_row_has_counts() -> None:
    read = first_of("objective/kl", "kl/probe")
    assert measured(read(rows({"objective/kl": 2.0, "kl/probe": 9.0}), 1)).value == 2.0
    assert measured(read(rows({"kl/probe": 9.0}), 1)).value == 9.0
    assert read(rows({"kl/probe": 9.0}, {"loss": 1.0}), 1) is None


def test_the_value_is_read_in_steps_of_the_policy_alone() -> None:
    assert explained_variance(rows({"val/explained_variance": -3.0}), 1) is None
    found = explained_variance(rows({"val/explained_variance": -3.0, "loss/policy_avg": 0.1}), 1)
    assert measured(found).value == -3.0


@pytest.mark.parametrize(("margin", "certain"), [(0.5, True), (-0.5, False), (0.0, False)])
def test_displacement_counts_where_the_margin_grows(margin: float, certain: bool) -> None:
    found = measured(displacement(rows({"displacement/chosen": -0.3, "rewards/margins": margin}), 1))
    assert (found.value, found.certain) == (0.3, certain)


class TestShareLost:
    """Half is lost where variety, length, entropy or another score say so, and it counts where the reward rises."""

    @pytest.mark.parametrize(
        ("changed", "share", "words"),
        [
            ({"objective/response_length": 40.0, "objective/entropy": 32.0}, 0.5, "the length in tokens went from 20 "),
            ({"completions/distinct_bigrams": 0.1}, 0.75, "distinct bigrams went from 0.4 to 0.1"),
            ({"completions/repeated_trigrams": 0.6}, 0.6, "repeated trigrams went from 0 to 0.6"),
            ({"objective/entropy": 2.0}, 0.5, "entropy of a token in nats went from 0.8 to 0.1"),
        ],
    )
    def test_each_way_to_get_worse(self, changed: dict[str, float], share: float, words: str) -> None:
        found = measured(share_lost(ends(ROLLOUT, {**ROLLOUT, **changed, "objective/raw_scores": 1.0}), 2))
        assert found.value == pytest.approx(share)
        assert found.certain
        assert words in found.words
        assert "the reward has risen from 0 to 1" in found.words
        assert found.since == 3

    def test_a_second_score_that_falls_by_half_of_its_deviation(self) -> None:
        first = {"reward": 0.0, "rewards/lexicon/mean": 1.0, "rewards/lexicon/std": 0.4}
        found = measured(share_lost(ends(first, {**first, "reward": 1.0, "rewards/lexicon/mean": 0.8}), 2))
        assert found.value == pytest.approx(0.5)
        assert "the score lexicon went from 1 to 0.8" in found.words

    def test_what_gets_better_loses_nothing(self) -> None:
        better = {
            "objective/raw_scores": 1.0, "objective/response_length": 15.0, "completions/distinct_bigrams": 0.5,
            "completions/repeated_trigrams": 0.0, "objective/entropy": 20.0,
        }  # fmt: skip
        assert measured(share_lost(ends(ROLLOUT, better), 2)).value <= 0.0

    @pytest.mark.parametrize(("reward", "jitter", "certain"), [(1.0, 0.1, True), (1.0, 1.0, False), (-1.0, 0.1, False)])
    def test_a_reward_that_does_not_rise_beyond_its_noise_is_no_proof(
        self, reward: float, jitter: float, certain: bool
    ) -> None:
        worse = {**ROLLOUT, "completions/distinct_bigrams": 0.1, "objective/raw_scores": reward}
        assert measured(share_lost(ends(ROLLOUT, worse, jitter=jitter), 2)).certain is certain

    def test_nothing_is_said_before_both_ends_are_there(self) -> None:
        assert share_lost(ends(ROLLOUT, ROLLOUT)[:3], 2) is None
        assert share_lost(rows(*[{"completions/distinct_bigrams": 0.1}] * 4), 2) is None  # no reward to compare

    def test_both_ends_are_all_it_needs(self) -> None:
        values = [0.0, 0.1, 0.5, 0.2, 0.9, 1.0]
        steps = rows(*[{**ROLLOUT, "objective/raw_scores": v, "objective/entropy": 16 - 10 * v} for v in values])
        kept: Sequence[Row] = ()
        for row in steps:
            kept = both_ends([*kept, row], 2)
        assert [step for step, _ in kept] == [1, 2, 5, 6]
        assert share_lost(kept, 2) == share_lost(steps, 2)


def test_the_accuracy_gap_is_of_the_latest_steps_and_beyond_two_standard_errors() -> None:
    trained = [{"accuracy": 0.0}] * 5 + [{"accuracy": a} for a in (0.9, 1.0) * 5]
    evaluated = {"eval_accuracy": 0.7, "eval_accuracy_standard_error": 0.1}
    found = measured(accuracy_gap(rows(*trained[:-1], {**trained[-1], **evaluated}), 1))
    assert found.value == pytest.approx(0.25)
    assert found.certain
    assert "accuracy 0.950 on training pairs, 0.700 on held-out pairs" in found.words
    noisy = {**evaluated, "eval_accuracy_standard_error": 0.13}
    assert not measured(accuracy_gap(rows(*trained[:-1], {**trained[-1], **noisy}), 1)).certain
    assert accuracy_gap(rows(*trained), 1) is None  # no evaluation at this step
    assert accuracy_gap(rows({"accuracy": 1.0, **evaluated}), 1) is None  # a step or two say little


def test_readings_are_finite() -> None:
    flat = {**ROLLOUT, "objective/response_length": 0.0, "completions/distinct_bigrams": 0.0, "objective/entropy": 0.0}
    full = {**ROLLOUT, "completions/repeated_trigrams": 1.0}
    for a in (ROLLOUT, flat, full):
        for b in (ROLLOUT, flat, full):
            assert math.isfinite(measured(share_lost(ends(a, b), 2)).value)
