"""The words that only one of two texts has: exactly a longest common subsequence, and fast for long answers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.word_diff import MOST_WORDS, common, diff_words

WORDS = st.lists(st.sampled_from("abcd"), max_size=14)


def length_by_table(one: list[str], two: list[str]) -> int:
    """The textbook's table, Wagner and Fischer 1974."""
    table = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, first in enumerate(one):
        for j, second in enumerate(two):
            table[i + 1][j + 1] = table[i][j] + 1 if first == second else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@settings(max_examples=100)
@given(WORDS, WORDS)
def test_what_is_common_is_a_longest_common_subsequence(one: list[str], two: list[str]) -> None:
    left, right = common(one, two)
    assert [one[place] for place in sorted(left)] == [two[place] for place in sorted(right)]
    assert len(left) == length_by_table(one, two)


def test_ranges_are_of_the_text() -> None:
    left, right = "The red wheel turns.", "The old red wheel does not turn."
    found = diff_words(left, right)
    assert [left[begin:end] for begin, end in found.left] == ["turns"]
    assert [right[begin:end] for begin, end in found.right] == ["old", "does not turn"]
    assert (found.left_words, found.right_words, found.whole) == (1, 4, True)


def test_blanks_and_equal_texts_differ_in_nothing() -> None:
    assert diff_words("a  b", "a\nb")[:2] == ((), ())
    assert diff_words("", "")[:2] == ((), ())
    assert diff_words("", "a b").right == ((0, 3),)


def test_what_comes_after_many_words_is_not_compared_and_that_is_said() -> None:
    found = diff_words("w " * (MOST_WORDS + 5), "w " * MOST_WORDS + "x")
    assert (found.left, found.right, found.whole) == ((), (), False)
