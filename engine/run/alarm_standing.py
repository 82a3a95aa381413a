"""When readings become an alarm, and when it is over.

Owns what an alarm remembers between steps and the rule by which it is raised: once for each onset. Invariants: pure, so
that the standing in a checkpoint goes on after a resume as it would have gone on without; it is of a bounded size;
an alarm that stands is raised again only after a whole window of readings within its limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.run.alarm_readings import Measured, Row
from engine.run.alarm_rules import AlarmRule, Limits

_TOLD_VALUES = 6


@dataclass(frozen=True)
class Reading:
    """One figure of one alarm."""

    step: int
    value: float
    beyond: bool
    """On the wrong side of the threshold."""


@dataclass(frozen=True)
class Standing:
    """What an alarm knows after a step."""

    rows: tuple[Row, ...] = ()
    """Rows that later readings need."""
    readings: tuple[Reading, ...] = ()
    """The latest of a window."""
    good: int | None = None
    """Step of the last reading within the limit; None before the first."""
    onset: int | None = None
    """Since which step the alarm that was raised stands; None where none does."""

    @property
    def heard(self) -> int:
        """The last step that counts; -1 before the first. A step that is measured again is no new one."""
        return max((self.rows[-1][0] if self.rows else -1, self.readings[-1].step if self.readings else -1))

    def as_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        readings = [[one.step, one.value, one.beyond] for one in self.readings]
        return {"rows": [list(row) for row in self.rows], "readings": readings, "good": self.good, "onset": self.onset}

    @classmethod
    def of_json(cls, saved: Mapping[str, Any]) -> Standing:
        """What `as_json` gave."""
        rows = tuple((step, metrics) for step, metrics in saved["rows"])
        return cls(rows, tuple(Reading(*one) for one in saved["readings"]), saved["good"], saved["onset"])


@dataclass(frozen=True)
class Raised:
    """An alarm at the step at which it is raised."""

    rule: AlarmRule
    step: int
    onset: int
    """The first step that may be to blame: what the weights were before it was within the limit."""
    limits: Limits
    what: str
    """The figures, in a sentence."""


def advance(
    rule: AlarmRule, limits: Limits, before: Standing, step: int, metrics: Mapping[str, float]
) -> tuple[Standing, Raised | None]:
    """The standing after the metrics of `step`, and the alarm where it is raised now."""
    row = rule.takes(metrics)
    if not row or step <= before.heard:
        return before, None
    rows = (*before.rows, (step, row))
    found = rule.measure(rows, limits.window)
    now = replace(before, rows=tuple(rule.kept(rows, limits.window)))
    if found is None:
        return now, None
    beyond = rule.beyond(found, limits)
    now = replace(
        now,
        readings=(*before.readings, Reading(step, found.value, beyond))[-limits.window :],
        good=before.good if beyond else step,
    )
    full = len(now.readings) == limits.window
    if now.onset is not None:
        over = full and not any(one.beyond for one in now.readings)
        return replace(now, onset=None if over else now.onset), None
    if not beyond or (rule.in_a_row and not (full and all(one.beyond for one in now.readings))):
        return now, None
    onset = first_to_blame(rule, limits, now) if found.since is None else found.since
    assert onset is not None
    return replace(now, onset=onset), Raised(rule, step, onset, limits, _what(rule, limits, now, found))


def first_to_blame(rule: AlarmRule, limits: Limits, standing: Standing) -> int | None:
    """The onset that an alarm would have that were raised by the readings so far: the step behind the last one within
    the limit, or the first of the window; None before any. An alarm that stands blames what it has blamed."""
    if standing.onset is not None:
        return standing.onset
    if not rule.in_a_row:
        latest = standing.rows[-limits.window :]
        return latest[0][0] if latest else None
    if standing.good is not None:
        return standing.good + 1
    return standing.readings[0].step if standing.readings else None


def _what(rule: AlarmRule, limits: Limits, standing: Standing, found: Measured) -> str:
    side = "above" if rule.above else "below"
    threshold = f"{limits.threshold:.3g} {rule.unit}".strip()
    if not rule.in_a_row:
        return f"{found.words}: {rule.value} is {found.value:.2f}, {side} {threshold} (means of {limits.window} steps)"
    readings = standing.readings
    if len(readings) == 1:
        text = f"{rule.value} was {found.value:.3g} at step {readings[0].step}, {side} {threshold}"
    else:
        shown = ", ".join(f"{one.value:.3g}" for one in readings[-_TOLD_VALUES:])
        dots = "…, " if len(readings) > _TOLD_VALUES else ""
        text = (
            f"{rule.value} was {side} {threshold} in {len(readings)} {rule.readings} in a row, at step "
            f"{readings[0].step} to {readings[-1].step}: {dots}{shown}"
        )
    return f"{text} ({found.words})" if found.words else text
