"""The numbers of a run as curves that grow while it is watched.

Owns the reading of metrics.jsonl piece by piece, one growing list of points for each metric, and what else is looked at
with them: the run's state and the events that belong on the axis. Invariants: the points are those that
`engine.run.metrics_log.read_metrics` would give, at any moment and after any resume; a reader in another thread sees
points that are appended or a whole new list, never one half changed; nothing is written. Values that are no finite
numbers are kept: they are gaps that must be seen.
"""

from __future__ import annotations

import math
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from engine.run.metrics_log import Supersession
from workbench.growing_lines import GrowingLines
from workbench.run_list import ALIVE, Run, RunSummary, summarise

if TYPE_CHECKING:
    from engine.run.config import RunConfig

MOST_METRICS = 2000
"""Names of metrics that are kept; a file with more is no log of a run."""
STATE_EVERY_S = 1.0
WORTH_COMPACTING_BYTES = 4 * 2**20
"""A shorter metrics.jsonl is read as fast as it is."""
LEAST_RANGE = 128
"""Steps on the x axis of a run that has just begun: its curves would else be drawn anew every few seconds."""
_FARTHEST_STEP = 2**53
_NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_ON_THE_AXIS = ("checkpoint", "resumed", "alarm")
LONGEST_EVENT = 400
"""Characters of what an event says that are kept."""


class Points:
    """The values of one metric by step, in order. Grows at its end; any other change makes a new object."""

    __slots__ = ("steps", "values")

    def __init__(self, steps: array[int] | None = None, values: array[float] | None = None) -> None:
        self.steps: array[int] = array("q") if steps is None else steps
        self.values: array[float] = array("d") if values is None else values

    def __len__(self) -> int:
        # A value is appended after its step, so that many of both are there.
        return len(self.values)

    def last(self) -> tuple[int, float] | None:
        """The newest step and its value; None where there is none."""
        count = len(self)
        return (self.steps[count - 1], self.values[count - 1]) if count else None


class CurveLog:
    """The points of every metric, from the lines of metrics.jsonl in the order in which they come."""

    def __init__(self) -> None:
        self.metrics: dict[str, Points] = {}
        self.times = Points()
        """Unix seconds of the steps that count, as far as their lines say them."""
        self.last_step = -1
        """The highest step that counts; -1 while there is none."""
        self.left_out = 0
        """Values of metrics beyond MOST_METRICS."""
        self.superseded = Supersession()
        self._seen: set[int] = set()
        self._steps: array[int] = array("q")
        self._attempts: array[int] = array("q")
        self._late: dict[int, tuple[int, dict[str, Any]]] = {}
        self._shared = False
        """Points have their steps in common, and so must not grow."""

    @classmethod
    def restored(
        cls, metrics: dict[str, Points], times: Points, steps: array[int], attempts: array[int], kept: Mapping[int, int]
    ) -> CurveLog:
        """The log as it was when its parts, `kept` being what `state` gave, were written down.

        Points may have `steps` itself for theirs, which saves a long log half of its memory, until a line comes.
        """
        log = cls()
        log._shared = any(points.steps is steps for points in (times, *metrics.values()))
        log.metrics, log.times, log._steps, log._attempts = metrics, times, steps, attempts
        for attempt, step in kept.items():
            log.superseded.note(attempt, step)
        log._seen = set(kept)
        log.last_step = steps[-1] if steps else -1
        return log

    def state(self) -> dict[int, int]:
        """From behind which step each attempt went on; with points, times, steps and attempts it is all there is."""
        return self.superseded.known()

    @property
    def attempts(self) -> array[int]:
        """Which attempt wrote each of `steps`."""
        return self._attempts

    @property
    def steps(self) -> array[int]:
        """The steps that count, in order; grows, and is another object after any other change."""
        return self._steps

    def take(self, lines: Iterable[dict[str, Any]]) -> None:
        """Take in lines of the log; those that are none are left out."""
        for line in lines:
            if self._shared:
                self._part()
            self._take(line)
        if self._late:
            self._merge_late()
        self.last_step = self._steps[-1] if self._steps else -1

    def _part(self) -> None:
        """Give all points steps of their own."""
        self._shared = False
        for name, points in self.metrics.items():
            self.metrics[name] = Points(points.steps[:], points.values[:])
        self.times = Points(self.times.steps[:], self.times.values[:])

    def _take(self, line: dict[str, Any]) -> None:
        attempt, kept = line.get("attempt"), line.get("resumed_from")
        if not _is_number(attempt):
            return
        if _is_number(kept):
            self._note(attempt, kept)
            return
        step = line.get("step")
        if not _is_number(step) or not isinstance(line.get("metrics"), dict):
            return
        self._note(attempt, step - 1)
        if not self.superseded.counts(attempt, step):
            return
        # Once a line came late, those after it wait with it, so that their order counts.
        if self._late or (self._steps and step <= self._steps[-1]):
            before = self._late.get(step)
            if before is None or attempt >= before[0]:
                self._late[step] = (attempt, line)
            return
        self._steps.append(step)
        self._attempts.append(attempt)
        if _is_time(at := line.get("time")):
            self.times.steps.append(step)
            self.times.values.append(at)
        known = self.metrics.get
        for name, value in line["metrics"].items() if not line.get("nonfinite") else _values(line):
            if type(value) is float or type(value) is int:
                points = known(name) or self._new(name)
                if points is not None:
                    points.steps.append(step)
                    points.values.append(value)

    def _new(self, name: str) -> Points | None:
        # Points without a value are false, too.
        if name not in self.metrics:
            if len(self.metrics) >= MOST_METRICS:
                self.left_out += 1
                return None
            self.metrics[name] = Points()
        return self.metrics[name]

    def _note(self, attempt: int, kept: int) -> None:
        """`attempt` went on after the step `kept`: what earlier attempts wrote beyond it is void."""
        if attempt in self._seen:
            return
        self._seen.add(attempt)
        self.superseded.note(attempt, kept)
        place = bisect_right(self._steps, kept)
        void = {
            step
            for step, by in zip(self._steps[place:], self._attempts[place:], strict=True)
            if not self.superseded.counts(by, step)
        }
        if len(void) == len(self._steps) - place:
            self._cut(place)
        elif void:
            self._replace(void, {})

    def _cut(self, place: int) -> None:
        """Forget the lines from `place` on."""
        if place == len(self._steps):
            return
        first = self._steps[place]
        for name, points in self.metrics.items():
            self.metrics[name] = _before(points, first)
        self.times = _before(self.times, first)
        self._steps, self._attempts = self._steps[:place], self._attempts[:place]

    def _merge_late(self) -> None:
        """Put the lines whose step is not beyond all others where they belong, all at once."""
        late, self._late = self._late, {}
        attempts = dict(zip(self._steps, self._attempts, strict=True))
        counting = {
            step: (attempt, line)
            for step, (attempt, line) in late.items()
            if self.superseded.counts(attempt, step) and attempt >= attempts.get(step, attempt)
        }
        self._replace(set(), counting)

    def _replace(self, void: set[int], new: Mapping[int, tuple[int, dict[str, Any]]]) -> None:
        """Forget the steps `void`, and put lines in the place of the steps `new`."""
        attempts = dict(zip(self._steps, self._attempts, strict=True))
        gone = void | set(new)
        wanted: dict[str, dict[int, float]] = {}
        for step, (attempt, line) in new.items():
            attempts[step] = attempt
            for name, value in _values(line):
                if self._new(name) is not None:
                    wanted.setdefault(name, {})[step] = value
        for step in void:
            attempts.pop(step, None)
        for name, points in list(self.metrics.items()):
            self.metrics[name] = _mended(points, gone, wanted.get(name, {}))
        times = {step: at for step, (_, line) in new.items() if _is_time(at := line.get("time"))}
        self.times = _mended(self.times, gone, times)
        self._steps = array("q", sorted(attempts))
        self._attempts = array("q", (attempts[step] for step in self._steps))


def _before(points: Points, step: int) -> Points:
    """The points before `step`: the same object where these are all."""
    keep = bisect_left(points.steps, step)
    return Points(points.steps[:keep], points.values[:keep]) if keep < len(points) else points


def _mended(points: Points, gone: set[int], new: Mapping[int, float]) -> Points:
    kept = {step: value for step, value in zip(points.steps, points.values, strict=True) if step not in gone}
    kept.update(new)
    steps = sorted(kept)
    return Points(array("q", steps), array("d", (kept[step] for step in steps)))


@dataclass(frozen=True)
class Event:
    """Something that happened at a step."""

    step: int
    kind: str
    """checkpoint, resumed, alarm, or knob: settings that were changed for what follows."""
    words: str = ""
    """What it says of itself; a stranger's text."""


@dataclass(frozen=True)
class Glance:
    """What there is to see of a run at one moment; two are equal where nothing has changed."""

    summary: RunSummary
    step: int
    """The last step of the metrics when the state was looked at."""
    revision: int
    """Counts the readings that found something new in the metrics."""
    more: bool
    """The metrics are not read to their end yet."""
    missing: bool
    """There is no metrics.jsonl (any more); the curves are what was read of it."""
    events: tuple[Event, ...] = ()


class RunCurves:
    """One run under watch. `look` is called from one thread; what it fills may be read from another."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.log = CurveLog()
        self.config: RunConfig | None = None
        """None before the first look, and where run.toml is damaged."""
        self._lines = GrowingLines(run.folder.metrics_path)
        self._event_lines = GrowingLines(run.folder.events_path)
        self._events: list[Event] = []
        self._changes = ""
        self._revision = 0
        self._summary: RunSummary | None = None
        self._step = -1
        self._looked_at = -math.inf
        self._asked_for_config = False
        self._settled = False
        """Whether it was seen to that the metrics of a run that is over are compacted."""

    def look(self) -> Glance:
        """Read what is new. Raises OSError where a file is there and cannot be read."""
        if not self._asked_for_config:
            self._asked_for_config = True
            self.config = _config_of(self.run)
            self._restore()
        batch = self._lines.read()
        if batch.anew:
            log = CurveLog()
            log.take(batch.lines)
            self.log = log
        elif batch.lines:
            self.log.take(batch.lines)
        if batch.anew or batch.lines:
            self._revision += 1
        self._read_events()
        now = time.monotonic()
        if self._summary is None or now - self._looked_at >= STATE_EVERY_S:
            self._looked_at = now  # first: what is asked of the run while it is read is seen by the next look
            self._summary, self._step = summarise(self.run), self.log.last_step
        self._compact(batch.more)
        return Glance(self._summary, self._step, self._revision, batch.more, self._lines.missing, tuple(self._events))

    def _compact(self, more: bool) -> None:
        """Have a long run that is over compacted in the background, once, so that it opens at once the next time."""
        over = self._summary is not None and self._summary.state not in ALIVE
        if over and not more and not self._settled and self._lines.offset >= WORTH_COMPACTING_BYTES:
            self._settled = True
            from workbench.compact_metrics import compact_later

            compact_later(self.run.folder)

    def _restore(self) -> None:
        """Begin with the compacted metrics, where there are any that hold."""
        if (self.run.folder.path / "metrics.parquet").is_file():
            from workbench.compact_metrics import load

            if (found := load(self.run.folder)) is not None:
                self.log, read = found
                self._lines.skip(read)
                self._revision += 1

    def forget_state(self) -> None:
        """Ask for the run's state again at the next look, because something was just asked of the run."""
        self._looked_at = -math.inf

    def _read_events(self) -> None:
        batch = self._event_lines.read()
        if batch.anew:
            self._events, self._changes = [], ""
        for line in batch.lines:
            step, kind = line.get("step"), line.get("kind")
            if kind == "settings_changed":
                self._changes = _changes_told(line.get("changes"))
            elif _is_number(step) and isinstance(kind, str) and kind in _ON_THE_AXIS:
                self._events.append(Event(step, kind, str(line.get("what", ""))[:LONGEST_EVENT]))
                if kind == "resumed" and self._changes:
                    self._events.append(Event(step, "knob", self._changes))
                    self._changes = ""


def _changes_told(changes: object) -> str:
    """optim.lr 1e-4 → 5e-5, of every setting that a resume changed."""
    if not isinstance(changes, dict):
        return "settings"
    told = [
        f"{key} {both[0]} → {both[1]}" for key, both in changes.items() if isinstance(both, list) and len(both) == 2
    ]
    return ", ".join(told)[:LONGEST_EVENT] or "settings"


def x_range(last_step: int, total_steps: int, *, over: bool) -> tuple[int, int]:
    """First and last step of the x axis.

    While a run goes on the axis ends at a power of two, so that it changes only when the run has doubled; never beyond
    the run's own end. A run that is over ends where it ends.
    """
    if over:
        return 0, max(1, last_step)
    end = LEAST_RANGE
    while end < last_step:
        end *= 2
    if total_steps and total_steps >= last_step:
        end = min(end, total_steps)
    return 0, max(1, end)


def _config_of(run: Run) -> RunConfig | None:
    from engine.errors import EngineError

    try:
        return run.config()
    except (EngineError, OSError, ValueError):
        return None


def _is_number(value: object) -> TypeGuard[int]:
    return type(value) is int and -_FARTHEST_STEP < value < _FARTHEST_STEP


def _is_time(value: object) -> TypeGuard[float]:
    """Whether it is a clock time: 0 stands for one that nobody knows."""
    return (type(value) is float or type(value) is int) and value > 0


def _values(line: dict[str, Any]) -> Iterable[tuple[str, float]]:
    nonfinite = line.get("nonfinite")
    kinds = nonfinite if isinstance(nonfinite, dict) else {}
    for name, value in line["metrics"].items():
        if type(value) is float or type(value) is int:
            yield name, value if name not in kinds else _NONFINITE.get(kinds[name], value)
    for name, kind in kinds.items():
        if kind in _NONFINITE and type(line["metrics"].get(name)) not in (int, float):
            yield name, _NONFINITE[kind]
