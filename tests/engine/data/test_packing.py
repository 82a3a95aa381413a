"""Packing: every token once, nothing padded, targets where they belong."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.data.packing import Document, fill_by_token_budget, pack


def test_layout_by_hand() -> None:
    batch = pack([Document.completion([5, 6], [7, 8]), Document([9, 10, 11], [True, False, True])])
    assert batch.ids_T.tolist() == [5, 6, 7, 8, 9, 10, 11]
    assert batch.positions_T.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch.lengths == (4, 3)
    assert batch.rows_N.tolist() == [1, 2, 5]
    assert batch.targets_N.tolist() == [7, 8, 11]
    assert batch.document_N.tolist() == [0, 0, 1]
    assert batch.last_rows_D.tolist() == [3, 6]
    assert batch.targets_per_document == (2, 1)
    assert batch.tokens == 7


def test_the_first_token_of_a_document_is_never_a_target() -> None:
    batch = pack([Document([1, 2], [True, True]), Document([3], [True])])
    assert batch.targets_N.tolist() == [2]
    assert batch.targets_per_document == (1, 0)


def test_sums_by_document_keep_documents_without_targets() -> None:
    batch = pack([Document([1], [True]), Document([1, 2, 3], [False, True, True])])
    assert batch.sum_by_document(torch.tensor([0.5, 1.5])).tolist() == [0.0, 2.0]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 60))
def test_every_item_lands_once_and_budgets_hold(sizes: list[int], budget: int) -> None:
    groups = fill_by_token_budget(sizes, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(sizes)))
    for group in groups:
        assert len(group) == 1 or sum(sizes[i] for i in group) <= budget
