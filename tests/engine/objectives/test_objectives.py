"""The objectives against values worked by hand, closed forms and definitions."""

from __future__ import annotations

import math

import pytest
import torch

from engine.objectives.advantages import explained_variance, generalized_advantages, shaped_rewards, whitened
from engine.objectives.kl import k1, k2, k3
from engine.objectives.policy_gradient import clipped_policy_loss, clipped_value_loss
from engine.objectives.reward import bradley_terry_loss


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class TestRewardLoss:
    def test_equal_rewards_give_ln_2(self) -> None:
        assert bradley_terry_loss(doubles(3.0), doubles(3.0)).item() == pytest.approx(math.log(2), abs=1e-15)

    def test_by_hand(self) -> None:
        # gap 2, margin 0.5: -log sigmoid(1.5) = log(1 + e^-1.5) = 0.2014132779827524
        loss = bradley_terry_loss(doubles(1.5), doubles(-0.5), margin_B=doubles(0.5))
        assert loss.item() == pytest.approx(0.2014132779827524, abs=1e-12)

    def test_a_constant_shift_changes_nothing_without_centring(self) -> None:
        chosen, rejected = doubles(0.3, -1.0), doubles(0.1, 2.0)
        shifted = bradley_terry_loss(chosen + 7.0, rejected + 7.0)
        assert torch.allclose(shifted, bradley_terry_loss(chosen, rejected), atol=1e-12)

    def test_centring_adds_the_squared_sum(self) -> None:
        plain = bradley_terry_loss(doubles(2.0), doubles(1.0))
        centred = bradley_terry_loss(doubles(2.0), doubles(1.0), center_coef=0.01)
        assert (centred - plain).item() == pytest.approx(0.01 * 9.0, abs=1e-12)


class TestKlEstimators:
    def test_means_over_the_policy_equal_the_exact_divergence(self) -> None:
        policy, reference = doubles(0.5, 0.3, 0.2), doubles(0.2, 0.2, 0.6)
        exact = (policy * (policy / reference).log()).sum()
        assert ((policy * k1(policy.log(), reference.log())).sum() - exact).abs() < 1e-12
        assert ((policy * k3(policy.log(), reference.log())).sum() - exact).abs() < 1e-12

    def test_k2_and_k3_are_never_negative_and_k1_may_be(self) -> None:
        policy, reference = doubles(-3.0, -1.0), doubles(-1.0, -3.0)
        assert k1(policy, reference)[0] < 0
        assert (k2(policy, reference) > 0).all()
        assert (k3(policy, reference) > 0).all()


class TestAdvantages:
    rewards = doubles(0.1, -0.2, 1.0, 0.5, 2.0)
    values = doubles(0.3, 0.2, -0.1, 0.4, 0.6)
    lengths = (3, 2)

    @pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
    def test_equals_the_quadratic_definition(self, gamma: float, lam: float) -> None:
        advantages, returns = generalized_advantages(self.rewards, self.values, self.lengths, gamma=gamma, lam=lam)
        expected = []
        start = 0
        for length in self.lengths:
            r, v = self.rewards[start : start + length], self.values[start : start + length]
            following = torch.cat([v[1:], doubles(0.0)])
            delta = r + gamma * following - v
            for t in range(length):
                expected.append(sum((gamma * lam) ** (k - t) * float(delta[k]) for k in range(t, length)))
            start += length
        assert torch.allclose(advantages, doubles(*expected), atol=1e-12)
        assert torch.allclose(returns, advantages + self.values, atol=1e-12)

    def test_lambda_one_is_the_monte_carlo_return_minus_the_value(self) -> None:
        advantages, returns = generalized_advantages(self.rewards, self.values, self.lengths, gamma=1.0, lam=1.0)
        assert torch.allclose(returns, doubles(0.9, 0.8, 1.0, 2.5, 2.0), atol=1e-12)
        assert torch.allclose(advantages, returns - self.values, atol=1e-12)

    def test_completions_do_not_see_each_other(self) -> None:
        alone, _ = generalized_advantages(self.rewards[3:], self.values[3:], (2,), gamma=1.0, lam=0.95)
        both, _ = generalized_advantages(self.rewards, self.values, self.lengths, gamma=1.0, lam=0.95)
        assert torch.equal(both[3:], alone)

    def test_the_score_lands_on_each_last_token(self) -> None:
        rewards = shaped_rewards(doubles(1.0, 2.0, 3.0), doubles(10.0, 20.0), torch.tensor([1, 2]), kl_coef=0.5)
        assert rewards.tolist() == [-0.5, 9.0, 18.5]

    def test_whitening(self) -> None:
        out = whitened(doubles(1.0, 2.0, 6.0))
        assert out.mean().item() == pytest.approx(0.0, abs=1e-12)
        assert out.var(unbiased=True).item() == pytest.approx(1.0, abs=1e-6)
        assert whitened(doubles(4.0)).tolist() == [0.0]

    def test_explained_variance(self) -> None:
        returns = doubles(1.0, 2.0, 4.0)
        assert explained_variance(returns, returns).item() == pytest.approx(1.0)
        assert explained_variance(doubles(5.0, 5.0, 5.0), returns).item() == pytest.approx(0.0)
        assert explained_variance(-returns, returns).item() < 0


class TestPpoLosses:
    def test_policy_by_hand(self) -> None:
        # ratios e^0.5 = 1.6487 and e^-0.5 = 0.6065, clip 0.2
        loss, ratio = clipped_policy_loss(doubles(0.5, -0.5), doubles(0.0, 0.0), doubles(1.0, -1.0), clip=0.2)
        assert ratio.tolist() == pytest.approx([math.exp(0.5), math.exp(-0.5)])
        assert loss.tolist() == pytest.approx([-1.2, 0.8])

    def test_the_pessimistic_side_is_not_clipped(self) -> None:
        loss, _ = clipped_policy_loss(doubles(-0.5, 0.5), doubles(0.0, 0.0), doubles(1.0, -1.0), clip=0.2)
        assert loss.tolist() == pytest.approx([-math.exp(-0.5), math.exp(0.5)])

    def test_at_ratio_one_the_gradient_is_that_of_reinforce(self) -> None:
        log_probs = doubles(-1.0, -2.0).requires_grad_()
        advantages = doubles(0.7, -0.4)
        loss, _ = clipped_policy_loss(log_probs, log_probs.detach(), advantages, clip=0.2)
        loss.sum().backward()
        assert log_probs.grad is not None
        assert torch.allclose(log_probs.grad, -advantages)

    def test_value_by_hand(self) -> None:
        # V=1, old 0, R=2, clip .2: free (1-2)^2 = 1, clipped (.2-2)^2 = 3.24
        loss, clipped = clipped_value_loss(doubles(1.0), doubles(0.0), doubles(2.0), clip=0.2)
        assert loss.item() == pytest.approx(1.62)
        assert clipped.item() == 1.0
        loss, clipped = clipped_value_loss(doubles(1.0), doubles(0.0), doubles(2.0), clip=0.0)
        assert loss.item() == pytest.approx(0.5)
        assert clipped.item() == 0.0
