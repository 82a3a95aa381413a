"""The one batched sampler: completions of many prompts, each with the log-probs it was drawn with.

Invariants:
- A row's draws depend on its own seed alone: its uniforms are made from the seed before anything is run, and a token is
  the inverse of the cumulative distribution at its uniform. Neighbours change logits by rounding at most.
- Log-probs are of the whole distribution at the sampling temperature, in fp32, in nats, also where top_p restricts the
  draw; at temperature 0 (greedy) they are at temperature 1.
- The id that stopped a completion is part of it.

Prompts are sorted by length and end in the same column; they go through the model once, in groups of like length that
are padded on the left; finished rows leave the batch. Shapes: B rows of a batch, P distinct prompts of a group, T
tokens of its longest, R rows not finished, K columns of the cache in use, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from engine.errors import DataError, ModelError
from engine.model.attention import attention_mode
from engine.model.cache_trial import cache_holds_the_past, next_logits
from engine.model.decode_attention import sampling_attention
from engine.model.drawing import draw, uniforms
from engine.model.key_value_cache import PreallocatedCache
from engine.run.memory_words import is_out_of_memory

ROWS_AT_ONCE = 128
"""Rows of a batch where the caller names no number and memory allows it."""
PROMPT_TOKENS_AT_ONCE = 32_768
"""Prompt tokens, padding included, that go through the model at one time."""
LIKE_LENGTH, WORTHWHILE_TOKENS = 0.85, 256
"""A prompt shorter than this share of its group's longest begins a new group, once the group has so many tokens."""
CACHE_BYTES_AT_ONCE = 2 * 2**30
"""Size of the key/value cache of one batch on a CPU; on CUDA it is half of the free memory."""


@dataclass(frozen=True)
class Completion:
    """What was sampled for one prompt."""

    ids: list[int]
    """The sampled tokens, the one that stopped it included."""
    stopped: bool
    """True where it ended at a stop id, False where `max_new_tokens` cut it off."""
    log_probs: list[float]
    """Of each id, in nats, under the model at the sampling temperature."""


@dataclass(frozen=True)
class Settings:
    """How tokens are drawn."""

    max_new_tokens: int
    temperature: float
    """0 is greedy."""
    top_p: float
    """Draw from the smallest set of most probable tokens whose mass reaches this; 1 is all of them."""
    stop_ids: frozenset[int]
    pad_id: int


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
    with torch.no_grad(), attention_mode(model, sampling_attention(model)), _without_dropout(model):
        kind = _Batch if not prompts or cache_holds_the_past(model) else _UncachedBatch
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


class _Batch:
    """Rows that are sampled side by side until each has stopped."""

    def __init__(self, model: Any, prompts: list[Sequence[int]], seeds: list[int], settings: Settings) -> None:
        self._model = model
        self._settings = settings
        self._device = model.get_input_embeddings().weight.device
        self._prompts = prompts
        rows, steps = len(prompts), settings.max_new_tokens
        self._uniforms_BS = torch.stack([uniforms(seed, steps) for seed in seeds]).to(self._device)
        self._ids_BS = torch.zeros(rows, steps, dtype=torch.int64, device=self._device)
        self._log_probs_BS = torch.zeros(rows, steps, dtype=torch.float32, device=self._device)
        self._stops = torch.tensor(sorted(settings.stop_ids), dtype=torch.int64, device=self._device)
        self._row_of = list(range(rows))
        """Which row of the batch each row that is left is."""
        self._lengths = [steps] * rows
        self._stopped = [False] * rows

    def run(self) -> list[Completion]:
        """Sample every row to its end."""
        logits_RV, cache, pads = self._prefill()
        width = max(len(p) for p in self._prompts)
        first = 0
        for step in range(self._settings.max_new_tokens):
            ids_R = self._take(logits_RV, step)
            finished = torch.isin(ids_R, self._stops).tolist()
            if step + 1 == self._settings.max_new_tokens or all(finished):
                self._finish(finished, step)
                break
            if any(finished):
                kept = self._finish(finished, step)
                pads = [pads[place] for place in kept]
                first = min(pads)
                cache.keep_rows(kept, first_column=first)
                ids_R = ids_R[kept]
            logits_RV = self._step(ids_R, cache, pads, first, width + step)
        return self._completions()

    def _prefill(self) -> tuple[torch.Tensor, PreallocatedCache, list[int]]:
        """Run the distinct prompts; returns the logits (B, V) behind each row's prompt, and each row's padding."""
        width = max(len(p) for p in self._prompts)
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(self._prompts):
            rows_of.setdefault(tuple(prompt), []).append(row)
        cache = PreallocatedCache(
            self._model.config.get_text_config(),
            rows=len(self._prompts),
            prompt_columns=width,
            capacity=width + self._settings.max_new_tokens,
        )
        logits_BV: torch.Tensor | None = None
        for group in _groups_of_like_length(list(rows_of)):
            rows = [row for prompt in group for row in rows_of[prompt]]
            places = [i for i, prompt in enumerate(group) for _ in rows_of[prompt]]
            rows_B, expand_B = (torch.tensor(x, device=self._device) for x in (rows, places))
            cache.prefill(rows_B, expand_B)
            logits_PV = self._run_prompts(group, cache)
            if logits_BV is None:
                logits_BV = logits_PV.new_empty(len(self._prompts), logits_PV.shape[-1])
            logits_BV[rows_B] = logits_PV.index_select(0, expand_B)
        cache.prefill(None, None)
        assert logits_BV is not None
        return logits_BV, cache, [width - len(p) for p in self._prompts]

    def _run_prompts(self, group: list[tuple[int, ...]], cache: PreallocatedCache) -> torch.Tensor:
        """Logits (P, V) behind the last token of each prompt."""
        width = len(group[0])
        pads = [width - len(prompt) for prompt in group]
        padded = [[self._settings.pad_id] * pad + list(prompt) for pad, prompt in zip(pads, group, strict=True)]
        pads_P1 = torch.tensor(pads, device=self._device).unsqueeze(1)
        columns_T = torch.arange(width, device=self._device)
        output = self._model(
            input_ids=torch.tensor(padded, dtype=torch.int64, device=self._device),
            attention_mask=columns_T >= pads_P1 if any(pads) else None,
            position_ids=(columns_T - pads_P1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_PV: torch.Tensor = output.logits[:, -1]
        return logits_PV

    def _step(
        self, ids_R: torch.Tensor, cache: PreallocatedCache, pads: list[int], first: int, column: int
    ) -> torch.Tensor:
        """Logits (R, V) of the next token, from the last one, which lies in `column`."""
        pads_R1 = torch.tensor(pads, device=self._device).unsqueeze(1)
        columns_K = torch.arange(first, column + 1, device=self._device)
        output = self._model(
            input_ids=ids_R.unsqueeze(1),
            attention_mask=columns_K >= pads_R1 if max(pads) > first else None,
            position_ids=column - pads_R1,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_RV: torch.Tensor = output.logits[:, -1]
        return logits_RV

    def _take(self, logits_RV: torch.Tensor, step: int) -> torch.Tensor:
        """Draw one token a row and note it."""
        rows_R = torch.tensor(self._row_of, device=self._device)
        ids_R, log_probs_R = draw(
            logits_RV,
            self._uniforms_BS[rows_R, step],
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
        )
        self._ids_BS[rows_R, step] = ids_R
        self._log_probs_BS[rows_R, step] = log_probs_R
        return ids_R

    def _finish(self, finished: list[bool], step: int) -> list[int]:
        """Note which rows ended at this step; returns the places of those that are left, in their new order."""
        for place, over in enumerate(finished):
            if over:
                self._lengths[self._row_of[place]] = step + 1
                self._stopped[self._row_of[place]] = True
        left = len(finished) - sum(finished)
        last = [place for place in range(left, len(finished)) if not finished[place]]
        # A row that goes on keeps its place; the last ones move into the places that the finished ones leave.
        kept = [last.pop() if finished[place] else place for place in range(left)]
        self._row_of = [self._row_of[place] for place in kept]
        return kept

    def _completions(self) -> list[Completion]:
        ids, log_probs = self._ids_BS.tolist(), self._log_probs_BS.tolist()
        return [
            Completion(ids[b][:length], stopped, log_probs[b][:length])
            for b, (length, stopped) in enumerate(zip(self._lengths, self._stopped, strict=True))
        ]


class _UncachedBatch(_Batch):
    """The same where no cache holds the model's past: the whole of each row goes through the model for every token."""

    def run(self) -> list[Completion]:
        """Sample every row to its end."""
        sequences = [list(prompt) for prompt in self._prompts]
        for step in range(self._settings.max_new_tokens):
            ids_R = self._take(next_logits(self._model, [sequences[row] for row in self._row_of]), step)
            for row, token in zip(self._row_of, ids_R.tolist(), strict=True):
                sequences[row].append(token)
            if not self._finish(torch.isin(ids_R, self._stops).tolist(), step):
                break
        return self._completions()


def _groups_of_like_length(prompts: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Prompts that go through the model together, longest first: a new group where padding would cost too much."""
    group: list[tuple[int, ...]] = []
    for prompt in sorted(prompts, key=len, reverse=True):
        if group and len(prompt) < LIKE_LENGTH * len(group[0]) and len(group) * len(group[0]) >= WORTHWHILE_TOKENS:
            yield group
            group = []
        group.append(prompt)
    if group:
        yield group


def _run_if_it_fits(make: Callable[[], _Batch]) -> list[Completion] | str:
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
