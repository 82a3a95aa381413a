"""The table of preference losses: the equations of the papers in fp64, known values, gradients, and what they learn."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from engine.objectives.kto import kto_baseline, kto_loss
from engine.objectives.preference import LOSSES, LossSettings, divergence_score, log_odds
from engine.run.config_preference import CPO_LOSSES, DIVERGENCES, DPO_LOSSES

CHOSEN = (0.0, 2.0, -3.0, -40.0, 30.0, 0.4)
REJECTED = (0.0, -3.0, 1.5, 25.0, -30.0, 0.7)
"""Scores in nats, small and large, right and wrong way round."""


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def s(x: float) -> float:
    return 1 / (1 + math.exp(-x))


EQUATIONS: dict[str, Callable[[float, float, float, float, float], float]] = {
    "sigmoid": lambda a, b, beta, e, g: (
        -(1 - e) * math.log(s(beta * (a - b) - g)) - e * math.log(s(-beta * (a - b) + g))
    ),
    "robust": lambda a, b, beta, e, g: (
        (-(1 - e) * math.log(s(beta * (a - b))) + e * math.log(s(-beta * (a - b)))) / (1 - 2 * e)
    ),
    "ipo": lambda a, b, beta, e, g: (a - b - 1 / (2 * beta)) ** 2,
    "hinge": lambda a, b, beta, e, g: max(0.0, 1 - beta * (a - b)),
    "exo_pair": lambda a, b, beta, e, g: (
        s(beta * (a - b)) * math.log(s(beta * (a - b)) / (1 - e))
        + s(-beta * (a - b)) * math.log(s(-beta * (a - b)) / e)
    ),
    "nca_pair": lambda a, b, beta, e, g: (
        -math.log(s(beta * a)) - 0.5 * math.log(s(-beta * a)) - 0.5 * math.log(s(-beta * b))
    ),
    "sppo_hard": lambda a, b, beta, e, g: (a - 0.5 / beta) ** 2 + (b + 0.5 / beta) ** 2,
    "apo_zero": lambda a, b, beta, e, g: 1 - s(beta * a) + s(beta * b),
    "apo_down": lambda a, b, beta, e, g: s(beta * a) + 1 - s(beta * (a - b)),
    "discopop": lambda a, b, beta, e, g: (
        -(1 - s(beta * (a - b) / 0.05)) * math.log(s(beta * (a - b)))
        + s(beta * (a - b) / 0.05) * math.exp(-beta * (a - b))
    ),
}
EQUATIONS["sigmoid_norm"] = EQUATIONS["sigmoid"]


@pytest.mark.parametrize("name", sorted(EQUATIONS))
def test_each_loss_is_its_equation(name: str) -> None:
    settings = LossSettings(0.3, 0.2, 0.5)
    found = LOSSES[name](doubles(*CHOSEN), doubles(*REJECTED), settings)
    expected = [EQUATIONS[name](a, b, 0.3, 0.2, 0.5) for a, b in zip(CHOSEN, REJECTED, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-10, rel=1e-10)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_each_gradient_is_that_of_the_value(name: str) -> None:
    settings = LossSettings(0.3, 0.2, 0.5)
    chosen, rejected = doubles(-0.4, -2.0, -0.05).requires_grad_(), doubles(-1.0, -0.3, -3.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: LOSSES[name](a, b, settings), (chosen, rejected))


def test_every_loss_that_can_be_chosen_is_in_the_table_and_tested() -> None:
    assert set(DPO_LOSSES) | set(CPO_LOSSES) | {"odds_ratio"} == set(LOSSES)
    assert set(EQUATIONS) == set(LOSSES) - {"odds_ratio"}


class TestKnownValues:
    def test_dpo_at_the_reference_is_ln_2_with_a_slope_of_half_beta(self) -> None:
        chosen = doubles(0.0).requires_grad_()
        loss = LOSSES["sigmoid"](chosen, doubles(0.0), LossSettings(0.3))
        loss.sum().backward()
        assert loss.item() == pytest.approx(math.log(2), abs=1e-15)
        assert chosen.grad is not None
        assert chosen.grad.item() == pytest.approx(-0.15, abs=1e-15)

    def test_dpo_by_hand(self) -> None:
        # beta (2 - (-3)) = 0.5: -log sigmoid(0.5) = 0.4740769841801067
        loss = LOSSES["sigmoid"](doubles(2.0), doubles(-3.0), LossSettings(0.1))
        assert loss.item() == pytest.approx(0.4740769841801067, abs=1e-12)

    def test_verdicts_that_are_wrong_half_of_the_time_teach_nothing_at_the_reference(self) -> None:
        chosen = doubles(0.0).requires_grad_()
        LOSSES["sigmoid"](chosen, doubles(0.0), LossSettings(0.3, 0.5)).sum().backward()
        assert chosen.grad is not None
        assert chosen.grad.item() == pytest.approx(0.0, abs=1e-16)

    @pytest.mark.parametrize("name", ["robust", "sigmoid_norm"])
    def test_without_smoothing_they_are_dpo(self, name: str) -> None:
        chosen, rejected, settings = doubles(*CHOSEN), doubles(*REJECTED), LossSettings(0.3)
        assert torch.equal(LOSSES[name](chosen, rejected, settings), LOSSES["sigmoid"](chosen, rejected, settings))

    def test_robust_over_swapped_verdicts_is_dpo_over_true_ones(self) -> None:
        # E over verdicts of which a share e is swapped: (1-e) l(a, b) + e l(b, a).
        chosen, rejected, settings = doubles(*CHOSEN), doubles(*REJECTED), LossSettings(0.3, 0.2)
        noisy = 0.8 * LOSSES["robust"](chosen, rejected, settings) + 0.2 * LOSSES["robust"](rejected, chosen, settings)
        assert torch.allclose(noisy, LOSSES["sigmoid"](chosen, rejected, LossSettings(0.3)), atol=1e-12)

    def test_ipo_and_hinge_are_zero_where_they_want_the_margin(self) -> None:
        assert LOSSES["ipo"](doubles(4.0), doubles(-1.0), LossSettings(0.1)).item() == pytest.approx(0.0, abs=1e-15)
        assert LOSSES["ipo"](doubles(0.0), doubles(0.0), LossSettings(0.1)).item() == pytest.approx(25.0)
        assert LOSSES["hinge"](doubles(8.0), doubles(-2.0), LossSettings(0.1)).item() == pytest.approx(0.0, abs=1e-15)
        assert LOSSES["hinge"](doubles(0.0), doubles(0.0), LossSettings(0.1)).item() == pytest.approx(1.0)

    def test_orpo_is_the_ratio_of_the_odds(self) -> None:
        chosen, rejected = (0.9, 0.3, 0.01), (0.2, 0.6, 0.999)
        expected = [
            -0.25 * math.log(s(math.log(p / (1 - p) / (q / (1 - q))))) for p, q in zip(chosen, rejected, strict=True)
        ]
        found = LOSSES["odds_ratio"](doubles(*chosen).log(), doubles(*rejected).log(), LossSettings(0.25))
        assert found.tolist() == pytest.approx(expected, rel=1e-10)

    def test_odds_of_a_certain_answer_are_finite(self) -> None:
        certain = torch.zeros(1, requires_grad=True)
        odds = log_odds(certain)
        odds.sum().backward()
        assert 10 < odds.item() < 20
        assert certain.grad is not None
        assert torch.isfinite(certain.grad).all()

    def test_simpo_wants_its_margin(self) -> None:
        # beta (-0.5 - (-1.0)) - gamma = 2 * 0.5 - 1 = 0: ln 2.
        loss = LOSSES["sigmoid"](doubles(-0.5), doubles(-1.0), LossSettings(2.0, gamma=1.0))
        assert loss.item() == pytest.approx(math.log(2), abs=1e-15)

    @pytest.mark.parametrize("name", ["discopop", "sigmoid", "exo_pair"])
    def test_far_out_the_losses_stay_finite(self, name: str) -> None:
        far = torch.tensor([2000.0, -2000.0], requires_grad=True)
        loss = LOSSES[name](far, -far, LossSettings(0.5, 0.1))
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert far.grad is not None
        assert torch.isfinite(far.grad).all()


class TestDivergences:
    def test_they_agree_to_first_order_at_the_reference(self) -> None:
        # Every f' here has f''(1) = 1 but for Jensen-Shannon, whose is 1/2.
        for divergence in DIVERGENCES:
            u = doubles(0.0).requires_grad_()
            score = divergence_score(u, divergence, 0.4)
            score.sum().backward()
            assert score.item() == pytest.approx(0.0, abs=1e-15)
            assert u.grad is not None
            assert u.grad.item() == pytest.approx(0.5 if divergence == "js" else 1.0)

    def test_by_their_derivatives(self) -> None:
        # f'(t) at t = e^u: 1 - 1/t; log(2t / (1 + t)); (1 - t^-a) / a
        t = math.exp(1.3)
        assert divergence_score(doubles(1.3), "forward_kl", 0.5).item() == pytest.approx(1 - 1 / t, abs=1e-12)
        assert divergence_score(doubles(1.3), "js", 0.5).item() == pytest.approx(math.log(2 * t / (1 + t)), abs=1e-12)
        assert divergence_score(doubles(1.3), "alpha", 0.4).item() == pytest.approx((1 - t**-0.4) / 0.4, abs=1e-12)

    def test_alpha_goes_from_the_reverse_to_the_forward_kl(self) -> None:
        u = doubles(-2.0, 0.3, 1.0)
        assert torch.allclose(divergence_score(u, "alpha", 1e-7), u, atol=1e-6)
        assert torch.allclose(divergence_score(u, "alpha", 1 - 1e-9), divergence_score(u, "forward_kl", 0.5), atol=1e-6)


class TestKto:
    def test_by_hand(self) -> None:
        # beta 0.5, z0 1: s(0.5 (3 - 1)) = s(1), s(0.5 (1 - 3)) = s(-1)
        loss = kto_loss(
            doubles(3.0, 3.0), torch.tensor([True, False]), doubles(1.0).squeeze(), beta=0.5,
            desirable_weight=2.0, undesirable_weight=3.0,
        )  # fmt: skip
        assert loss.tolist() == pytest.approx([2 * (1 - s(1.0)), 3 * (1 - s(-1.0))], abs=1e-12)

    def test_the_baseline_is_never_negative_and_carries_no_gradient(self) -> None:
        moved = doubles(1.0, -4.0).requires_grad_()
        assert kto_baseline(moved).item() == 0.0
        assert kto_baseline(-moved).item() == pytest.approx(1.5)
        assert not kto_baseline(-moved).requires_grad

    def test_gradient_is_exact(self) -> None:
        labels = torch.tensor([True, False])
        assert torch.autograd.gradcheck(
            lambda x: kto_loss(
                x, labels, doubles(0.3).squeeze(), beta=0.5, desirable_weight=1.5, undesirable_weight=1.0
            ),
            doubles(0.4, -2.0).requires_grad_(),
        )


ARMS = doubles(0.5, 0.25, 0.15, 0.1)
REWARD = doubles(0.0, 1.0, -0.5, 0.8)


def learnt(name: str, settings: LossSettings, chance_AA: torch.Tensor) -> torch.Tensor:
    """The log-ratios (A,) of a table policy that minimises a loss over pairs of arms, where arm i is preferred to arm j
    in a share `chance_AA[i, j]` of their comparisons; pairs are drawn evenly. Newton's method in effect: LBFGS.
    """
    theta_A = torch.zeros(len(ARMS), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([theta_A], max_iter=400, tolerance_grad=1e-12, tolerance_change=1e-16,
                                  line_search_fn="strong_wolfe")  # fmt: skip
    first, second = torch.triu_indices(len(ARMS), len(ARMS), offset=1)

    def mean_loss() -> torch.Tensor:
        optimizer.zero_grad()
        log_ratio_A = torch.log_softmax(ARMS.log() + theta_A, 0) - ARMS.log()
        better, worse = log_ratio_A[first], log_ratio_A[second]
        share = chance_AA[first, second]
        loss = (share * LOSSES[name](better, worse, settings)).mean()
        loss = loss + ((1 - share) * LOSSES[name](worse, better, settings)).mean()
        loss.backward()
        return loss

    optimizer.step(mean_loss)
    return (torch.log_softmax(ARMS.log() + theta_A, 0) - ARMS.log()).detach()


class TestLearning:
    beta = 0.5

    def sampled(self, flipped: float = 0.0, draws: int = 100_000) -> torch.Tensor:
        """Bradley-Terry verdicts on each pair of arms, as shares of `draws`, of which a share is turned round."""
        generator = torch.Generator().manual_seed(5)
        p_AA = torch.sigmoid(REWARD[:, None] - REWARD[None, :])
        p_AA = (1 - flipped) * p_AA + flipped * (1 - p_AA)
        wins_AA = torch.triu(torch.binomial(torch.full_like(p_AA, draws), p_AA, generator=generator), 1) / draws
        return wins_AA + torch.tril(1 - wins_AA.T, -1)

    def distance(self, log_ratio_A: torch.Tensor, beta: float) -> float:
        """Total variation to pi* = reference exp(reward / beta) / Z."""
        best_A = torch.softmax(ARMS.log() + REWARD / beta, 0)
        return float(0.5 * (ARMS * log_ratio_A.exp() - best_A).abs().sum())

    def test_dpo_on_bradley_terry_verdicts_reaches_the_best_policy(self) -> None:
        found = learnt("sigmoid", LossSettings(self.beta), self.sampled())
        assert self.distance(found, self.beta) < 0.02
        assert self.distance(torch.zeros(4, dtype=torch.float64), self.beta) > 0.3

    def test_robust_reaches_it_through_swapped_verdicts_and_dpo_does_not(self) -> None:
        noisy = self.sampled(flipped=0.1)
        assert self.distance(learnt("robust", LossSettings(self.beta, 0.1), noisy), self.beta) < 0.02
        assert self.distance(learnt("sigmoid", LossSettings(self.beta), noisy), self.beta) > 0.04

    @pytest.mark.parametrize("p", [0.7, 0.95, 1.0])
    def test_ipo_of_two_arms(self, p: float) -> None:
        # (h - 1/(2 tau))^2 with chance p and (-h - 1/(2 tau))^2 else: least at h = (2p - 1) / (2 tau), p = 1 included.
        h = self.two_arms("ipo", LossSettings(0.4), p)
        assert h == pytest.approx((2 * p - 1) / (2 * 0.4), abs=1e-6)

    @pytest.mark.parametrize("e", [0.0, 0.1, 0.3])
    def test_conservative_dpo_of_two_arms(self, e: float) -> None:
        # Least at beta h = logit of (1-e) p + e (1-p).
        p = 0.8
        seen = (1 - e) * p + e * (1 - p)
        h = self.two_arms("sigmoid", LossSettings(0.5, e), p)
        assert 0.5 * h == pytest.approx(math.log(seen / (1 - seen)), abs=1e-6)

    def two_arms(self, name: str, settings: LossSettings, p: float) -> float:
        h = doubles(0.0).requires_grad_()
        optimizer = torch.optim.LBFGS([h], max_iter=200, tolerance_change=1e-16, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            zero = torch.zeros_like(h)
            value = p * LOSSES[name](h, zero, settings) + (1 - p) * LOSSES[name](zero, h, settings)
            value.sum().backward()
            return value.sum()

        optimizer.step(loss)
        return float(h.detach())
