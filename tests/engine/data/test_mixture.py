"""Sources that are mixed by weights: shares that hold at every step, whole passes, and nothing but (seed, epoch)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from engine.data.mixture import MixedSource, Mixture

DRAW = random.Random(7)
LENGTHS = [DRAW.randrange(3, 40) for _ in range(50)] + [DRAW.randrange(50, 90) for _ in range(10)]


def shuffled(source: int, number: int, examples: int) -> list[int]:
    order = list(range(examples))
    random.Random(f"{source} {number}").shuffle(order)
    return order


def in_file_order(source: int, number: int, examples: int) -> list[int]:
    return list(range(examples))


def by_rows(*sources: tuple[int, float], shuffle: object = shuffled) -> Mixture:
    """Of (examples, weight)."""
    mixed, first = [], 0
    for examples, weight in sources:
        mixed.append(MixedSource(first, [1] * examples, weight))
        first += examples
    return Mixture(mixed, shuffle)  # type: ignore[arg-type]


def by_tokens(weights: Sequence[float] = (0.2, 0.8)) -> Mixture:
    """The first source has 50 examples, the second 10."""
    return Mixture([MixedSource(0, LENGTHS[:50], weights[0]), MixedSource(50, LENGTHS[50:], weights[1])], shuffled)


def stream(mixture: Mixture, epochs: int) -> list[int]:
    return [index for epoch in range(epochs) for index in mixture.order(epoch)]


def test_worked_by_hand() -> None:
    """Four rows and two, half and half: six an epoch, three of each, the small source one and a half times."""
    mixture = by_rows((4, 1.0), (2, 1.0), shuffle=in_file_order)
    assert mixture.order(0) == [0, 4, 1, 5, 2, 4]
    assert mixture.order(1) == [3, 5, 0, 4, 1, 5]
    assert mixture.order(2) == [2, 4, 3, 5, 0, 4]
    assert mixture.place(7) == (1, 1)


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1.0, 1.0), (3.0, 97.0), (1e-2, 1.0)])
def test_shares_of_rows_hold_to_within_a_row_at_every_step(weights: tuple[float, float]) -> None:
    mixture = by_rows((90, weights[0]), (20, weights[1]))
    share = weights[0] / sum(weights)
    assert mixture.shares[0] == share
    seen = 0
    for position, index in enumerate(stream(mixture, 5), start=1):
        seen += index < 90
        assert abs(seen - share * position) <= 1 + 1e-9
    assert abs(mixture.position(5) - 5 * 110) <= 1


def test_shares_of_tokens_hold_to_within_an_example() -> None:
    mixture, longest, whole = by_tokens(), max(LENGTHS), sum(LENGTHS)
    taken = [0, 0]
    for epoch in range(1, 6):
        for index in mixture.order(epoch - 1):
            taken[index >= 50] += LENGTHS[index]
            assert abs(taken[0] - 0.2 * sum(taken)) <= longest
        for source, share in enumerate((0.2, 0.8)):
            assert abs(taken[source] - epoch * share * whole) <= longest / 2
    assert mixture.taken(0, 1.0) / mixture.position(1.0) > 0.4  # of the examples, which are shorter there


@pytest.mark.parametrize("mixture", [by_rows((50, 0.2), (10, 0.8)), by_tokens()], ids=["rows", "tokens"])
def test_no_example_comes_again_before_its_source_is_used_up(mixture: Mixture) -> None:
    indices = stream(mixture, 12)
    for first, count in ((0, 50), (50, 10)):
        own = [index - first for index in indices if first <= index < first + count]
        passes = [own[i : i + count] for i in range(0, len(own), count)]
        assert len(passes) > 2
        for one in passes[:-1]:
            assert sorted(one) == list(range(count))
        assert len(set(passes[-1])) == len(passes[-1])
        assert all(one != other for one, other in pairwise(passes))


def test_an_epoch_does_not_depend_on_what_was_asked_before() -> None:
    for make in (by_tokens, lambda: by_rows((5, 0.4), (7, 0.6))):
        known = make()
        epochs = [known.order(epoch) for epoch in range(6)]
        fresh = make()
        assert [fresh.order(epoch) for epoch in (5, 0, 3)] == [epochs[5], epochs[0], epochs[3]]
        places = [(epoch, i) for epoch, order in enumerate(epochs) for i in range(len(order))]
        fresh = make()
        for position in (len(places) - 1, 0, 7):
            assert fresh.place(position) == places[position]


def test_a_source_may_give_nothing_for_whole_epochs() -> None:
    mixture = by_rows((10, 0.99), (1, 0.01))
    given = [10 in mixture.order(epoch) for epoch in range(30)]
    assert not given[0]
    assert sum(given) == 3
