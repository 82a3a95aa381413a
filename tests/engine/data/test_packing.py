"""Packing: every token once, nothing padded, targets where they belong."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.data.packing import Document, Span, fill_by_token_budget, pack


def test_layout_by_hand() -> None:
    batch = pack([Document.completion([5, 6], [7, 8]), Document([9, 10, 11], [True, False, True])])
    assert batch.ids_T.tolist() == [9, 10, 11, 5, 6, 7, 8]
    assert batch.positions_T.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert batch.spans == (Span(3, 4, 0, 0), Span(0, 3, 1, 0))
    assert batch.rows_N.tolist() == [4, 5, 1]
    assert batch.targets_N.tolist() == [7, 8, 11]
    assert batch.document_N.tolist() == [0, 0, 1]
    assert batch.last_rows_D.tolist() == [6, 2]
    assert batch.targets_per_document == (2, 1)
    assert batch.tokens == 7


PAIR = [Document.completion([5, 6], [7, 8]), Document.completion([5, 6], [9], shared=2)]


def test_a_shared_beginning_is_laid_down_once() -> None:
    batch = pack(PAIR)
    assert batch.ids_T.tolist() == [9, 5, 6, 7, 8]
    assert batch.positions_T.tolist() == [2, 0, 1, 2, 3]
    assert batch.spans == (Span(1, 4, 0, 0), Span(0, 1, 0, 2))
    # Both first answer tokens are predicted by the row of the prompt's last token.
    assert batch.rows_N.tolist() == [2, 3, 2]
    assert batch.targets_N.tolist() == [7, 8, 9]
    assert batch.last_rows_D.tolist() == [4, 0]
    assert batch.targets_per_document == (2, 1)


def test_apart_gives_each_document_its_own_beginning() -> None:
    batch = pack(PAIR)
    apart, back_T = batch.apart()
    assert apart.ids_T.tolist() == [5, 6, 9, 5, 6, 7, 8]
    assert apart.positions_T.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert apart.spans == (Span(3, 4, 0, 0), Span(0, 3, 1, 0))
    assert apart.ids_T[back_T].tolist() == batch.ids_T.tolist()
    assert back_T.tolist() == [2, 3, 4, 5, 6]


def test_a_document_that_begins_otherwise_than_its_trunk_is_refused() -> None:
    with pytest.raises(AssertionError, match="trunk"):
        pack([PAIR[0], Document.completion([5, 7], [9], shared=2)])


def test_the_first_token_of_a_document_is_never_a_target() -> None:
    batch = pack([Document([1, 2], [True, True]), Document([3], [True])])
    assert batch.targets_N.tolist() == [2]
    assert batch.targets_per_document == (1, 0)


def test_sums_by_document_keep_documents_without_targets() -> None:
    batch = pack([Document([1], [True]), Document([1, 2, 3], [False, True, True])])
    assert batch.sum_by_document(torch.tensor([0.5, 1.5])).tolist() == [0.0, 2.0]


def first_fit(sizes: list[int], budget: int) -> list[list[int]]:
    """The definition, tried group by group."""
    groups: list[list[int]] = []
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        for group in groups:
            if sum(sizes[i] for i in group) + sizes[item] <= budget:
                group.append(item)
                break
        else:
            groups.append([item])
    return [sorted(group) for group in groups]


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 120))
def test_each_item_goes_into_the_first_group_that_has_room(sizes: list[int], budget: int) -> None:
    assert fill_by_token_budget(sizes, budget) == first_fit(sizes, budget)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 60))
def test_every_item_lands_once_and_budgets_hold(sizes: list[int], budget: int) -> None:
    groups = fill_by_token_budget(sizes, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(sizes)))
    for group in groups:
        assert len(group) == 1 or sum(sizes[i] for i in group) <= budget
