"""From a packed batch to hidden states, and from hidden states to per-token log-probs.

The LM head runs at the wanted rows only. Log-sum-exp is taken in fp32 whatever the model's precision. Large heads are
worked in slices whose logits are recomputed in the backward pass, so memory does not grow with the vocabulary.
Shapes: T tokens, N targets, H hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from engine.data.packing import PackedBatch
from engine.model.attention import PACKED, DocumentLayout, attention_mode

LOGITS_BYTES_AT_ONCE = 256 * 2**20
"""fp32 logits held at one time before the head works in slices."""


@dataclass(frozen=True)
class TokenScores:
    """What the head says of each target, all of shape (N,), fp32, in nats."""

    log_probs_N: torch.Tensor
    """log p(target | what precedes it in its document), at the temperature asked for. Carries the gradient."""
    entropy_N: torch.Tensor | None
    """Entropy of the predicted distribution, without gradient; None where it was not asked for."""
    hit_N: torch.Tensor
    """1.0 where the target is the most probable token, without gradient."""


def hidden_states(model: Any, batch: PackedBatch) -> torch.Tensor:
    """Final hidden states (T, H) of a packed batch, in the model's precision, each document seeing only itself."""
    decoder = model.get_decoder()
    layout = DocumentLayout.of(batch.lengths, batch.ids_T.device)
    with attention_mode(model, PACKED):
        output = decoder(
            input_ids=batch.ids_T.unsqueeze(0),
            position_ids=batch.positions_T.unsqueeze(0),
            use_cache=False,
            document_layout=layout,
        )
    hidden: torch.Tensor = output.last_hidden_state[0]
    return hidden


def token_scores(
    model: Any, hidden_TH: torch.Tensor, batch: PackedBatch, *, temperature: float = 1.0, entropy: bool = False
) -> TokenScores:
    """Score every target of `batch` from its hidden states. N = 0 gives empty, connected tensors."""
    head = model.get_output_embeddings()
    cap = getattr(model.config, "final_logit_softcapping", None)
    rows_NH = hidden_TH.index_select(0, batch.rows_N)
    vocabulary = head.weight.shape[0]
    rows_at_once = max(1, LOGITS_BYTES_AT_ONCE // (4 * vocabulary))

    def score(rows: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return _score_rows(head, rows, targets, temperature, cap, entropy)

    if rows_NH.shape[0] <= rows_at_once:
        log_probs, entropies, hits = score(rows_NH, batch.targets_N)
    else:
        parts = [
            checkpoint(score, rows, targets, use_reentrant=False) if torch.is_grad_enabled() else score(rows, targets)
            for rows, targets in zip(rows_NH.split(rows_at_once), batch.targets_N.split(rows_at_once), strict=True)
        ]
        log_probs, entropies, hits = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return TokenScores(log_probs, entropies if entropy else None, hits)


def _score_rows(
    head: Any, rows: torch.Tensor, targets: torch.Tensor, temperature: float, cap: float | None, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits_NV = head(rows).float()
    if cap is not None:
        logits_NV = torch.tanh(logits_NV / cap) * cap
    if temperature != 1.0:
        logits_NV = logits_NV / temperature
    lse_N = torch.logsumexp(logits_NV, dim=-1)
    log_probs_N = logits_NV.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - lse_N
    with torch.no_grad():
        hit_N = (logits_NV.argmax(-1) == targets).float() if logits_NV.shape[0] else lse_N.detach()
        if entropy:
            entropy_N = lse_N - (torch.softmax(logits_NV, dim=-1) * logits_NV).sum(-1)
        else:
            entropy_N = lse_N.new_zeros(lse_N.shape)
    return log_probs_N, entropy_N, hit_N
