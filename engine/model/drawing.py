"""Drawing one token a row from logits: by the inverse of the cumulative distribution, from one number a row.

Owns the arithmetic of a draw and the numbers it is made from. Invariant: a draw is a function of a row's logits and its
uniform alone. The vocabulary is read in order and never sorted where top_p is 1: the mass is added up in stretches
of STRETCH tokens, one stretch is chosen, and only that one is added up token by token.

Shapes: R rows, V vocabulary, C stretches, K = STRETCH tokens in each.
"""

from __future__ import annotations

import torch

STRETCH = 256


def draw(
    logits_RV: torch.Tensor, uniform_R: torch.Tensor, *, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, log-probs), each (R,): token v is drawn where the uniform lies between the mass before v and through v.

    A stretch is added up in fp32, the stretches and the tokens of the chosen one in fp64: in fp32 the rounding of a sum
    over 100,000 tokens would shift the draw. Log-probs are fp32, in nats, at `temperature`, of the whole
    distribution; at temperature 0 (greedy) they are at temperature 1.
    """
    scaled_RV = logits_RV.float()
    if temperature not in (0.0, 1.0):
        scaled_RV = scaled_RV / temperature
    highest_R1, greedy_R1 = scaled_RV.max(-1, keepdim=True)
    rows, vocabulary = scaled_RV.shape
    stretches = -(-vocabulary // STRETCH)
    mass_RW = scaled_RV.new_empty(rows, stretches * STRETCH)
    mass_RW[:, vocabulary:] = 0.0
    mass_RV = mass_RW[:, :vocabulary]
    torch.sub(scaled_RV, highest_R1, out=mass_RV)
    mass_RV.exp_()
    mass_RCK = mass_RW.view(rows, stretches, STRETCH)
    through_RC = mass_RCK.sum(-1).double().cumsum(-1)
    lse_R1 = highest_R1 + through_RC[:, -1:].log().float()
    if temperature == 0:
        ids_R1 = greedy_R1
    else:
        if top_p < 1.0:
            mass_RV.copy_(_nucleus(mass_RV / through_RC[:, -1:], top_p))
            through_RC = mass_RCK.sum(-1).double().cumsum(-1)
        ids_R1 = _place(mass_RCK, through_RC, uniform_R.unsqueeze(-1))
    return ids_R1.squeeze(-1), (scaled_RV.gather(-1, ids_R1) - lse_R1).squeeze(-1)


def _place(mass_RCK: torch.Tensor, through_RC: torch.Tensor, uniform_R1: torch.Tensor) -> torch.Tensor:
    """Where the uniform's share of the mass lies, (R, 1): the stretch, and then the token in it."""
    stretch_R1, share_R1 = _chosen(through_RC, uniform_R1)
    chosen_RK = mass_RCK[torch.arange(len(mass_RCK), device=mass_RCK.device), stretch_R1.squeeze(-1)]
    token_R1, _ = _chosen(chosen_RK.cumsum(-1, dtype=torch.float64), share_R1)
    return stretch_R1 * STRETCH + token_R1


def _chosen(through_RN: torch.Tensor, share_R1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first place whose mass, with all before it, is above that share of the whole; and the share inside it.

    The wanted mass stays below the whole, so a place without mass is never chosen.
    """
    whole_R1 = through_RN[:, -1:]
    wanted_R1 = torch.minimum(share_R1 * whole_R1, whole_R1 * (1 - 2**-52))
    place_R1 = torch.searchsorted(through_RN, wanted_R1, right=True)
    before_R1 = through_RN.gather(-1, (place_R1 - 1).clamp(min=0)) * (place_R1 > 0)
    inside_R1 = (wanted_R1 - before_R1) / (through_RN.gather(-1, place_R1) - before_R1)
    return place_R1, inside_R1


def uniforms(seed: int, count: int) -> torch.Tensor:
    """`count` fp64 numbers in [0, 1) that depend on the seed alone; a longer series begins with the shorter one."""
    # The generator seeds itself with 32 bits, so both halves of a 64-bit seed are folded into them.
    folded = (seed ^ (seed >> 32)) & 0xFFFFFFFF
    return torch.rand(count, generator=torch.Generator().manual_seed(folded), dtype=torch.float64)


def _nucleus(probs_RV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero for every token outside the smallest set of most probable ones whose mass reaches `top_p`."""
    sorted_RV, places_RV = probs_RV.sort(dim=-1, descending=True)
    before_RV = sorted_RV.cumsum(-1, dtype=torch.float64) - sorted_RV
    kept_RV = torch.where(before_RV < top_p, sorted_RV, 0.0)
    return torch.zeros_like(probs_RV).scatter_(-1, places_RV, kept_RV)
