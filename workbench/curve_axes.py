"""What curves are drawn over: steps, trained tokens, episodes, or the time that the run has run.

Owns how a step becomes a place on another axis. Invariants: places never go back, whatever the clock did; a new point
costs only itself; over steps nothing is copied. Time is that between the lines of the metrics: a clock that was set
back counts nothing, nor does a gap of more than LONGEST_GAP_S (a run that lay stopped, a clock that jumped). Refuses to
know how an axis is drawn.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.run.method_names import ON_ROLLOUTS
from workbench.curve_columns import is_worth_numpy
from workbench.curves import CurveLog, Points
from workbench.value_axis import short_number

if TYPE_CHECKING:
    from engine.run.config import RunConfig

STEP, TOKENS, EPISODES, TIME = "step", "tokens", "episodes", "time"
NATS = "kl"
"""The KL to the reference, whose places are thousandths of a nat."""
KINDS = (STEP, TOKENS, EPISODES, TIME)
TOKEN_METRIC = "num_tokens"
LONGEST_GAP_S = 6 * 3600.0
"""Between two lines of one run; what lies longer apart was not run through."""


@dataclass(frozen=True)
class XAxis:
    """What is said below a panel."""

    kind: str = STEP

    @property
    def label(self) -> str:
        """At most six letters."""
        return {EPISODES: "epis.", NATS: "KL"}.get(self.kind, self.kind)

    def words(self, place: int) -> str:
        """A place: 1,320 steps, 1.2M tokens, 2:05:10 hours, 3.2 nats."""
        if self.kind == NATS:
            return f"{place / 1000:.3g}"
        if self.kind == TIME:
            seconds = place // 1000
            hours, rest = divmod(seconds, 3600)
            if place < 10_000:
                return f"{place / 1000:.1f}s"
            return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
        return f"{place:,}" if self.kind == STEP or place < 10_000 else short_number(float(place))


STEPS = XAxis()


def kinds_of(log: CurveLog, config: RunConfig | None) -> tuple[str, ...]:
    """What the curves of a run can be drawn over, steps first."""
    there = {
        STEP: True,
        TOKENS: bool(log.metrics.get(TOKEN_METRIC)),
        EPISODES: episodes_a_step(config) > 0,
        TIME: bool(log.times),
    }
    return tuple(kind for kind in KINDS if there[kind])


def episodes_a_step(config: RunConfig | None) -> int:
    """Rollouts that a step learns from; 0 for a method without rollouts."""
    if config is None or config.run.method not in ON_ROLLOUTS:
        return 0
    each = 1 if config.run.method == "ppo" else getattr(config, config.run.method).generations
    return int(config.train.batch_size * each)


class AxisView(Mapping[str, Points]):
    """The curves of a run over another axis: the same values, at other places. `follow` takes in what is new."""

    def __init__(self, kind: str, log: CurveLog, *, episodes: int = 0) -> None:
        self.axis = XAxis(kind)
        self._log = log
        self._episodes = episodes
        self._elapsed = _Elapsed()
        self._base: Points | None = None
        self._copies: dict[str, _Copy] = {}
        self.follow()

    def follow(self) -> None:
        """Take in new points; a past that has changed is taken anew."""
        base = self._base_now()
        if base is not self._base:
            self._base = base
            self._copies = {}

    def of(self, log: CurveLog) -> bool:
        """Whether it is a view of this log."""
        return log is self._log

    def place(self, step: int) -> int:
        """Where a step lies: where the last line up to it lies, 0 before the first."""
        if self.axis.kind == STEP:
            return step
        if self.axis.kind == EPISODES:
            return step * self._episodes
        base = self._base
        if base is None or not len(base):
            return 0
        at = bisect_right(base.steps, step, 0, len(base)) - 1
        return int(base.values[at]) if at >= 0 else 0

    def __getitem__(self, name: str) -> Points:
        points = self._log.metrics[name]
        if self.axis.kind == STEP:
            return points
        copy = self._copies.get(name)
        if copy is None or copy.source is not points:
            copy = self._copies[name] = _Copy(points)
        copy.follow(self, self._last_known())
        return copy.points

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._log.metrics))

    def __len__(self) -> int:
        return len(self._log.metrics)

    def _base_now(self) -> Points | None:
        if self.axis.kind == TOKENS:
            return self._log.metrics.get(TOKEN_METRIC)
        return self._elapsed.of(self._log.times) if self.axis.kind == TIME else None

    def _last_known(self) -> int | None:
        """The last step whose place is known: later points wait for theirs. None where every place is known."""
        if self.axis.kind == EPISODES:
            return None
        last = None if self._base is None else self._base.last()
        return -1 if last is None else last[0]


class _Elapsed:
    """Milliseconds that a run has run, at each of its steps."""

    def __init__(self) -> None:
        self._times: Points | None = None
        self._elapsed = Points()
        self._total = 0.0

    def of(self, times: Points) -> Points:
        if times is not self._times:
            self._times, self._elapsed, self._total = times, Points(), 0.0
        done, count = len(self._elapsed), len(times)
        if is_worth_numpy(count - done):
            self._take_many(times, done, count)
            return self._elapsed
        for place in range(done, count):
            gap = times.values[place] - times.values[place - 1] if place else 0.0
            self._total += gap if 0 < gap <= LONGEST_GAP_S else 0.0
            self._elapsed.steps.append(times.steps[place])
            self._elapsed.values.append(round(self._total * 1000))
        return self._elapsed

    def _take_many(self, times: Points, begin: int, end: int) -> None:
        import numpy as np

        from_one_before = max(0, begin - 1)
        gaps = np.diff(np.frombuffer(times.values[from_one_before:end], np.float64))
        gaps = np.where((gaps > 0) & (gaps <= LONGEST_GAP_S), gaps, 0.0)
        gaps = gaps if begin else np.concatenate([[0.0], gaps])
        totals = np.cumsum(np.concatenate([[self._total], gaps]))[1:]
        self._elapsed.steps.extend(times.steps[begin:end])
        self._elapsed.values.extend(array("d", np.rint(totals * 1000).tobytes()))
        self._total = float(totals[-1])


class _Copy:
    """One curve at other places."""

    def __init__(self, source: Points) -> None:
        self.source = source
        self.points = Points()

    def follow(self, view: AxisView, last_known: int | None) -> None:
        begin, end = len(self.points), len(self.source)
        if last_known is not None:
            end = bisect_right(self.source.steps, last_known, begin, end)
        if is_worth_numpy(end - begin):
            self._take_many(view, begin, end)
            return
        for place in range(begin, end):
            self.points.steps.append(view.place(self.source.steps[place]))
            self.points.values.append(self.source.values[place])

    def _take_many(self, view: AxisView, begin: int, end: int) -> None:
        import numpy as np

        wanted = np.frombuffer(self.source.steps[begin:end], np.int64)
        if view.axis.kind == EPISODES:
            found = wanted * view._episodes
        elif (base := view._base) is None or not (count := len(base)):
            found = np.zeros_like(wanted)
        else:
            steps = np.frombuffer(base.steps[:count], np.int64)
            places = np.frombuffer(base.values[:count], np.float64).astype(np.int64)
            at = np.searchsorted(steps, wanted, "right") - 1
            found = np.where(at >= 0, places[np.maximum(at, 0)], 0)
        self.points.steps.extend(array("q", found.tobytes()))
        self.points.values.extend(self.source.values[begin:end])


def value_at(points: Points | None, place: int) -> tuple[int, float] | None:
    """The value that stands at a place, and where it was measured: the last one up to it. None before the first."""
    if points is None:
        return None
    at = bisect_right(points.steps, place, 0, len(points)) - 1
    return (points.steps[at], points.values[at]) if at >= 0 else None
