"""Figures of completions against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from engine.methods.completion_figures import completion_figures, ngram_keys
from engine.model.sampler import Completion


def completion(ids: list[int], *, stopped: bool = True) -> Completion:
    return Completion(ids, stopped, [0.0] * len(ids))


def test_the_figures_are_those_counted_by_hand() -> None:
    found = completion_figures(
        [
            completion([5, 6, 5, 6, 5, 6]),  # trigrams 565? 5-6-5, 6-5-6, 5-6-5, 6-5-6: two of four repeat
            completion([7, 8], stopped=False),  # no trigram, one bigram
            completion([5, 6, 9]),  # 5-6-9 is new inside its completion; its bigram 5-6 is not new in the step
            completion([4]),
        ]
    )
    assert found["completions/clipped_ratio"] == (1.0, 4.0)
    assert found["completions/repeated_trigrams"] == (2.0, 5.0)
    # 5-6 and 6-5 five times, 7-8, 5-6 again, 6-9: four different ones of eight.
    assert found["completions/distinct_bigrams"] == (4.0, 8.0)


def test_largest_ids_do_not_collide() -> None:
    top = (1 << 21) - 1
    keys = ngram_keys(np.array([top, top, top - 1, top, top, top]), 3)
    assert len(set(keys.tolist())) == 4
    assert min(keys.tolist()) >= 0
    with pytest.raises(AssertionError):
        ngram_keys(np.array([1 << 21, 1, 1]), 3)


def test_nothing_to_count_gives_no_figure() -> None:
    assert completion_figures([completion([3], stopped=False)]) == {
        "completions/clipped_ratio": (1.0, 1.0),
        "completions/repeated_trigrams": (0.0, 0.0),
        "completions/distinct_bigrams": (0.0, 0.0),
    }
