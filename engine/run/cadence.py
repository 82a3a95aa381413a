"""How often a run evaluates, saves and probes.

Owns the arithmetic of "so many times a run" and of a probe that may take only a share of the run's time. Pure numbers:
refuses to look at a clock.
"""

from __future__ import annotations

import math

EVALUATIONS_A_RUN = 10
CHECKPOINTS_A_RUN = 10
PROBES_A_RUN = 4
NEWEST_STEP_COUNTS = 0.25
"""Of the pace that is told."""


def steps_between(every: int, total_steps: int, *, times: int) -> int:
    """`every` where it is set, else the widest distance in whole steps that happens at least `times` times a run (or
    at each step of a shorter run)."""
    return every or max(1, total_steps // times)


def probe_stretch(
    every: int, total_steps: int, *, seconds_a_step: float, seconds_a_probe: float, max_share: float
) -> int:
    """The k >= 1 for which probes at every k-th due step, with the first and the last of the run, take at most
    `max_share` of its time.

    With n probes of c seconds beside T seconds of everything else, n c / (n c + T) <= max_share. The first and the last
    are never given up, so a run that cannot afford even those two keeps them and no other.
    """
    due_between = (total_steps - 1) // every
    if max_share >= 1.0 or seconds_a_probe <= 0.0:
        return 1
    affordable = math.floor(max_share / (1.0 - max_share) * seconds_a_step * total_steps / seconds_a_probe)
    return due_between // (max(0, affordable - 2) + 1) + 1


def pace(before_s: float, step_s: float) -> float:
    """Seconds of a step of late, after one more that took `step_s`; 0 for either is not known.

    One slow step among others does not throw the time that is left about; a lasting change is told after a few steps.
    """
    if step_s <= 0:
        return before_s
    return before_s + NEWEST_STEP_COUNTS * (step_s - before_s) if before_s > 0 else step_s
