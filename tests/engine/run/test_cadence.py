"""How often things happen in a run, by hand."""

from __future__ import annotations

import pytest

from engine.run.cadence import pace, probe_stretch, steps_between


@pytest.mark.parametrize(
    ("total", "expected"), [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (25, 2), (99, 9), (1000, 100)]
)
def test_at_least_ten_times_a_run(total: int, expected: int) -> None:
    every = steps_between(0, total, times=10)
    assert every == expected
    assert total // every >= min(10, total)


def test_what_is_set_is_taken() -> None:
    assert steps_between(7, 1000, times=10) == 7


def between(every: int, total: int) -> int:
    """Due steps between the first and the last."""
    return sum(step % every == 0 for step in range(1, total))


@pytest.mark.parametrize(
    ("seconds_a_probe", "expected"),
    [
        # 100 steps of 1.9 s and a share of 5 %: 0.05 / 0.95 * 190 = 10 s may go to probes.
        (1.0, 2),  # ten probes: eight between the first and the last, where nine are due
        (0.9, 1),  # eleven: all nine
        (3.0, 5),  # three: one, at step 50
        (4.0, 10),  # two: the first and the last alone
        (60.0, 10),
        (0.0, 1),
    ],
)
def test_probes_stretch_until_they_fit_their_share(seconds_a_probe: float, expected: int) -> None:
    stretch = probe_stretch(10, 100, seconds_a_step=1.9, seconds_a_probe=seconds_a_probe, max_share=0.0500001)
    assert stretch == expected
    spent = (2 + between(10 * stretch, 100)) * seconds_a_probe
    assert spent <= 10.01 or between(10 * stretch, 100) == 0


def test_a_share_of_one_never_stretches() -> None:
    assert probe_stretch(1, 100, seconds_a_step=0.001, seconds_a_probe=60.0, max_share=1.0) == 1


def test_the_pace_that_is_told_bears_a_slow_step_and_follows_a_lasting_change() -> None:
    assert pace(0.0, 2.0) == 2.0, "the first step is all that is known"
    assert pace(2.0, 0.0) == 2.0, "no step"
    assert pace(2.0, 10.0) == 4.0
    told = 2.0
    for _ in range(12):
        told = pace(told, 4.0)
    assert 3.9 < told < 4.0
