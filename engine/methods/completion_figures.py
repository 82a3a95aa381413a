"""What a step's completions are like, whatever their scores: do they end, do they repeat themselves, do they differ.

Owns those figures. Invariant: they are counted on the host, from the token ids that the sampler has brought there, so
the device is not waited for. Shapes: n tokens of a completion.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.methods.method import Metric
from engine.model.sampler import Completion

_BITS = 21
"""Of a token id; three of them fill 63 bits, so that different n-grams never have the same key."""


def completion_figures(completions: Sequence[Completion]) -> dict[str, Metric]:
    """(sum, count) by name: completions cut off, trigrams repeated inside a completion, distinct bigrams of the step.

    Distinct-n as Li et al. 2016 (arXiv:1510.03055) count it: different bigrams by all bigrams, over all completions
    together. Completions shorter than an n-gram have none.
    """
    ids = [np.asarray(c.ids, dtype=np.int64) for c in completions]
    trigrams = [ngram_keys(each_n, 3) for each_n in ids]
    bigrams = np.concatenate([ngram_keys(each_n, 2) for each_n in ids]) if ids else np.zeros(0, np.int64)
    repeated = sum(len(each) - len(np.unique(each)) for each in trigrams)
    return {
        "completions/clipped_ratio": (float(sum(not c.stopped for c in completions)), float(len(completions))),
        "completions/repeated_trigrams": (float(repeated), float(sum(map(len, trigrams)))),
        "completions/distinct_bigrams": (float(len(np.unique(bigrams))), float(len(bigrams))),
    }


def ngram_keys(ids_n: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """A number for each run of `n` <= 3 tokens, equal where the tokens are; empty where there are too few."""
    assert n <= 3
    assert not len(ids_n) or int(ids_n.max()) < 1 << _BITS, "a token id of more than 21 bits"
    count = max(0, len(ids_n) - n + 1)
    keys: npt.NDArray[np.int64] = np.zeros(count, np.int64)
    for place in range(n):
        keys = (keys << _BITS) | ids_n[place : place + count]
    return keys
