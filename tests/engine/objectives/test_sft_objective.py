"""The objectives of SFT against values worked by hand and the equation in fp64."""

from __future__ import annotations

import math

import pytest
import torch

from engine.objectives.sft import dft_loss, smoothed_nll


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class TestLabelSmoothing:
    def test_none_is_the_plain_negative_log_likelihood(self) -> None:
        assert smoothed_nll(doubles(-0.5, -2.0), None, 0.0).tolist() == [0.5, 2.0]

    def test_by_hand(self) -> None:
        # p = (1/2, 1/4, 1/4), target the first, e = 0.1: 0.9 ln 2 + 0.1 (ln 2 + 2 ln 4) / 3 = 0.9 ln 2 + ln 2 / 6
        mean = (math.log(0.5) + 2 * math.log(0.25)) / 3
        loss = smoothed_nll(doubles(math.log(0.5)), doubles(mean), 0.1)
        assert loss.item() == pytest.approx((0.9 + 1 / 6) * math.log(2), abs=1e-15)

    def test_is_the_cross_entropy_with_the_smoothed_target(self) -> None:
        logits_NV = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        targets_N = torch.tensor([0, 6, 3, 3, 1])
        log_probs_NV = torch.log_softmax(logits_NV, -1)
        ours = smoothed_nll(log_probs_NV[range(5), targets_N], log_probs_NV.mean(-1), 0.2)
        theirs = torch.nn.functional.cross_entropy(logits_NV, targets_N, label_smoothing=0.2, reduction="none")
        assert torch.allclose(ours, theirs, atol=1e-10, rtol=0)


class TestDft:
    def test_by_hand_with_the_weight_held_fixed(self) -> None:
        """-p ln p at p = 1/4 is ln 4 / 4, and its slope in ln p is -p: the weight has no gradient of its own."""
        log_prob = doubles(math.log(0.25)).requires_grad_()
        loss = dft_loss(log_prob)
        loss.sum().backward()
        assert loss.item() == pytest.approx(math.log(4) / 4, abs=1e-15)
        assert log_prob.grad is not None
        assert log_prob.grad.item() == pytest.approx(-0.25, abs=1e-15)
