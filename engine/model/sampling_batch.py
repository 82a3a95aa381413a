"""One batch of the sampler: its prompts go through the model once, then a token a row and step until each has stopped.

Owns the rows: their padding, their places in the cache, and what was drawn of each. Prompts end in the same column and
go through the model in groups of like length, padded on the left; equal prompts once for all of their rows. Invariant:
what a row draws depends on its prompt and its seed.

Shapes: B rows of a batch, P distinct prompts of a group, T tokens of its longest, R rows not finished, K columns of the
cache in use, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.model.cache_trial import next_logits
from engine.model.decode_attention import DECODE
from engine.model.drawing import draw, uniforms
from engine.model.key_value_cache import PreallocatedCache

LIKE_LENGTH, WORTHWHILE_TOKENS = 0.85, 256
"""A prompt shorter than this share of its group's longest begins a new group, once the group has so many tokens."""


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


class Batch:
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
        self._masked_here = sees_all_columns(model)
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
        for group in groups_of_like_length(list(rows_of)):
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
        seen = None
        if max(pads) > first:
            seen_RK = torch.arange(first, column + 1, device=self._device) >= pads_R1
            # A mask of the layers' own shape is taken as it is; of another, transformers asks the device about it.
            seen = seen_RK[:, None, None, :] if self._masked_here else seen_RK
        output = self._model(
            input_ids=ids_R.unsqueeze(1),
            attention_mask=seen,
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
        kept = compacted(finished)
        self._row_of = [self._row_of[place] for place in kept]
        return kept

    def _completions(self) -> list[Completion]:
        ids, log_probs = self._ids_BS.tolist(), self._log_probs_BS.tolist()
        return [
            Completion(ids[b][:length], stopped, log_probs[b][:length])
            for b, (length, stopped) in enumerate(zip(self._lengths, self._stopped, strict=True))
        ]


class UncachedBatch(Batch):
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


def compacted(finished: Sequence[bool]) -> list[int]:
    """The places of rows that go on, in their new order: the last ones move to where the finished ones were."""
    left = len(finished) - sum(finished)
    last = [place for place in range(left, len(finished)) if not finished[place]]
    return [last.pop() if finished[place] else place for place in range(left)]


def sees_all_columns(model: Any) -> bool:
    """Whether every layer attends to all before it, by `decode_attention`: then only padding has to be masked."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [])
    windowed = not kinds and getattr(config, "sliding_window", None) is not None
    return model.config._attn_implementation == DECODE and kinds <= {"full_attention"} and not windowed


def groups_of_like_length(prompts: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Prompts that go through the model together, longest first: a new group where padding would cost too much."""
    group: list[tuple[int, ...]] = []
    for prompt in sorted(prompts, key=len, reverse=True):
        if group and len(prompt) < LIKE_LENGTH * len(group[0]) and len(group) * len(group[0]) >= WORTHWHILE_TOKENS:
            yield group
            group = []
        group.append(prompt)
    if group:
        yield group
