"""Sketches estimate the similarity they claim to, and near rows are found while far ones are not."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from workbench.near_duplicates import (
    PER_PART,
    SHINGLE_BYTES,
    SHORTEST_BYTES,
    THRESHOLD,
    Sketches,
    normal,
    sketch,
)


def text(rng: random.Random, words: int) -> str:
    return " ".join("".join(rng.choices("abcdefgh", k=rng.randint(2, 9))) for _ in range(words))


def changed(rng: random.Random, original: str, words: int) -> str:
    """The text with so many of its words replaced."""
    parts = original.split()
    for place in rng.sample(range(len(parts)), words):
        parts[place] = "".join(rng.choices("ijklmnop", k=6))
    return " ".join(parts)


def jaccard(first: bytes, second: bytes) -> float:
    one, other = ({t[i : i + SHINGLE_BYTES] for i in range(len(t) - SHINGLE_BYTES + 1)} for t in (first, second))
    return len(one & other) / len(one | other)


def test_the_share_of_equal_hashes_estimates_the_similarity() -> None:
    """Over 196 pairs the mean error is within three standard errors of none, and the spread is the stated one."""
    rng = random.Random(1)
    originals = [text(rng, 120) for _ in range(196)]
    others = [changed(rng, one, rng.randint(1, 60)) for one in originals]
    pairs = [(normal(one), normal(other)) for one, other in zip(originals, others, strict=True)]
    true = np.array([jaccard(*pair) for pair in pairs])
    first, second = sketch([one for one, _ in pairs]), sketch([other for _, other in pairs])
    errors = (first == second).mean(axis=1) - true
    stated = np.sqrt(true * (1 - true) / PER_PART)
    assert np.ptp(true) > 0.6
    assert abs(errors.mean()) < 3 * errors.std() / 14
    assert 0.8 < (errors / stated).std() < 1.2


@pytest.mark.parametrize("words", [14, 120])
def test_near_rows_are_found_and_far_ones_are_not(tmp_path: Path, words: int) -> None:
    rng = random.Random(2)
    originals = [text(rng, words) for _ in range(300)]
    near = [changed(rng, one, max(1, words // 60)) + "." for one in originals[:100]]
    far = [changed(rng, one, words // 2) for one in originals[100:200]]
    rows = [*originals, *near, *far]
    sketches = Sketches(tmp_path / "s", 1)
    for row in rows:
        sketches.add(normal(row))
    found = sketches.near_pairs(lambda early, late: np.ones(len(early), bool))
    sketches.close()
    assert not (tmp_path / "s").exists()
    true = {(later, earlier) for later in range(300, 500) for earlier in [later - 300]
            if jaccard(normal(rows[later]), normal(rows[earlier])) >= THRESHOLD + 0.07}  # fmt: skip
    told = {(int(row), int(other)) for row, other, _ in found}
    assert len(true) >= (60 if words > 100 else 1)
    assert len(true - told) <= len(true) // 50
    assert all(jaccard(normal(rows[row]), normal(rows[other])) > THRESHOLD - 0.15 for row, other in told)


def test_every_part_must_be_near(tmp_path: Path) -> None:
    rng = random.Random(3)
    prompt, answer = text(rng, 200), text(rng, 30)
    sketches = Sketches(tmp_path / "s", 2)
    half = changed(rng, answer, 5)  # near enough to be looked at
    assert 0.55 < jaccard(normal(answer), normal(half)) < 0.75
    for one in (answer, text(rng, 30), changed(rng, answer, 1), half):
        sketches.add(normal(prompt), normal(one))
    found = sketches.near_pairs(lambda early, late: np.ones(len(early), bool))
    sketches.close()
    assert [(int(row), int(other)) for row, other, _ in found] == [(2, 0)]


def test_short_texts_are_compared_as_they_are() -> None:
    short = "What is the capital of France?"
    assert len(short) < SHORTEST_BYTES
    same, other, empty = sketch([normal(short), normal("what is  the capital of FRANCE?"), b""]), sketch(
        [normal("What is the capital of Greece?"), b"x", b""]
    ), None  # fmt: skip
    assert empty is None
    assert (same[0] == same[1]).all()
    assert (same[0] == other[0]).mean() < 0.05
    assert (same[2] == other[2]).all()


def test_a_sketch_does_not_depend_on_what_is_sketched_with_it() -> None:
    rng = random.Random(4)
    rows = [normal(text(rng, count)) for count in (3, 9, 50, 200, 0, 12)]
    together = sketch(rows)
    assert all((sketch([row])[0] == together[place]).all() for place, row in enumerate(rows))
