"""What the varlen kernel of a GPU is handed: on a CPU, with the kernel's own definition in its place."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.data.packing import Document, PackedBatch, pack
from engine.model import attention
from engine.model.attention import DocumentLayout, packed_attention

DOCUMENTS = [
    Document.completion([5] * 6, [6] * 3),
    Document.completion([5] * 6, [7] * 5, shared=6),
    Document.completion([8] * 2, [9]),
    Document.completion([3] * 4, [4] * 5),
]
HEADS, KEY_HEADS, WIDTH = 4, 2, 8


def kernel(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, query_starts: torch.Tensor, key_starts: torch.Tensor,
    most_q: int, most_k: int, *, scale: float | None, window_size: tuple[int, int], enable_gqa: bool,
) -> torch.Tensor:  # fmt: skip
    """torch's varlen_attn by its description: a document's queries stand at the last of its keys."""
    assert query_starts.dtype == key_starts.dtype == torch.int32
    assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
    assert enable_gqa == (q.shape[1] != k.shape[1])
    left, right = window_size
    assert right == 0
    pieces = []
    for i in range(len(query_starts) - 1):
        own, seen = (slice(int(starts[i]), int(starts[i + 1])) for starts in (query_starts, key_starts))
        length, total = own.stop - own.start, seen.stop - seen.start
        assert length <= most_q
        assert total <= most_k
        queries, keys, values = (x.transpose(0, 1) for x in (q[own], k[seen], v[seen]))
        repeats = q.shape[1] // k.shape[1]
        keys, values = keys.repeat_interleave(repeats, 0), values.repeat_interleave(repeats, 0)
        back = torch.arange(total - length, total).unsqueeze(1) - torch.arange(total)
        hidden = (back < 0) | ((back > left) if left >= 0 else (back < 0))
        scores = queries @ keys.transpose(1, 2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        pieces.append((scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values).transpose(0, 1))
    return torch.cat(pieces)


def heads(batch: PackedBatch) -> list[torch.Tensor]:
    """Queries, keys and values as a model lays them out: (1, T, H, d) seen as (1, H, T, d)."""
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(1, batch.tokens, n, WIDTH, generator=generator, dtype=torch.float64).transpose(1, 2)
        for n in (HEADS, KEY_HEADS, KEY_HEADS)
    ]


@pytest.mark.parametrize("window", [None, 1, 4, 100])
def test_one_call_gives_what_the_documents_give_one_by_one(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    monkeypatch.setattr(attention, "_varlen_kernel", lambda: kernel)
    batch = pack(DOCUMENTS)
    layout = DocumentLayout.of(batch.spans, torch.device("cpu"))
    q, k, v = heads(batch)
    expected, _ = packed_attention(None, q, k, v, None, document_layout=layout, scaling=0.3, sliding_window=window)
    found = attention._varlen(q, k, v, layout, 0.3, window)
    assert found.shape == expected.shape == (1, batch.tokens, HEADS, WIDTH)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("width", "dtype", "expected"),
    [
        (64, torch.bfloat16, torch.bfloat16),
        (256, torch.float16, torch.float16),
        (64, torch.float32, None),
        (20, torch.bfloat16, None),
        (512, torch.bfloat16, None),
    ],
)
def test_the_kernel_is_asked_for_what_it_can_do(
    monkeypatch: pytest.MonkeyPatch, width: int, dtype: torch.dtype, expected: Any
) -> None:
    monkeypatch.setattr(attention, "_is_ampere", lambda device: True)
    q = v = torch.empty(1, 2, 3, width, dtype=dtype)
    assert attention._varlen_precision(q, v) == expected
    # Under autocast queries and keys are left in fp32 by the rotary embedding: the kernel gets autocast's precision.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (attention._varlen_precision(q, v) == torch.bfloat16) == (width in (64, 256))
    monkeypatch.setattr(attention, "_is_ampere", lambda device: False)
    assert attention._varlen_precision(q, v) is None


def test_the_installed_torch_has_a_kernel_with_all_that_is_asked_of_it() -> None:
    assert attention._varlen_kernel() is not None
