"""Controls: what can be had on preference pairs without reading the prompt, and pairs whose verdicts say nothing.

Two length rules and a bag of words over the answer alone; a shuffle of the verdicts. A preference accuracy means
something only beside these. numpy only; deterministic.
"""

import random
import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

_TOKEN = re.compile(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]")
Row = Mapping[str, object]


def always_longer(rows: Sequence[Row]) -> float:
    """Share of pairs whose chosen answer has more characters; ties count half."""
    lengths = [(len(str(row["chosen"])), len(str(row["rejected"]))) for row in rows]
    return sum((chosen > rejected) + 0.5 * (chosen == rejected) for chosen, rejected in lengths) / len(lengths)


def always_shorter(rows: Sequence[Row]) -> float:
    """Share of pairs whose chosen answer has fewer characters; ties count half."""
    return 1.0 - always_longer(rows)


def bag_of_words(train: Sequence[Row], heldout: Sequence[Row], *, ridge: float = 1e-3, steps: int = 400) -> float:
    """Held-out accuracy of a logistic regression on the difference of word counts, chosen minus rejected.

    It is fitted on `train` by gradient descent with momentum on counts scaled to a root mean square of one; no
    intercept, since the order of a pair carries nothing. Ties count half.
    """
    texts = [str(row[side]) for row in train for side in ("chosen", "rejected")]
    vocabulary = sorted({token for text in texts for token in _TOKEN.findall(text)})
    column = {token: index for index, token in enumerate(vocabulary)}
    train_x, heldout_x = _differences(train, column), _differences(heldout, column)
    scale = np.sqrt((train_x**2).mean(axis=0)) + 1e-6
    train_x, heldout_x = train_x / scale, heldout_x / scale
    weights, velocity = np.zeros(len(column)), np.zeros(len(column))
    for _ in range(steps):
        push = 0.5 - 0.5 * np.tanh(0.5 * (train_x @ weights))
        gradient = -(push @ train_x) / len(train_x) + ridge * weights
        velocity = 0.9 * velocity - 0.1 * gradient
        weights = weights + velocity
    margins = heldout_x @ weights
    return float(np.mean((margins > 0) + 0.5 * (margins == 0)))


def all_controls(train: Sequence[Row], heldout: Sequence[Row]) -> dict[str, float]:
    """Accuracy on `heldout` of each control, by name."""
    return {
        "always_longer": always_longer(heldout),
        "always_shorter": always_shorter(heldout),
        "bag_of_words": bag_of_words(train, heldout),
    }


def shuffled_verdicts(rows: Sequence[Row], *, seed: int) -> list[dict[str, object]]:
    """`rows` with chosen and rejected exchanged in half of them, at random.

    Exactly half of each error type is exchanged (of an odd number, one more or fewer by chance), so that the shuffle
    itself favours no side of any error. It cannot make one reward model's accuracy land near 0.5: a model that has
    learned one strong feature is far from 0.5 on either side, as the sign it gave that feature fell.
    """
    draw = random.Random(seed)
    by_error: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_error.setdefault(str(row.get("error", "")), []).append(index)
    exchanged: set[int] = set()
    for members in by_error.values():
        half = len(members) // 2 + (len(members) % 2) * draw.randrange(2)
        exchanged.update(draw.sample(members, half))
    return [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if index in exchanged else dict(row)
        for index, row in enumerate(rows)
    ]


def _differences(rows: Sequence[Row], column: Mapping[str, int]) -> npt.NDArray[np.float64]:
    matrix = np.zeros((len(rows), len(column)))
    for index, row in enumerate(rows):
        for side, sign in (("chosen", 1.0), ("rejected", -1.0)):
            for token in _TOKEN.findall(str(row[side])):
                if token in column:
                    matrix[index, column[token]] += sign
    return matrix
