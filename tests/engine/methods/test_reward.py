"""Reward modelling: its report by hand, the scale of its scores, and the rewards that made the verdicts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from engine.data.examples import PreferenceExample
from engine.methods.method import ExampleOrder, clustered_mean_and_error
from engine.methods.reward import SCALE_PAIRS, RewardModelling
from engine.methods.reward_report import ScoredPair, calibration, report_on
from engine.model.adapters import REWARD, build_roles
from engine.model.heads import ScalarHead

CPU = torch.device("cpu")


def scored(gap: float, group: str, *, lengths: tuple[int, int] = (1, 1), **tags: Any) -> ScoredPair:
    return ScoredPair(gap, 0.0, *lengths, group, tags)


def log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


class TestReport:
    def test_errors_are_over_prompts(self) -> None:
        # Two prompts: one right three times of three, one wrong once. 0.75; residuals of the sums from 0.75 a pair are
        # 0.75 and -0.75, so the error is sqrt(2 * 0.75^2 * 2 / 1) / 4.
        mean, error = clustered_mean_and_error([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
        assert (mean, error) == pytest.approx((0.75, 0.75 / 2))
        assert math.isnan(clustered_mean_and_error([1.0, 0.0], ["a", "a"])[1])

    def test_calibration_by_hand(self) -> None:
        # Confidences 0.62 (right), 0.62 (wrong), 0.97 (right), 0.97 (right): bins [0.6, 0.65) and [0.95, 1].
        gaps = [log_odds(0.62), -log_odds(0.62), log_odds(0.97), log_odds(0.97)]
        error, table = calibration([scored(gap, str(i)) for i, gap in enumerate(gaps)])
        assert [(row["pairs"], row["accuracy"]) for row in table] == [(2, 0.5), (2, 1.0)]
        assert [row["from"] for row in table] == pytest.approx([0.6, 0.95])
        assert [row["confidence"] for row in table] == pytest.approx([0.62, 0.97])
        assert error == pytest.approx(0.5 * 0.12 + 0.5 * 0.03)

    def test_certainty_and_ties_have_their_bins(self) -> None:
        error, table = calibration([scored(1e9, "a"), scored(0.0, "b")])
        assert [(row["from"], row["confidence"], row["accuracy"]) for row in table] == [
            (0.5, 0.5, 0.5),
            (0.95, 1.0, 1.0),
        ]
        assert error == 0.0

    def test_slices_and_baseline(self) -> None:
        pairs = [
            scored(1.0, "a", lengths=(5, 2), kind="x", row=1),
            scored(-1.0, "b", lengths=(5, 2), kind="y", row=2),
            scored(0.0, "c", lengths=(2, 5), kind="y", row=3),
        ]
        pairs += [scored(1.0, f"d{i}", lengths=(3, 3), kind="x", row=10 + i) for i in range(24)]
        report = report_on(pairs)
        by_length = {
            value: (found["accuracy"], found["pairs"]) for value, found in report["slices"]["longer answer"].items()
        }
        assert by_length == {"chosen": (0.5, 2), "rejected": (0.5, 1), "neither": (1.0, 24)}
        kinds = {value: (found["accuracy"], found["pairs"]) for value, found in report["slices"]["kind"].items()}
        assert kinds == {"x": (1.0, 25), "y": (0.25, 2)}
        assert set(report["slices"]) == {"longer answer", "kind"}  # "row" has a value for each row
        assert report["baselines"]["always_longer"]["accuracy"] == pytest.approx((2 + 0 + 24 * 0.5) / 27)
        assert "standard_error" not in report["slices"]["longer answer"]["rejected"]


def pair(name: str, chosen: int, rejected: int, weight: float = 1.0) -> PreferenceExample:
    return PreferenceExample(name, (10, 20), (chosen, 2), (rejected, 2), weight, None, name)


def modelling(
    model: Any, train: list[PreferenceExample], held_out: list[PreferenceExample], *, steps: int = 1, kind: str = "lora"
) -> tuple[RewardModelling, torch.optim.Optimizer]:
    roles = build_roles(model, kind=kind, trained=REWARD, start_adapter=None, rank=4)
    head = ScalarHead(roles.hidden_size, seed=1)
    order = ExampleOrder(len(train), batch_size=len(train), epochs=1, steps=steps, seed=1)
    method = RewardModelling(
        roles, head, train, held_out, order, center_coef=0.0, tokens_per_micro_batch=60, device=CPU
    )
    return method, torch.optim.AdamW([*roles.trainable.values(), *head.parameters()], lr=3e-3, weight_decay=0.0)


def train(method: RewardModelling, optimizer: torch.optim.Optimizer) -> None:
    for step in range(method.total_steps):
        (update,) = method.updates(step)
        for run in update.micro_batches:
            (run().losses["pairs"] / update.counts["pairs"]).backward()
        optimizer.step()
        optimizer.zero_grad()


def rewards_of(method: RewardModelling, answers: list[int]) -> torch.Tensor:
    pairs = [pair(str(a), a, a) for a in answers]
    return torch.cat([method._pair_rewards([one])[0] for one in pairs]).detach()


def test_the_scale_is_that_of_the_weights_it_is_saved_with(tiny_model: Any) -> None:
    held_out = [pair(f"h{i}", 30 + i, 60 + i) for i in range(6)]
    method, optimizer = modelling(tiny_model, [pair("t", 40, 50)], held_out)

    def expected() -> tuple[float, float]:
        scores = rewards_of(method, [*range(30, 36), *range(60, 66)])
        return scores.mean().item(), scores.std().item()

    method.evaluate(lambda: None)
    scale = method.score_scale()
    assert (scale.mean, scale.std) == pytest.approx(expected(), rel=1e-5)
    train(method, optimizer)
    moved = method.score_scale()
    assert moved.mean != scale.mean
    assert (moved.mean, moved.std) == pytest.approx(expected(), rel=1e-5)


def test_without_held_out_pairs_the_scale_is_of_training_pairs_from_everywhere(tiny_model: Any) -> None:
    pairs = [pair(str(i), 10 + i % 200, 5) for i in range(2 * SCALE_PAIRS + 100)]
    method, _ = modelling(tiny_model, pairs, [])
    method._score = lambda taken, check, shared: taken_pairs.extend(taken) or torch.ones(len(taken), 2)  # type: ignore[method-assign,func-returns-value]
    taken_pairs: list[PreferenceExample] = []
    scale = method.score_scale()
    assert (scale.of, scale.answers) == ("training answers", 2 * SCALE_PAIRS)
    assert taken_pairs == pairs[: 2 * SCALE_PAIRS : 2]


@pytest.mark.slow
def test_verdicts_of_bradley_terry_give_back_its_rewards_up_to_a_constant(tiny_model: Any) -> None:
    true = {30: -1.0, 40: -0.4, 50: 0.0, 60: 0.5, 70: 0.9}
    # Both verdicts on every pair, weighted by how often Bradley-Terry gives them: what infinitely many samples are.
    pairs = [pair(f"{a}-{b}", a, b, weight=1 / (1 + math.exp(true[b] - true[a]))) for a in true for b in true if a != b]
    method, optimizer = modelling(tiny_model, pairs, [], steps=150, kind="full")
    train(method, optimizer)
    learnt = rewards_of(method, list(true)).double()
    wanted = torch.tensor(list(true.values()), dtype=torch.float64)
    assert (learnt - learnt.mean() - (wanted - wanted.mean())).abs().max() < 0.02
