"""Group advantages, ratios, surrogates and sums over tokens, against values worked by hand, and their gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from engine.objectives.group_advantages import (
    batch_normalised_returns,
    group_relative,
    leave_one_out,
    without_spread,
)
from engine.objectives.grouped_policy import GroupedObjective, clipped_surrogate, ratios, truncated_reinforce
from engine.objectives.kl_loss import LOSS_ESTIMATORS, sums_so_far

SCORES = torch.tensor([[1.0, 2.0, 6.0], [0.0, -1.0, 1.0]], dtype=torch.float64)
DOCUMENT = torch.tensor([0, 0, 0, 1, 1])
TOKENS = torch.tensor([3.0, 2.0], dtype=torch.float64)


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class TestAdvantages:
    @pytest.mark.parametrize("scale", ["none", "group", "batch"])
    def test_each_group_s_sum_is_0(self, scale: str) -> None:
        assert torch.allclose(group_relative(SCORES, scale=scale).sum(1), doubles(0.0, 0.0), atol=1e-12)
        assert torch.allclose(leave_one_out(SCORES).sum(1), doubles(0.0, 0.0), atol=1e-12)

    def test_by_hand(self) -> None:
        assert group_relative(SCORES, scale="none")[0].tolist() == pytest.approx([-2.0, -1.0, 3.0])
        # Unbiased variance 14 / 2 = 7 of the first group and 1 of the second.
        by_group = group_relative(SCORES, scale="group")
        assert by_group[0, 2].item() == pytest.approx(3.0 / (math.sqrt(7.0) + 1e-4))
        assert by_group[1].tolist() == pytest.approx([0.0, -1.0 / 1.0001, 1.0 / 1.0001])
        by_batch = group_relative(SCORES, scale="batch")
        assert by_batch[0, 2].item() == pytest.approx(3.0 / (SCORES.std().item() + 1e-4))
        assert leave_one_out(SCORES)[0].tolist() == pytest.approx([1 - 4, 2 - 3.5, 6 - 1.5])

    def test_leave_one_out_is_the_group_s_mean_without_its_factor(self) -> None:
        assert torch.allclose(leave_one_out(SCORES) * 2 / 3, group_relative(SCORES, scale="none"), atol=1e-12)

    @pytest.mark.parametrize(("generations", "factor"), [(2, 1 / 2), (4, 3 / 4)])
    def test_the_expected_advantage_of_a_completion(self, generations: int, factor: float) -> None:
        """By enumeration of all groups of three arms: (G - 1)/G and 1 times the score less the policy's mean."""
        policy, score = doubles(0.5, 0.3, 0.2), doubles(1.0, -2.0, 3.0)
        groups = torch.tensor(list(itertools.product(range(3), repeat=generations)))
        chance_P1 = policy[groups].prod(1, keepdim=True)
        first_is = torch.nn.functional.one_hot(groups[:, 0], 3) * chance_P1
        expected = score - (policy * score).sum()
        for found, scaled in (
            (group_relative(score[groups], scale="none"), factor * expected),
            (leave_one_out(score[groups]), expected),
        ):
            assert torch.allclose((first_is * found[:, :1]).sum(0) / policy, scaled, atol=1e-12)

    def test_returns_of_the_batch_by_hand(self) -> None:
        kl, score, last = doubles(1.0, 2.0, 0.0, 4.0, 1.0), doubles(10.0, 20.0), torch.tensor([2, 4])
        found = batch_normalised_returns(kl, score, last, (3, 2), kl_coef=0.5)
        to_come = doubles(10 - 1.5, 10 - 1.0, 10.0, 20 - 2.5, 20 - 0.5)
        assert torch.allclose(found, (to_come - to_come.mean()) / to_come.std(), atol=1e-6)

    def test_groups_without_spread(self) -> None:
        scores = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.1], [100.0, 100.0, 100.0001]])
        assert without_spread(scores).tolist() == [True, False, True]
        assert group_relative(scores, scale="group")[0].tolist() == [0.0, 0.0, 0.0]


class TestRatios:
    now, old = doubles(-1.0, -2.0, -3.0, -0.5, -1.5), doubles(-1.1, -2.3, -2.9, -0.5, -1.0)

    def test_by_hand(self) -> None:
        token = ratios(self.now, self.old, DOCUMENT, TOKENS, level="token")
        assert token.tolist() == pytest.approx([math.exp(x) for x in (0.1, 0.3, -0.1, 0.0, -0.5)])
        mean = ratios(self.now, self.old, DOCUMENT, TOKENS, level="sequence_mean")
        assert mean.tolist() == pytest.approx([math.exp(0.1)] * 3 + [math.exp(-0.25)] * 2)
        whole = ratios(self.now, self.old, DOCUMENT, TOKENS, level="sequence_sum")
        assert whole.tolist() == pytest.approx([math.exp(0.3)] * 3 + [math.exp(-0.5)] * 2)

    def test_sums_so_far_stay_inside_their_completion(self) -> None:
        assert sums_so_far(doubles(1.0, 2.0, 3.0, 4.0, 5.0), DOCUMENT).tolist() == [1.0, 3.0, 6.0, 4.0, 9.0]

    @pytest.mark.parametrize("level", ["token", "sequence_mean", "sequence_sum"])
    def test_no_move_is_a_ratio_of_exactly_1(self, level: str) -> None:
        now = torch.randn(5)
        assert ratios(now, now.clone(), DOCUMENT, TOKENS.float(), level=level).tolist() == [1.0] * 5


class TestSurrogates:
    def test_the_ends_differ(self) -> None:
        ratio, up, down = doubles(0.5, 1.25, 2.0), doubles(1.0, 1.0, 1.0), doubles(-1.0, -1.0, -1.0)
        assert clipped_surrogate(ratio, up, clip_low=0.2, clip_high=0.4).tolist() == pytest.approx([-0.5, -1.25, -1.4])
        assert clipped_surrogate(ratio, down, clip_low=0.2, clip_high=0.4).tolist() == pytest.approx([0.8, 1.25, 2.0])

    def test_cispo_bounds_the_weight_and_loses_no_gradient(self) -> None:
        log_probs = doubles(-1.0, -2.0).requires_grad_()
        truncated_reinforce(log_probs, doubles(0.5, 9.0), doubles(1.0, 2.0), clip_high=4.0).sum().backward()
        assert log_probs.grad is not None
        assert log_probs.grad.tolist() == pytest.approx([-0.5, -2.0 * 5.0])


OBJECTIVES = {
    "tokens": GroupedObjective(clip_low=0.9, clip_high=0.9, kl_coef=0.3, kl_estimator="k3_prefix"),
    "sequences": GroupedObjective(added_up="sequences", kl_coef=0.3, kl_estimator="k3_token"),
    "constant": GroupedObjective(added_up="constant", longest=7, kl_coef=0.3, kl_estimator="k2"),
    "gspo": GroupedObjective(ratio_level="sequence_mean", added_up="sequences", kl_coef=0.3, kl_estimator="k3"),
    "rloo": GroupedObjective(ratio_level="sequence_sum", added_up="sequences"),
}


class TestObjective:
    old = doubles(-1.1, -2.3, -2.9, -0.5, -1.0)
    reference = doubles(-1.0, -2.0, -2.0, -1.0, -1.0)
    advantages = doubles(0.5, 0.5, 0.5, -1.0, -1.0)

    def losses(self, objective: GroupedObjective, now_N: torch.Tensor) -> torch.Tensor:
        return objective.token_losses(now_N, self.old, self.reference, self.advantages, DOCUMENT, TOKENS).loss_N

    @pytest.mark.parametrize(("name", "expected"), [("tokens", 5.0), ("sequences", 2.0), ("constant", 14.0)])
    def test_denominators(self, name: str, expected: float) -> None:
        assert OBJECTIVES[name].denominator((3, 2)) == expected

    def test_a_completion_counts_the_same_whatever_its_length_where_completions_are_averaged(self) -> None:
        losses = self.losses(GroupedObjective(added_up="sequences"), self.old)
        assert losses.tolist() == pytest.approx([-0.5 / 3] * 3 + [1.0 / 2] * 2)
        assert self.losses(GroupedObjective(), self.old).tolist() == pytest.approx([-0.5] * 3 + [1.0] * 2)

    @pytest.mark.parametrize("name", OBJECTIVES)
    def test_each_gradient_is_that_of_the_value(self, name: str) -> None:
        now = doubles(-1.0, -2.2, -3.0, -0.4, -1.1).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: self.losses(OBJECTIVES[name], x), now)

    @pytest.mark.parametrize("name", ["tokens", "gspo", "rloo"])
    def test_where_the_policy_has_not_moved_the_gradient_is_that_of_reinforce(self, name: str) -> None:
        objective = OBJECTIVES[name]
        plain = GroupedObjective(objective.ratio_level, added_up=objective.added_up)
        now = self.old.clone().requires_grad_()
        self.losses(plain, now).sum().backward()
        weight = -self.advantages / (1 if name == "tokens" else TOKENS[DOCUMENT])
        if name == "rloo":  # the completion is one action: each of its log-probs has the whole weight
            weight = -self.advantages
        assert now.grad is not None
        assert torch.allclose(now.grad, weight, atol=1e-12)


class TestKlInTheLoss:
    """One token of three, exact expectations: the gradient of each estimator with respect to the logits."""

    old, now, reference = doubles(0.6, 0.3, 0.1), doubles(0.4, 0.4, 0.2), doubles(0.2, 0.2, 0.6)

    def gradient(self, name: str, now: torch.Tensor) -> torch.Tensor:
        logits = now.log().requires_grad_()
        policy = torch.log_softmax(logits, 0)
        each = LOSS_ESTIMATORS[name](policy, self.reference.log(), self.old.log(), torch.arange(3))
        (self.old * each).sum().backward()
        assert logits.grad is not None
        return logits.grad

    def exact(self, now: torch.Tensor, *, forward: bool = False) -> torch.Tensor:
        logits = now.log().requires_grad_()
        policy = torch.log_softmax(logits, 0)
        reverse = (policy.exp() * (policy - self.reference.log())).sum()
        (-(self.reference * policy).sum() if forward else reverse).backward()
        assert logits.grad is not None
        return logits.grad

    @pytest.mark.parametrize("name", ["k3_token", "k3_prefix"])
    def test_weighed_it_is_right_also_where_the_policy_has_moved(self, name: str) -> None:
        for now in (self.old, self.now):
            assert torch.allclose(self.gradient(name, now), self.exact(now), atol=1e-12)

    def test_k2_is_right_only_where_it_has_not(self) -> None:
        assert torch.allclose(self.gradient("k2", self.old), self.exact(self.old), atol=1e-12)
        assert not torch.allclose(self.gradient("k2", self.now), self.exact(self.now), atol=1e-2)

    def test_k3_is_the_gradient_of_the_other_divergence(self) -> None:
        assert torch.allclose(self.gradient("k3", self.old), self.exact(self.old, forward=True), atol=1e-12)
        assert not torch.allclose(self.gradient("k3", self.old), self.exact(self.old), atol=1e-2)

    @pytest.mark.parametrize("name", LOSS_ESTIMATORS)
    def test_at_the_reference_it_is_exactly_0(self, name: str) -> None:
        same = torch.randn(5)
        assert LOSS_ESTIMATORS[name](same, same.clone(), same.clone(), DOCUMENT).tolist() == [0.0] * 5
