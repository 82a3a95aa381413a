"""Sampling in fixed shapes: one step as one CUDA graph, replayed until rows have ended, with no wait in between.

A decoded token of a small model is a few hundred kernels that each take microseconds, so launching them costs more than
running them. Here a whole step (model, draw, notes) works on tensors that stay where they are: rows, columns of the
cache and place in the series are numbers on the device, so the step is captured once and replayed. The host looks at
which rows have ended every LOOK_EVERY tokens only; those go on until then and their later tokens are cut off. Where few
rows are left, and where the columns of a bucket are used up, a step of another shape is captured.

Invariant: draws are those of `sampler`, to rounding, since every row has its own uniforms. On a CPU the same step runs
without a graph, which is how it is tested; on CUDA it has not run yet. Shapes: R rows, S steps, K columns in use.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.model.drawing import draw
from engine.model.key_value_cache import PreallocatedCache
from engine.model.sampling_batch import Batch, Completion, compacted

LOOK_EVERY = 16
"""Tokens between two looks of the host."""
COLUMNS_AT_ONCE = 256
"""Columns of the cache by which the part that is read grows."""
KEPT_SHARE = 0.5
"""Rows leave the batch where at most this share of them goes on: a step of fewer rows has to be captured first."""
_WARM_UPS = 2
"""Steps before a capture, in which kernels are chosen and workspaces made; torch asks for some."""


class StaticBatch(Batch):
    """A batch whose steps have fixed shapes."""

    _captured: tuple[tuple[int, int], Callable[[], None]] | None = None
    """The rows and columns that a step was made for, and the step."""

    def run(self) -> list[Completion]:
        """Sample every row to its end."""
        logits_BV, cache, pads = self._prefill()
        width = max(len(p) for p in self._prompts)
        steps = self._settings.max_new_tokens
        self._pads_R1 = torch.tensor(pads, device=self._device).unsqueeze(1)
        self._rows_R = torch.arange(len(pads), device=self._device)
        self._step_1 = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._ids_R1 = self._draw_and_note(logits_BV).unsqueeze(1)
        self._step_1 += 1
        done = 1
        while done < steps:
            if not self._drop_finished(cache, done):
                break
            column = width + done - 1
            columns = min(-(-(column + 1) // COLUMNS_AT_ONCE) * COLUMNS_AT_ONCE, cache.capacity)
            times = min(LOOK_EVERY, steps - done, columns - column)
            self._advance(cache, columns, width, times)
            done += times
        return self._cut_at_stops(done)

    def _advance(self, cache: PreallocatedCache, columns: int, width: int, times: int) -> None:
        """`times` steps that read `columns` of the cache."""
        shape = (len(self._rows_R), columns)
        if self._captured is None or self._captured[0] != shape:
            column_1 = self._step_1 + (width - 1)
            cache.fix_columns(column_1, columns)
            columns_K = torch.arange(columns, device=self._device)

            def step() -> None:
                torch.add(self._step_1, width - 1, out=column_1)
                seen_RK = (columns_K >= self._pads_R1) & (columns_K <= column_1)
                logits_RV = self._model(
                    input_ids=self._ids_R1,
                    attention_mask=seen_RK[:, None, None, :],
                    position_ids=column_1 - self._pads_R1,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits[:, -1]
                self._ids_R1.copy_(self._draw_and_note(logits_RV).unsqueeze(1))
                self._step_1.add_(1)

            self._captured = (shape, self._replayable(step))
        for _ in range(times):
            self._captured[1]()

    def _replayable(self, step: Callable[[], None]) -> Callable[[], None]:
        """`step` as a graph on CUDA, else itself. Warming up and capturing leave ids and place as they were."""
        if self._device.type != "cuda":
            return step
        ids_R1, step_1 = self._ids_R1.clone(), self._step_1.clone()
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                step()
                self._ids_R1.copy_(ids_R1)
                self._step_1.copy_(step_1)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        replay: Callable[[], None] = graph.replay
        return replay

    def _draw_and_note(self, logits_RV: torch.Tensor) -> torch.Tensor:
        """One token a row, (R,), noted at the present step."""
        place_R = self._rows_R * self._settings.max_new_tokens + self._step_1
        ids_R, log_probs_R = draw(
            logits_RV, self._uniforms_BS.view(-1)[place_R],
            temperature=self._settings.temperature, top_p=self._settings.top_p,
        )  # fmt: skip
        self._ids_BS.view(-1).index_copy_(0, place_R, ids_R)
        self._log_probs_BS.view(-1).index_copy_(0, place_R, log_probs_R)
        return ids_R

    def _drop_finished(self, cache: PreallocatedCache, done: int) -> bool:
        """Look which rows have ended; whether any goes on. Rows leave where enough of them can."""
        ended_R = torch.isin(self._ids_BS[self._rows_R, :done], self._stops).any(-1)
        ended: list[bool] = ended_R.tolist()
        left = ended.count(False)
        if left and left <= KEPT_SHARE * len(ended):
            kept = compacted(ended)
            places_R = torch.tensor(kept, device=self._device)
            cache.keep_rows(kept, first_column=0)
            self._rows_R = self._rows_R[places_R]
            self._pads_R1 = self._pads_R1[places_R]
            self._ids_R1 = self._ids_R1[places_R]
            self._captured = None
        return left > 0

    def _cut_at_stops(self, done: int) -> list[Completion]:
        """What each row drew up to its first stop."""
        stop_BS = torch.isin(self._ids_BS[:, :done], self._stops)
        first = torch.where(stop_BS.any(-1), stop_BS.int().argmax(-1), done - 1).tolist()
        self._lengths = [place + 1 for place in first]
        self._stopped = stop_BS.any(-1).tolist()
        return self._completions()
