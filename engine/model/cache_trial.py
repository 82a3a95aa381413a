"""Whether a model's past fits the sampler's key/value cache, found by trying it; and the next token without a cache.

State-space and convolution layers keep more of the past than keys and values, and some models take no cache at all; a
cache that is quietly ignored would sample from the last token alone. So two short prompts of unlike length go through
prefill and one step, and the logits have to be those of the whole sequences. Where they are not, the sampler runs the
whole of each row again for every token, which is slow and right.

The answer is kept beside that of `row_sharing`, under the same key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.model.key_value_cache import PreallocatedCache
from engine.model.row_sharing import class_key, kept_answer

_PROMPTS = ((11, 23, 35, 47, 59), (61, 73, 85))
_NEXT = (97, 19)


def cache_holds_the_past(model: Any, cache_folder: Path | None = None) -> bool:
    """True where sampling with the cache gives what the whole sequence gives. Called inside `sample`'s contexts."""
    answer = kept_answer("key-value-cache", class_key(model), lambda: {"holds": _try(model)}, cache_folder)
    return bool(answer["holds"])


def next_logits(model: Any, sequences: list[list[int]]) -> torch.Tensor:
    """Logits (R, V) behind the last token of each sequence, without a cache; equal lengths go through together."""
    device = model.get_input_embeddings().weight.device
    rows_of: dict[int, list[int]] = {}
    for row, ids in enumerate(sequences):
        rows_of.setdefault(len(ids), []).append(row)
    parts = [
        model(input_ids=torch.tensor([sequences[row] for row in rows], device=device), use_cache=False).logits[:, -1]
        for rows in rows_of.values()
    ]
    order = [row for rows in rows_of.values() for row in rows]
    back_R = torch.tensor(sorted(range(len(order)), key=order.__getitem__), device=device)
    return torch.cat(parts).index_select(0, back_R)


def _try(model: Any) -> bool:
    rows = model.get_input_embeddings().weight.shape[0]
    prompts = [[token % rows for token in prompt] for prompt in _PROMPTS]
    following = [token % rows for token in _NEXT]
    try:
        cached = _with_cache(model, prompts, following).float().log_softmax(-1)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever a stranger's layers raise when they are handed this cache; the answer is then no
        return False
    whole = next_logits(model, [[*p, n] for p, n in zip(prompts, following, strict=True)]).float().log_softmax(-1)
    likely = whole > whole.max(-1, keepdim=True).values - 5  # tails of a distribution are rounding
    rounding = 1e-3 if model.dtype == torch.float32 else 0.25
    return bool(((cached - whole).abs()[likely] <= rounding).all())


def _with_cache(model: Any, prompts: list[list[int]], following: list[int]) -> torch.Tensor:
    """Logits (2, V) behind `following`, from a padded prefill and one step, as the sampler asks for them."""
    device = model.get_input_embeddings().weight.device
    width = max(map(len, prompts))
    pads = torch.tensor([[width - len(prompt)] for prompt in prompts], device=device)
    both = torch.arange(len(prompts), device=device)
    cache = PreallocatedCache(
        model.config.get_text_config(), rows=len(prompts), prompt_columns=width, capacity=width + 1
    )
    columns = torch.arange(width + 1, device=device)
    padded = [[0] * (width - len(prompt)) + prompt for prompt in prompts]
    cache.prefill(both, both)
    model(
        input_ids=torch.tensor(padded, device=device),
        attention_mask=columns[:width] >= pads,
        position_ids=(columns[:width] - pads).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.prefill(None, None)
    logits: torch.Tensor = model(
        input_ids=torch.tensor(following, device=device).unsqueeze(1),
        attention_mask=columns >= pads,
        position_ids=width - pads,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return logits
