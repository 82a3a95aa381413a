"""One token a row: against the plain inverse of the distribution, at the edges of stretches, without mass."""

from __future__ import annotations

import pytest
import torch

from engine.model.drawing import STRETCH, draw


def plain(logits_RV: torch.Tensor, uniform_R: torch.Tensor, temperature: float) -> torch.Tensor:
    """By one fp64 sum over the whole vocabulary."""
    mass_RV = (logits_RV.double() / temperature).softmax(-1).cumsum(-1)
    wanted_R1 = uniform_R.unsqueeze(-1) * mass_RV[:, -1:]
    return torch.searchsorted(mass_RV, wanted_R1, right=True).squeeze(-1)


@pytest.mark.parametrize("vocabulary", [3, STRETCH, STRETCH + 1, 10 * STRETCH - 7])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_the_plain_inverse(vocabulary: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits_RV = 3 * torch.randn(400, vocabulary, generator=generator)
    uniform_R = torch.rand(400, generator=generator, dtype=torch.float64)
    ids_R, log_probs_R = draw(logits_RV, uniform_R, temperature=temperature, top_p=1.0)
    assert torch.equal(ids_R, plain(logits_RV, uniform_R, temperature))
    expected_RV = (logits_RV.double() / temperature).log_softmax(-1)
    torch.testing.assert_close(
        log_probs_R.double(), expected_RV.gather(-1, ids_R.unsqueeze(-1)).squeeze(-1), atol=2e-6, rtol=1e-6
    )


def test_between_two_tokens_on_either_side_of_a_stretch() -> None:
    """Two tokens of equal mass, the last of one stretch and the first of the next: the uniform 0.5 parts them."""
    logits_RV = torch.full((3, 3 * STRETCH), -torch.inf)
    logits_RV[:, STRETCH - 1] = logits_RV[:, STRETCH] = 0.0
    uniform_R = torch.tensor([0.5 - 1e-12, 0.5, 1 - 2**-53], dtype=torch.float64)
    ids_R, log_probs_R = draw(logits_RV, uniform_R, temperature=1.0, top_p=1.0)
    assert ids_R.tolist() == [STRETCH - 1, STRETCH, STRETCH]
    assert log_probs_R.exp().tolist() == pytest.approx([0.5] * 3)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_token_without_mass_is_never_drawn(top_p: float) -> None:
    """Also by the least and the greatest uniform, and where the last stretch is part padding."""
    generator = torch.Generator().manual_seed(1)
    logits_RV = torch.randn(500, 2 * STRETCH + 3, generator=generator)
    logits_RV[torch.rand(logits_RV.shape, generator=generator) < 0.9] = -torch.inf
    logits_RV[:, 7] = 0.0
    uniform_R = torch.rand(500, generator=generator, dtype=torch.float64)
    uniform_R[:50], uniform_R[50:100] = 0.0, 1 - 2**-53
    ids_R, log_probs_R = draw(logits_RV, uniform_R, temperature=1.0, top_p=top_p)
    assert int(ids_R.max()) < logits_RV.shape[1]
    assert log_probs_R.isfinite().all()


def test_logits_far_from_zero() -> None:
    """Sums are of differences to the highest: neither 0 nor infinite."""
    logits_RV = torch.tensor([[900.0, 901.0], [-901.0, -900.0]])
    _, log_probs_R = draw(logits_RV, torch.zeros(2, dtype=torch.float64), temperature=0.0, top_p=1.0)
    expected = -torch.tensor(-1.0).exp().log1p()
    torch.testing.assert_close(log_probs_R, expected.expand(2), atol=1e-4, rtol=0)
