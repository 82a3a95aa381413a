"""Steps of fixed shape, as they are captured on CUDA, run without a graph: the same draws as the ordinary batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.model import static_decoding
from engine.model.attention import attention_mode
from engine.model.decode_attention import DECODE
from engine.model.key_value_cache import PreallocatedCache
from engine.model.sampling_batch import Batch, Completion, Settings, sees_all_columns
from engine.model.static_decoding import StaticBatch
from tests.engine.model.test_sampler import PROMPTS, SEEDS, STOPS


def run(kind: type[Batch], model: Any, **changes: Any) -> list[Completion]:
    settings = Settings(
        **{"max_new_tokens": 40, "temperature": 1.0, "top_p": 1.0, "stop_ids": STOPS, "pad_id": 3} | changes
    )
    with torch.no_grad(), attention_mode(model, DECODE):
        return kind(model, list(PROMPTS), list(SEEDS), settings).run()


@pytest.mark.parametrize(
    "changes", [{}, {"stop_ids": frozenset()}, {"temperature": 0.0}, {"top_p": 0.8}, {"max_new_tokens": 1}], ids=str
)
@pytest.mark.parametrize(("look_every", "columns"), [(16, 256), (3, 8), (1, 1)])
def test_the_same_draws(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], look_every: int, columns: int
) -> None:
    monkeypatch.setattr(static_decoding, "LOOK_EVERY", look_every)
    monkeypatch.setattr(static_decoding, "COLUMNS_AT_ONCE", columns)
    plain, static = (run(kind, tiny_model, **changes) for kind in (Batch, StaticBatch))
    assert [(c.ids, c.stopped) for c in static] == [(c.ids, c.stopped) for c in plain]
    for a, b in zip(static, plain, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-5)


def test_rows_leave_and_the_host_looks_rarely(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoding, "LOOK_EVERY", 4)
    looks, kept = [], []
    look, keep = StaticBatch._drop_finished, PreallocatedCache.keep_rows

    def counted(batch: StaticBatch, cache: PreallocatedCache, done: int) -> bool:
        looks.append(done)
        return look(batch, cache, done)

    def noted(cache: PreallocatedCache, rows: list[int], *, first_column: int) -> None:
        kept.append(rows)
        keep(cache, rows, first_column=first_column)

    monkeypatch.setattr(StaticBatch, "_drop_finished", counted)
    monkeypatch.setattr(PreallocatedCache, "keep_rows", noted)
    found = run(StaticBatch, tiny_model)
    assert looks == list(range(1, 1 + 4 * len(looks), 4))
    assert looks[-1] - 4 < max(len(c.ids) for c in found) <= looks[-1] + 3
    assert kept, "some rows end long before the last"
    assert all(2 * len(after) <= before for before, after in zip([7, *map(len, kept)], kept, strict=False))


def test_which_models_see_all_columns(tiny_model: Any) -> None:
    assert not sees_all_columns(tiny_model), "only inside the sampler's attention mode"
    with attention_mode(tiny_model, DECODE):
        assert sees_all_columns(tiny_model)
        tiny_model.config.sliding_window = 6
        assert not sees_all_columns(tiny_model)
        tiny_model.config.layer_types = ["full_attention"] * 2
        assert sees_all_columns(tiny_model)
        tiny_model.config.layer_types = ["full_attention", "sliding_attention"]
        assert not sees_all_columns(tiny_model)
