"""From a packed batch to hidden states, and from hidden states to per-token log-probs.

The LM head runs at the wanted rows only. Log-sum-exp is taken in fp32 whatever the model's precision. A head that is
not trained is worked by `frozen_head`; a large one that is trained in slices whose logits are recomputed in the
backward pass. So memory does not grow with the vocabulary.
Shapes: T tokens, N targets, H hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from engine.data.packing import PackedBatch
from engine.model.attention import PACKED, DocumentLayout, attention_mode
from engine.model.frozen_head import FrozenHeadLogProbs, is_frozen

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
    mean_log_prob_N: torch.Tensor | None = None
    """Mean of log p over the vocabulary, for label smoothing, with gradient; None where it was not asked for."""


def hidden_states(
    model: Any, batch: PackedBatch, *, share: bool = True, rows_R: torch.Tensor | None = None
) -> torch.Tensor:
    """Final hidden states (T, H) of a packed batch, in the model's precision, each document seeing only itself.

    Without `share` a beginning that documents share goes through the model once for each of them; the rows that come
    back are those of the batch all the same. With `rows_R` they are those rows alone, (R, H), and where the last layer
    can leave the others out behind its attention, it does.
    """
    if not share and any(span.shared for span in batch.spans):
        apart, back_T = batch.apart()
        return hidden_states(model, apart, rows_R=back_T if rows_R is None else back_T.index_select(0, rows_R))
    decoder = model.get_decoder()
    told = {"wanted_rows": rows_R} if rows_R is not None and _leaves_rows_out(decoder) else {}
    layout = DocumentLayout.of(batch.spans, batch.ids_T.device)
    with attention_mode(model, PACKED):
        output = decoder(
            input_ids=batch.ids_T.unsqueeze(0),
            position_ids=batch.positions_T.unsqueeze(0),
            use_cache=False,
            document_layout=layout,
            **told,
        )
    hidden: torch.Tensor = output.last_hidden_state[0]
    return hidden if rows_R is None or told else hidden.index_select(0, rows_R)


def _leaves_rows_out(decoder: Any) -> bool:
    """Whether the last layer takes `wanted_rows` (`gated_layers`)."""
    layers = list(getattr(decoder, "layers", ()))
    return bool(layers) and getattr(layers[-1], "is_last", False)


def token_scores(
    model: Any,
    hidden_TH: torch.Tensor,
    batch: PackedBatch,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    vocabulary_mean: bool = False,
) -> TokenScores:
    """Score every target of `batch` from its hidden states. N = 0 gives empty, connected tensors."""
    head = model.get_output_embeddings()
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    temperature = temperature / _constant_behind_the_head(config)
    rows_NH = hidden_TH.index_select(0, batch.rows_N)
    plain = type(head) is nn.Linear and cap is None and not vocabulary_mean and rows_NH.dtype == head.weight.dtype
    # Without a gradient a head that trains is worked as its frozen copy is: where they are equal their scores are, too.
    if plain and (is_frozen(head) or not torch.is_grad_enabled()):
        slope = torch.is_grad_enabled() and rows_NH.requires_grad
        log_prob_N, entropy_N, hit_N = FrozenHeadLogProbs.apply(
            rows_NH, batch.targets_N, head, temperature, entropy, slope
        )
        return TokenScores(log_prob_N, entropy_N if entropy else None, hit_N)
    vocabulary = head.weight.shape[0]
    rows_at_once = max(1, LOGITS_BYTES_AT_ONCE // (4 * vocabulary))

    def score(rows: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _score_rows(head, rows, targets, temperature, cap, entropy, vocabulary_mean)

    if rows_NH.shape[0] <= rows_at_once:
        log_probs, entropies, hits, means = score(rows_NH, batch.targets_N)
    else:
        parts = [
            checkpoint(score, rows, targets, use_reentrant=False) if torch.is_grad_enabled() else score(rows, targets)
            for rows, targets in zip(rows_NH.split(rows_at_once), batch.targets_N.split(rows_at_once), strict=True)
        ]
        log_probs, entropies, hits, means = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return TokenScores(log_probs, entropies if entropy else None, hits, means if vocabulary_mean else None)


def _constant_behind_the_head(config: Any) -> float:
    """What logits are multiplied by behind the head: Cohere's logit_scale, 1 / logits_scaling of Granite, else 1."""
    divided, multiplied = getattr(config, "logits_scaling", None), getattr(config, "logit_scale", None)
    return float(multiplied if multiplied is not None else 1 / divided if divided is not None else 1)


def _score_rows(
    head: Any,
    rows: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    cap: float | None,
    entropy: bool,
    vocabulary_mean: bool,
) -> tuple[torch.Tensor, ...]:
    """Log-probs, entropies, hits and vocabulary means, each (N,); what was not asked for is a stand-in."""
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
    mean_N = logits_NV.mean(-1) - lse_N if vocabulary_mean else lse_N.detach()
    return log_probs_N, entropy_N, hit_N, mean_N
