"""Keys and values of the tokens so far, in one block of memory per layer that is written in place.

A growing cache copies everything at each step; this one is as large as the batch can become and hands out views.
The places of finished rows are taken by the last rows, and columns that no row uses any more are left out
of the view, so a step costs what the rows that are left need. Every layer keeps all its tokens, also those that look
through a sliding window only: the mask hides what is too old.

Shapes: B rows at the start, R rows left, K tokens so far, C tokens at most, h key/value heads, d head width.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from engine.errors import ModelError

_ATTENTION_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}


class PreallocatedCache(Cache):
    """The cache of one batch: prefilled group by group, then one token a row and step."""

    def __init__(self, config: Any, *, rows: int, prompt_columns: int, capacity: int) -> None:
        """Prompts end in column `prompt_columns` - 1; `capacity` is the number of columns.

        Raises ModelError for a model that keeps more than keys and values (state-space and hybrid layers).
        """
        other = set(getattr(config, "layer_types", None) or []) - _ATTENTION_KINDS
        if other:
            raise ModelError(f"layers of kind {', '.join(sorted(other))} cannot be sampled from: only attention can")
        self.capacity = capacity
        layers = [_Layer(rows, prompt_columns, capacity) for _ in range(int(config.num_hidden_layers))]
        super().__init__(layers=layers)

    def prefill(self, rows_B: torch.Tensor | None, expand_B: torch.Tensor | None) -> None:
        """What the next forward pass computes fills rows `rows_B`: row rows_B[i] from row expand_B[i] of the pass.

        So equal prompts are worked once. None, None ends the prefill.
        """
        for layer in self.layers:
            layer.rows_B, layer.expand_B = rows_B, expand_B

    def fix_columns(self, column_1: torch.Tensor, columns: int) -> None:
        """From now on new tokens go into the column that `column_1` (1,) holds, and the first `columns` are handed out,
        whatever is in them: shapes and addresses stay the same from step to step.
        """
        for layer in self.layers:
            layer.column_1, layer.columns = column_1, columns

    def keep_rows(self, kept: list[int], *, first_column: int) -> None:
        """Row r becomes what row kept[r] >= r was; columns before `first_column` are forgotten."""
        into = [place for place, row in enumerate(kept) if place != row]
        moved = [kept[place] for place in into]
        for layer in self.layers:
            layer.keep_rows(into, moved, len(kept), first_column)


class _Layer(CacheLayerMixin):
    is_sliding = False

    def __init__(self, rows: int, prompt_columns: int, capacity: int) -> None:
        super().__init__()
        self.rows_B: torch.Tensor | None = None
        self.expand_B: torch.Tensor | None = None
        self.column_1: torch.Tensor | None = None
        self.columns = 0
        self._capacity = capacity
        self._rows = rows
        self._first = 0
        self._length = prompt_columns

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        shape = (self._rows, key_states.shape[1], self._capacity)
        # Columns of padding are masked, but nothing times the weight 0 is 0 only for numbers: memory may hold NaN.
        self.keys = key_states.new_zeros(*shape, key_states.shape[-1])
        self.values = value_states.new_zeros(*shape, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new tokens, return (R, h, K, d) of all of them; the prefill gets back what it gave."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        added = key_states.shape[2]
        if self.rows_B is not None:
            for block, new in ((self.keys, key_states), (self.values, value_states)):
                block[self.rows_B, :, self._length - added : self._length] = new.index_select(0, self.expand_B)
            return key_states, value_states
        if self.column_1 is not None:
            for block, new in ((self.keys, key_states), (self.values, value_states)):
                block[: self._rows].index_copy_(2, self.column_1, new)
            return self.keys[: self._rows, :, : self.columns], self.values[: self._rows, :, : self.columns]
        end = self._length + added
        self.keys[: self._rows, :, self._length : end] = key_states
        self.values[: self._rows, :, self._length : end] = value_states
        self._length = end
        return self.keys[: self._rows, :, self._first : end], self.values[: self._rows, :, self._first : end]

    def keep_rows(self, into: list[int], moved: list[int], rows: int, first_column: int) -> None:
        if into:
            used = slice(first_column, max(self._length, self.columns))
            for block in (self.keys, self.values):
                block[into, :, used] = block[moved, :, used]
        self._rows, self._first = rows, first_column

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return 0 if self.rows_B is not None else self._length - self._first

    def get_max_length(self) -> int:
        return self._capacity
