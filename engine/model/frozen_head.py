"""Log-probs through an LM head that is not trained, with their gradient worked out in the same pass.

d log p(target) / d h = (W[target] - sum over the vocabulary of p W) / temperature is a fixed vector of width H for each
row, so the loss may scale it later: a slice of logits is made, scored, turned into that vector and forgotten. Nothing
of the size of the vocabulary is kept for the backward pass, and nothing is computed twice.

Invariant: softmax and its difference from the target are in fp32 whatever the precision of the model; the difference is
rounded once, before its product with W, as an ordinary backward pass rounds it. Shapes: N rows, H hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from engine.model.half_products import linear, product

SLICE_BYTES = {"cpu": 32 * 2**20, "cuda": 2**30}
"""fp32 logits worked at one time: on a CPU they stay in its cache, on a GPU a product of them fills it."""


class FrozenHeadLogProbs(torch.autograd.Function):
    """rows (N, H) and targets (N,) -> log p(target), entropy, hit, each (N,) in fp32; only the first has a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        rows_NH: torch.Tensor,
        targets_N: torch.Tensor,
        head: nn.Linear,
        temperature: float,
        entropy: bool,
        slope: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        at_most = max(1, SLICE_BYTES.get(rows_NH.device.type, 2**28) // (4 * head.weight.shape[0]))
        slices = -(-len(rows_NH) // at_most)  # all alike: a product with few rows left over is a slow one
        # What a slice leaves behind has its place before the first one: a small tensor that is made between two slices
        # takes the beginning of the heap's hole, and the next slice needs new memory, as if there were no slices.
        log_prob_N, entropy_N, hit_N = (rows_NH.new_empty(len(rows_NH), dtype=torch.float32) for _ in range(3))
        slope_NH = rows_NH.new_empty(len(rows_NH), rows_NH.shape[1] if slope else 0)
        columns = (log_prob_N, entropy_N, hit_N, slope_NH)
        for i in range(slices):
            some = slice(len(rows_NH) * i // slices, len(rows_NH) * (i + 1) // slices)
            found = _score(head, rows_NH[some], targets_N[some].unsqueeze(1), temperature, entropy, slope)
            for column, part in zip(columns, found, strict=True):
                column[some] = part
            del found, part
        ctx.save_for_backward(slope_NH)
        ctx.mark_non_differentiable(entropy_N, hit_N)
        return log_prob_N, entropy_N, hit_N

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slope_NH,) = ctx.saved_tensors
        return (slope_NH * gradients[0].unsqueeze(1)).to(slope_NH.dtype), None, None, None, None, None


def _score(
    head: nn.Linear, rows_nH: torch.Tensor, targets_n1: torch.Tensor, temperature: float, entropy: bool, slope: bool
) -> tuple[torch.Tensor, ...]:
    """Log-prob, entropy, hit and slope of a slice of rows; what was not asked for is a stand-in."""
    logits_nV = linear(rows_nH, head.weight, head.bias).float()
    if temperature != 1.0:
        logits_nV.div_(temperature)
    all_nV = torch.log_softmax(logits_nV, dim=-1, out=logits_nV)
    log_prob_n = all_nV.gather(1, targets_n1).squeeze(1)
    hit_n = (all_nV.amax(-1) <= log_prob_n).float() if len(rows_nH) else log_prob_n
    entropy_n = -(all_nV.exp() * all_nV).sum(-1) if entropy else torch.zeros_like(log_prob_n)
    if not slope:
        return log_prob_n, entropy_n, hit_n, rows_nH[:, :0]
    away_nV = all_nV.exp_().neg_()
    away_nV.scatter_add_(1, targets_n1, torch.ones_like(log_prob_n).unsqueeze(1))
    slope_nH = product(away_nV.to(head.weight.dtype), head.weight)
    return log_prob_n, entropy_n, hit_n, slope_nH if temperature == 1.0 else slope_nH / temperature


def is_frozen(head: Any) -> bool:
    """Whether none of the parameters of `head` trains."""
    return not any(p.requires_grad for p in head.parameters())
