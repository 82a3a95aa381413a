"""A world that can be enumerated: all 512 completions of three tokens of a vocabulary of eight, each with a score.

The policy is a table of logits, one row for each prefix. Scores are drawn leaf by leaf, so what a token is worth
depends on the tokens around it. Fixed points are worked out here by hand, from the equations of
`engine.objectives.kl_loss`; learning goes through the engine's own functions. Shapes: L = 512 completions (leaves).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.objectives.grouped_policy import GroupedObjective

V, LENGTH = 8, 3
LEAVES = V**LENGTH
SCORE_L = torch.randn(LEAVES, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
_PREFIXES = (1, V, V * V)
_LEAF = torch.arange(LEAVES)
_STATES = (torch.zeros_like(_LEAF), _LEAF // (V * V), _LEAF // V)
_TOKENS = (_LEAF // (V * V), _LEAF // V % V, _LEAF % V)


def reference_tables() -> list[torch.Tensor]:
    """Logits of the reference: (1, V), (V, V), (V * V, V)."""
    generator = torch.Generator().manual_seed(6)
    return [torch.randn(rows, V, generator=generator, dtype=torch.float64) * 0.7 for rows in _PREFIXES]


def token_log_probs(tables: list[torch.Tensor]) -> torch.Tensor:
    """Log-prob of each token of each completion, (L, 3), nats."""
    columns = [
        torch.log_softmax(table, 1)[states, tokens]
        for table, states, tokens in zip(tables, _STATES, _TOKENS, strict=True)
    ]
    return torch.stack(columns, 1)


REFERENCE_L3 = token_log_probs(reference_tables())


def distance(p_L: torch.Tensor, q_L: torch.Tensor) -> float:
    """Total variation between two policies over completions."""
    return float(0.5 * (p_L - q_L).abs().sum())


def best_policy(beta: float) -> torch.Tensor:
    """pi* = reference exp(score / beta) / Z, the optimum of score less beta times the completion's KL. (L,)."""
    return torch.softmax(REFERENCE_L3.sum(1) + SCORE_L / beta, 0)


def token_wise(next_L8: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The policy that each prefix's row follows from (reference row, mean scores of going on from each token), last
    tokens first. (L,).
    """
    worth = SCORE_L
    chance_L = torch.ones(LEAVES, dtype=torch.float64)
    for table, repeated in zip(reversed(reference_tables()), (1, V, V * V), strict=True):
        worth_SV = worth.view(-1, V)
        row_SV = next_L8(torch.softmax(table, 1), worth_SV)
        chance_L = chance_L * row_SV.reshape(-1).repeat_interleave(repeated)
        worth = (row_SV * worth_SV).sum(1)
    return chance_L


def rest_of_k3(beta: float) -> torch.Tensor:
    """pi(a|s) = beta reference(a|s) / (lambda(s) - Q(s, a)), where plain k3 in the loss comes to rest. (L,)."""

    def row(reference_SV: torch.Tensor, worth_SV: torch.Tensor) -> torch.Tensor:
        # The sum over a falls in lambda, from infinity just above the largest Q, to at most 1 at largest Q + beta.
        low_S1 = worth_SV.amax(1, keepdim=True)
        high_S1 = low_S1 + beta
        for _ in range(200):
            middle_S1 = (low_S1 + high_S1) / 2
            above = (beta * reference_SV / (middle_S1 - worth_SV)).sum(1, keepdim=True) > 1
            low_S1, high_S1 = torch.where(above, middle_S1, low_S1), torch.where(above, high_S1, middle_S1)
        found_SV = beta * reference_SV / (high_S1 - worth_SV)
        return found_SV / found_SV.sum(1, keepdim=True)

    return token_wise(row)


def rest_of_token_kl(beta: float) -> torch.Tensor:
    """pi(a|s) = reference(a|s) exp(Q(s, a) / beta) / Z(s), with the mean score Q and no KL to come in it. (L,)."""
    return token_wise(lambda reference_SV, worth_SV: torch.softmax(reference_SV.log() + worth_SV / beta, 1))


Draw = Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""From the policy's (L, 3) log-probs and the step: completions (D,), the weight of each, and its advantage (D,)."""


def learnt(objective: GroupedObjective, draw: Draw, *, steps: int, lr: float) -> torch.Tensor:
    """The policy (L,) after `steps` of Adam from the reference; of its last quarter the mean, which evens out draws."""
    tables = [table.clone().requires_grad_() for table in reference_tables()]
    optimizer = torch.optim.Adam(tables, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=lr / 50)
    mean_L = torch.zeros(LEAVES, dtype=torch.float64)
    for step in range(steps):
        log_probs_L3 = token_log_probs(tables)
        old_L3 = log_probs_L3.detach()
        leaves_D, weight_D, advantage_D = draw(old_L3, step)
        document_N = torch.arange(len(leaves_D)).repeat_interleave(LENGTH)
        found = objective.token_losses(
            log_probs_L3[leaves_D].reshape(-1), old_L3[leaves_D].reshape(-1), REFERENCE_L3[leaves_D].reshape(-1),
            advantage_D[document_N], document_N, torch.full((len(leaves_D),), LENGTH, dtype=torch.float64),
        )  # fmt: skip
        optimizer.zero_grad()
        (found.loss_N * weight_D[document_N]).sum().backward()
        optimizer.step()
        schedule.step()
        if step >= steps - steps // 4:
            mean_L += token_log_probs(tables).detach().sum(1).exp() / (steps // 4)
    return mean_L
