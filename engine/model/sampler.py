"""The one batched sampler: completions of many prompts, each with the log-probs it was drawn with.

Invariants:
- A row's draws depend on its own seed alone: its uniforms are made from the seed before anything is run, and a token is
  the inverse of the cumulative distribution at its uniform. Neighbours change logits by rounding at most.
- Log-probs are of the whole distribution at the sampling temperature, in fp32, in nats, also where top_p restricts the
  draw; at temperature 0 (greedy) they are at temperature 1.
- The id that stopped a completion is part of it.

Prompts are sorted by length and cut into batches that fit into memory; what happens in one is `sampling_batch`'s, and
on CUDA `static_decoding`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch

from engine.errors import DataError, ModelError
from engine.model.attention import attention_mode
from engine.model.cache_trial import cache_holds_the_past
from engine.model.decode_attention import sampling_attention
from engine.model.gated_decoding import thin_head
from engine.model.sampling_batch import Batch, Completion, Settings, UncachedBatch, sees_all_columns
from engine.model.static_decoding import StaticBatch
from engine.run.memory_words import is_out_of_memory

__all__ = ["Completion", "Sampler", "Settings", "sample"]

ROWS_AT_ONCE = 128
"""Rows of a batch where the caller names no number and memory allows it."""
PROMPT_TOKENS_AT_ONCE = 32_768
"""Prompt tokens, padding included, that go through the model at one time."""
CACHE_BYTES_AT_ONCE = 2 * 2**30
"""Size of the key/value cache of one batch on a CPU; on CUDA it is half of the free memory."""


class Sampler(Protocol):
    """Who answers prompts as the policy: the engine itself, or a server."""

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        stop_ids: frozenset[int],
        pad_id: int,
        seeds: Sequence[int],
    ) -> list[Completion]:
        """One completion of each prompt, in their order, from the policy as it is now; each draws by its own seed."""
        ...


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    stop_ids: Collection[int],
    seeds: Sequence[int],
    pad_id: int,
    top_p: float = 1.0,
    batch_size: int | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> list[Completion]:
    """One completion of each prompt, in the order of the prompts.

    `model` is a transformers causal LM, its adapters already switched to the role that speaks. `batch_size` is the
    number of rows at once (by default as many as memory allows, at most ROWS_AT_ONCE); `on_batch` is told how many
    completions are done after each batch and may raise. Where memory runs out, the batch is tried again with half
    of its rows. Raises DataError for an empty prompt or one that leaves too little of the model's window, ModelError
    where not even one row fits.
    """
    settings = Settings(max_new_tokens, temperature, top_p, frozenset(stop_ids), pad_id)
    _check(model, prompts, seeds, settings)
    longest_first = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), tuple(prompts[i]), i))
    rows = batch_size or _rows_that_fit(model, max((len(p) for p in prompts), default=1) + max_new_tokens)
    out: list[Completion | None] = [None] * len(prompts)
    done = 0
    how = attention_mode(model, sampling_attention(model))
    with torch.no_grad(), how, _without_dropout(model), thin_head(model):
        kind = _kind_of_batch(model) if prompts else Batch
        while done < len(prompts):
            tokens_a_row = len(prompts[longest_first[done]])
            chosen = longest_first[done : done + max(1, min(rows, PROMPT_TOKENS_AT_ONCE // tokens_a_row))]
            completions = _run_if_it_fits(
                partial(kind, model, [prompts[i] for i in chosen], [seeds[i] for i in chosen], settings)
            )
            if isinstance(completions, str):
                if len(chosen) == 1:
                    raise _no_room(completions, tokens_a_row, settings)
                rows = len(chosen) // 2
                continue
            for i, completion in zip(chosen, completions, strict=True):
                out[i] = completion
            done += len(chosen)
            if on_batch is not None:
                on_batch(done)
    return [completion for completion in out if completion is not None]


def _kind_of_batch(model: Any) -> type[Batch]:
    """How `model` is sampled from: without a cache where none holds its past, in graphs where it is on CUDA."""
    if not cache_holds_the_past(model):
        return UncachedBatch
    on_cuda = model.get_input_embeddings().weight.is_cuda
    return StaticBatch if on_cuda and sees_all_columns(model) else Batch


def _run_if_it_fits(make: Callable[[], Batch]) -> list[Completion] | str:
    """What the batch gives, or, once it is gone, what the allocator said when its memory ran out."""
    try:
        return make().run()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return said


def _no_room(said: str, prompt_tokens: int, settings: Settings) -> ModelError:
    return ModelError(
        f"out of memory while completions are sampled, with one at a time: a prompt of {prompt_tokens} tokens and "
        f"max_new_tokens = {settings.max_new_tokens} ({' '.join(said.split())[:200]}). Lower max_new_tokens or "
        "data.max_length; in a run, train.merged_sampling = false saves a copy of the adapted weights. "
        "train.tokens_per_micro_batch changes nothing here"
    )


def _check(model: Any, prompts: Sequence[Sequence[int]], seeds: Sequence[int], settings: Settings) -> None:
    assert len(seeds) == len(prompts), "one seed a prompt"
    assert settings.max_new_tokens > 0
    assert settings.temperature >= 0
    assert 0 < settings.top_p <= 1
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for number, prompt in enumerate(prompts, start=1):
        if not prompt:
            raise DataError(f"prompt {number} of {len(prompts)} has no tokens: there is nothing to continue; remove it")
        over = len(prompt) + settings.max_new_tokens - (window or 2**62)
        if over > 0:
            raise DataError(
                f"prompt {number} of {len(prompts)} has {len(prompt)} tokens; with max_new_tokens = "
                f"{settings.max_new_tokens} that is {over} more than the model's window of {window}: lower "
                "max_new_tokens or shorten the prompt"
            )


def _rows_that_fit(model: Any, tokens_a_row: int) -> int:
    """How many rows of the key/value cache fit into memory, between 1 and ROWS_AT_ONCE."""
    config = model.config.get_text_config()
    weight = model.get_input_embeddings().weight
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # Keys and values of every layer.
    bytes_a_row = 2 * config.num_hidden_layers * heads * width * weight.element_size() * tokens_a_row
    room = CACHE_BYTES_AT_ONCE
    if weight.is_cuda:
        room = torch.cuda.mem_get_info(weight.device)[0] // 2
    return max(1, min(ROWS_AT_ONCE, int(room // bytes_a_row)))


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    """Eval mode, and back to what it was."""
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
