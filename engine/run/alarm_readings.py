"""What alarms read off a run's own metric rows, as pure functions.

Owns each reading's definition. Invariants: nothing is read but metrics of `engine.run.metric_names`; the same rows give
the same reading, so a resumed run reads what it would have read; what may be noise is called uncertain. Which limit a
reading is held against is `engine.run.alarm_rules`', when it becomes an alarm `engine.run.alarm_standing`'s.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Row = tuple[int, Mapping[str, float]]
"""A step, and those of its metrics that a rule reads."""
Measure = Callable[[Sequence[Row], int], "Measured | None"]
"""(rows so far, the last one new; window) -> its reading, or None where the new row gives none."""
LATEST_STEPS = 10
"""Training accuracy is a mean over so many steps at most."""
_LEAST_STEPS = 3


@dataclass(frozen=True)
class Measured:
    """What a rule makes of a row and those before it."""

    value: float
    """The figure that is held against the threshold."""
    certain: bool = True
    """Whether it is more than noise; else it raises nothing."""
    words: str = ""
    """What it is made of; empty where the value says it all."""
    since: int | None = None
    """The first step that the value is of, where it is of several."""


def first_of(*names: str) -> Measure:
    """A rule on a single metric: the first of `names` that the row has."""

    def measure(rows: Sequence[Row], window: int) -> Measured | None:
        row = rows[-1][1]
        return next((Measured(row[name]) for name in names if name in row), None)

    return measure


def explained_variance(rows: Sequence[Row], window: int) -> Measured | None:
    """Explained variance, of steps in which the policy learns: before that the value is not used."""
    row = rows[-1][1]
    if "loss/policy_avg" not in row or "val/explained_variance" not in row:
        return None
    return Measured(row["val/explained_variance"])


def displacement(rows: Sequence[Row], window: int) -> Measured | None:
    """By how much the preferred answers have become less likely; it counts where the margin has grown meanwhile."""
    row = rows[-1][1]
    if "displacement/chosen" not in row or "rewards/margins" not in row:
        return None
    return Measured(-row["displacement/chosen"], certain=row["rewards/margins"] > 0.0)


def accuracy_gap(rows: Sequence[Row], window: int) -> Measured | None:
    """Accuracy on the pairs of the latest steps less that on held-out pairs; certain beyond two standard errors."""
    row = rows[-1][1]
    trained = [one["accuracy"] for _, one in rows[-LATEST_STEPS:] if "accuracy" in one]
    if "eval_accuracy" not in row or len(trained) < _LEAST_STEPS:
        return None
    accuracy, held_out = statistics.fmean(trained), row["eval_accuracy"]
    error = math.hypot(_standard_error(trained), row.get("eval_accuracy_standard_error", 0.0))
    gap = accuracy - held_out
    words = f"accuracy {accuracy:.3f} on training pairs, {held_out:.3f} on held-out pairs"
    return Measured(gap, certain=gap > 2.0 * error, words=words)


def share_lost(rows: Sequence[Row], window: int) -> Measured | None:
    """The largest share lost of what completions were at the beginning; certain where the reward has risen meanwhile
    by more than two standard errors."""
    if len(rows) < 2 * window:
        return None
    first, last = _columns(rows[:window]), _columns(rows[-window:])
    proxy = next((name for name in ("objective/raw_scores", "reward") if name in first and name in last), None)
    if proxy is None:
        return None
    before, now = statistics.fmean(first[proxy]), statistics.fmean(last[proxy])
    risen = now - before > 2.0 * math.hypot(_standard_error(first[proxy]), _standard_error(last[proxy]))
    ends = [{name: statistics.fmean(values) for name, values in columns.items()} for columns in (first, last)]
    lost = list(_lost(*ends))
    if not lost:
        return None
    share, what, a, b = max(lost)
    words = f"the reward has risen from {before:.3g} to {now:.3g} while {what} went from {a:.3g} to {b:.3g}"
    return Measured(share, certain=risen, words=words, since=rows[-window][0])


def _lost(first: Mapping[str, float], last: Mapping[str, float]) -> Iterator[tuple[float, str, float, float]]:
    """(share lost, of what, before, now) of each thing about the completions that both ends know.

    Half is lost where the length has doubled, where half of the distinct bigrams or of the trigrams that do not repeat
    one of the same completion are gone, where the entropy has been halved three times (healthy policies halve it, too),
    and where another score has fallen by half of its deviation.
    """
    for name in ("objective/response_length", "completions/mean_length"):
        for a, b in _both(name, first, last):
            yield 1.0 - a / b if b > 0 else 0.0, "the length in tokens", a, b
    for a, b in _both("completions/distinct_bigrams", first, last):
        yield 1.0 - b / a if a > 0 else 0.0, "the share of distinct bigrams", a, b
    for a, b in _both("completions/repeated_trigrams", first, last):
        yield 1.0 - (1.0 - b) / (1.0 - a) if a < 1 else 0.0, "the share of repeated trigrams", a, b
    before, now = _entropy(first), _entropy(last)
    if before is not None and now is not None:
        share = 1.0 - math.cbrt(max(now, 0.0) / before) if before > 0 else 0.0
        yield share, "the entropy of a token in nats", before, now
    for name in first:
        spread = first.get(f"{name.removesuffix('/mean')}/std", 0.0)
        if name.startswith("rewards/") and name.endswith("/mean") and spread > 0:
            for a, b in _both(name, first, last):
                yield (a - b) / spread, f"the score {name.removeprefix('rewards/').removesuffix('/mean')}", a, b


def _both(name: str, first: Mapping[str, float], last: Mapping[str, float]) -> list[tuple[float, float]]:
    return [(first[name], last[name])] if name in first and name in last else []


def _entropy(means: Mapping[str, float]) -> float | None:
    """Nats at a token."""
    if "objective/entropy" in means and means.get("objective/response_length"):
        return means["objective/entropy"] / means["objective/response_length"]
    return means.get("entropy")


def _columns(rows: Sequence[Row]) -> dict[str, list[float]]:
    """The values of each metric that every row has."""
    names = set.intersection(*(set(row) for _, row in rows))
    return {name: [row[name] for _, row in rows] for name in sorted(names)}


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def both_ends(rows: Sequence[Row], window: int) -> Sequence[Row]:
    """The first `window` rows, and of those after them the latest."""
    return [*rows[:window], *rows[window:][-window:]]
