"""Which examples each epoch takes where several sources are mixed by weights, and in which order.

Owns the arithmetic of shares. An epoch has as much (examples or tokens) as the sources hold together; of that each
source gives its share. Every source is an endless stream of its passes, each a shuffle of all its examples, and an
epoch goes on where the one before stopped: no example comes again before all of its source have come. Within an epoch
the streams are merged evenly, so that the shares hold at every step and not only at the end.

Invariant: all is a pure function of the sizes, the shares and the shuffles, which depend on (seed, source, pass). After
any number of epochs each source has given its share to within half an example. Torch-free; holds indices, no example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Shuffle = Callable[[int, int, int], Sequence[int]]
"""(source, pass, examples) -> the order of its examples in that pass."""


@dataclass(frozen=True)
class MixedSource:
    """One source of a mixture."""

    first: int
    """Index of its first example in the run's list; the others follow it."""
    sizes: Any
    """What each example counts for: 1, or its tokens; an array."""
    weight: float


class Mixture:
    """An endless stream of example indices; a position in it is one integer."""

    def __init__(self, sources: Sequence[MixedSource], shuffle: Shuffle) -> None:
        """Every source has at least one example, and its weight is > 0."""
        self._sources = sources
        self._shuffle = shuffle
        self._sizes = [np.asarray(source.sizes, dtype=np.float64) for source in sources]
        self._totals = [float(sizes.sum()) for sizes in self._sizes]
        weights = sum(source.weight for source in sources)
        self.shares = tuple(source.weight / weights for source in sources)
        """Of each source, adding up to 1."""
        self._even = [bool((sizes == sizes[0]).all()) for sizes in self._sizes]
        self._ends = [0]
        """Positions at which the epochs known so far begin."""

    def taken(self, source: int, epochs: float) -> int:
        """Examples that a source gives in so many epochs: an example counts where its middle lies within."""
        sizes, total = self._sizes[source], self._totals[source]
        passes, rest = divmod(epochs * sum(self._totals) * self.shares[source], total)
        if self._even[source]:
            part = int(rest / float(sizes[0]) + 0.5)
        else:
            in_order = sizes[np.asarray(self._shuffle(source, int(passes), len(sizes)))]
            part = int(np.searchsorted(np.cumsum(in_order) - in_order / 2, rest, side="right"))
        return int(passes) * len(sizes) + part

    def position(self, epochs: float) -> int:
        """Examples of all sources in so many epochs."""
        return sum(self.taken(source, epochs) for source in range(len(self._sources)))

    def place(self, position: int) -> tuple[int, int]:
        """(epoch, place in it) of a position."""
        while self._ends[-1] <= position:
            self._ends.append(self.position(len(self._ends)))
        epoch = int(np.searchsorted(self._ends, position, side="right")) - 1
        return epoch, position - self._ends[epoch]

    def order(self, epoch: int) -> list[int]:
        """The examples of an epoch, in order."""
        indices, keys = [], []
        for number, source in enumerate(self._sources):
            begin, end = self.taken(number, epoch), self.taken(number, epoch + 1)
            own = self._stretch(number, begin, end)
            sizes = self._sizes[number][own]
            # Its middle by the whole: sources that advance alike on this scale hold their shares at any point of it.
            keys.append((np.cumsum(sizes) - sizes / 2) / sizes.sum())
            indices.append(own + source.first)
        merged: list[int] = np.concatenate(indices)[np.argsort(np.concatenate(keys), kind="stable")].tolist()
        return merged

    def _stretch(self, number: int, begin: int, end: int) -> Any:
        """What a source gives from its `begin`-th example to before its `end`-th, counted over all its passes."""
        count = len(self._sizes[number])
        first = begin // count
        passes = [np.asarray(self._shuffle(number, p, count)) for p in range(first, -(-end // count))]
        whole = np.concatenate(passes) if passes else np.zeros(0, dtype=np.int64)
        return whole[begin - first * count : end - first * count]
