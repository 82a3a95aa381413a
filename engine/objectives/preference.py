"""Preference objectives on pairs of answers: one table of small pure functions.

A function takes the score of the chosen and of the rejected answer of B pairs, in nats, and returns the loss of each
pair, unreduced: the caller owns the denominator, so accumulation equals one large batch. What a score is, the method
says: log p_policy - log p_reference of the whole answer (DPO and its kin), the same as a mean over the answer's tokens
(sigmoid_norm, averaged IPO), the log-prob alone (CPO), or its token mean (SimPO, ORPO). Knows nothing of models,
packing or config files. A new loss is a function here, its row in LOSSES, and its name in
`engine.run.config_preference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

LARGEST_EXPONENT = 80.0
"""exp of more is no fp32 number any more."""
DISCOPOP_TEMPERATURE = 0.05


@dataclass(frozen=True)
class LossSettings:
    """What the functions take beside the scores; each says which of it it reads."""

    beta: float
    """Strength of the pull to the reference (tau of IPO, 1/eta of SPPO, lambda of ORPO)."""
    label_smoothing: float = 0.0
    """Share of the pairs whose verdict is taken to be the wrong way round: e below."""
    gamma: float = 0.0
    """Margin that the chosen answer is to win by, in units of the loss's argument."""


PairLoss = Callable[[torch.Tensor, torch.Tensor, LossSettings], torch.Tensor]


def sigmoid(chosen_B: torch.Tensor, rejected_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """-(1-e) log s(m) - e log s(-m) with m = beta (chosen - rejected) - gamma and s the logistic function.

    On log-ratios, e = 0: DPO, eq. 7 of Rafailov et al. 2023 (arXiv:2305.18290); where policy and reference agree it is
    ln 2 and its slope in the chosen log-prob is -beta/2. e > 0: conservative DPO, eq. 3 of Mitchell 2023 ("A note on
    DPO with noisy preferences"). On token means of log-ratios: length-normalised DPO (Tulu 3, arXiv:2411.15124). On
    log-probs: CPO, eq. 3 of Xu et al. 2024 (arXiv:2401.08417). On token means of log-probs, with gamma: SimPO, eq. 6 of
    Meng et al. 2024 (arXiv:2405.14734).
    """
    margin_B, e = settings.beta * (chosen_B - rejected_B) - settings.gamma, settings.label_smoothing
    loss_B = -(1 - e) * F.logsigmoid(margin_B)
    return loss_B - e * F.logsigmoid(-margin_B) if e else loss_B


def robust(chosen_B: torch.Tensor, rejected_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """(-(1-e) log s(m) + e log s(-m)) / (1 - 2e), m = beta (chosen - rejected): robust DPO, Chowdhury et al.
    2024 (arXiv:2403.00409). Over verdicts of which a share e < 1/2 is swapped, its mean is DPO's over the true ones.
    """
    margin_B, e = settings.beta * (chosen_B - rejected_B), settings.label_smoothing
    return (-(1 - e) * F.logsigmoid(margin_B) + e * F.logsigmoid(-margin_B)) / (1 - 2 * e)


def ipo(chosen_B: torch.Tensor, rejected_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """(chosen - rejected - 1/(2 beta))^2: eq. 17 of Azar et al. 2023 (arXiv:2310.12036), whose tau is our beta."""
    return (chosen_B - rejected_B - 1 / (2 * settings.beta)).square()


def hinge(chosen_B: torch.Tensor, rejected_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """max(0, 1 - beta (chosen - rejected)): SLiC (Zhao et al. 2023, arXiv:2305.10425), normalised by a reference as in
    RSO (Liu et al. 2023, arXiv:2309.06657).
    """
    return F.relu(1 - settings.beta * (chosen_B - rejected_B))


def exo_pair(chosen_B: torch.Tensor, rejected_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """q (log q - log(1-e)) + (1-q) (log(1-q) - log e) with q = s(beta (chosen - rejected)): the reverse KL to smoothed
    verdicts, eq. 16 of Ji et al. 2024 (arXiv:2402.00856). Needs e > 0.
    """
    margin_B, e = settings.beta * (chosen_B - rejected_B), settings.label_smoothing
    chosen_term_B = torch.sigmoid(margin_B) * (F.logsigmoid(margin_B) - math.log1p(-e))
    return chosen_term_B + torch.sigmoid(-margin_B) * (F.logsigmoid(-margin_B) - math.log(e))


def nca_pair(chosen_B: torch.Tensor, rejected_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """-log s(a) - (log s(-a) + log s(-b))/2, a and b beta times the scores: noise-contrastive alignment of two answers,
    Chen et al. 2024 (arXiv:2402.05369).
    """
    a_B, b_B = settings.beta * chosen_B, settings.beta * rejected_B
    return -F.logsigmoid(a_B) - 0.5 * (F.logsigmoid(-a_B) + F.logsigmoid(-b_B))


def sppo_hard(chosen_B: torch.Tensor, rejected_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """(chosen - 1/(2 beta))^2 + (rejected + 1/(2 beta))^2: self-play preference optimisation with verdicts of 1 and 0,
    eq. 4.7 of Wu et al. 2024 (arXiv:2405.00675); beta is 1/eta.
    """
    target = 1 / (2 * settings.beta)
    return (chosen_B - target).square() + (rejected_B + target).square()


def apo_zero(chosen_B: torch.Tensor, rejected_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """1 - s(a) + s(b), a and b beta times the scores: raises the chosen and lowers the rejected answer. Eq. 7 of
    D'Oosterlinck et al. 2024 (arXiv:2408.06266): for chosen answers that are better than the model's own.
    """
    return torch.sigmoid(-settings.beta * chosen_B) + torch.sigmoid(settings.beta * rejected_B)


def apo_down(chosen_B: torch.Tensor, rejected_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """s(a) + 1 - s(a - b), a and b beta times the scores: lowers both, the rejected answer more. Eq. 8 of
    D'Oosterlinck et al. 2024 (arXiv:2408.06266): for chosen answers that are worse than the model's own.
    """
    return torch.sigmoid(settings.beta * chosen_B) + torch.sigmoid(-settings.beta * (chosen_B - rejected_B))


def discopop(chosen_B: torch.Tensor, rejected_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """(1-w) (-log s(m)) + w exp(-m) with m = beta (chosen - rejected), w = s(m / 0.05): the log-ratio modulated loss,
    eq. 5 of Lu et al. 2024 (arXiv:2406.08414). It is not convex.
    """
    margin_B = settings.beta * (chosen_B - rejected_B)
    share_B = torch.sigmoid(margin_B / DISCOPOP_TEMPERATURE)
    # Where the exponential would overflow its share is 0; without the bound the product would be 0 times infinity.
    exponential_B = torch.exp((-margin_B).clamp(max=LARGEST_EXPONENT))
    return (1 - share_B) * -F.logsigmoid(margin_B) + share_B * exponential_B


def log_odds(mean_log_prob_B: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) of p = exp(mean log-prob of an answer's tokens), eq. 4 of Hong et al. 2024 (arXiv:2403.07691).

    A p that rounds to 1 counts as the next number below it, so that the odds stay finite.
    """
    below_zero_B = mean_log_prob_B.clamp(max=-torch.finfo(mean_log_prob_B.dtype).eps)
    return below_zero_B - torch.log(-torch.expm1(below_zero_B))


def odds_ratio(chosen_B: torch.Tensor, rejected_B: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """-beta log s(log odds of chosen - log odds of rejected), on token means of log-probs: the odds-ratio term of ORPO,
    eqs. 6 and 7 of Hong et al. 2024 (arXiv:2403.07691), with the paper's lambda as beta. The NLL is added beside it.
    """
    return -settings.beta * F.logsigmoid(log_odds(chosen_B) - log_odds(rejected_B))


LOSSES: dict[str, PairLoss] = {
    "sigmoid": sigmoid,
    "sigmoid_norm": sigmoid,
    "robust": robust,
    "ipo": ipo,
    "hinge": hinge,
    "exo_pair": exo_pair,
    "nca_pair": nca_pair,
    "sppo_hard": sppo_hard,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "discopop": discopop,
    "odds_ratio": odds_ratio,
}
"""By the name that a config gives."""


def divergence_score(log_ratio_B: torch.Tensor, divergence: str, alpha: float) -> torch.Tensor:
    """f'(p_policy / p_reference) from the log-ratio: what stands in its place where the pull to the reference is an
    f-divergence other than the reverse KL, Wang et al. 2023 (arXiv:2309.16240).

    Constants that cancel in chosen - rejected are chosen so that a log-ratio of 0 scores 0. `alpha` between 0 (reverse
    KL) and 1 (forward KL) counts for "alpha" only. A score stays where it is beyond what fp32 can hold.
    """
    if divergence == "reverse_kl":
        return log_ratio_B
    if divergence == "forward_kl":
        return -torch.expm1((-log_ratio_B).clamp(max=LARGEST_EXPONENT))
    if divergence == "js":
        return math.log(2) + F.logsigmoid(log_ratio_B)
    assert divergence == "alpha", divergence
    return -torch.expm1((-alpha * log_ratio_B).clamp(max=LARGEST_EXPONENT)) / alpha
