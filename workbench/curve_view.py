"""How a person looks at the curves of a run: over which axis, which part of it, with which crosshair and smoothing.

Owns that state and what becomes of it as the run goes on. Invariants: the crosshair stands on a step that was written,
so its values are exact; what is paused shows nothing that came later, while everything is still collected; a window
that follows has the newest step in it. Refuses to know which panels there are, and how they are drawn.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import ChainMap
from collections.abc import Iterator, Mapping

from workbench.curve_axes import EPISODES, STEP, TIME, TOKENS, AxisView, XAxis, episodes_a_step, kinds_of
from workbench.curve_window import Window, followed, panned, zoomed
from workbench.curves import Event, Points, RunCurves, x_range
from workbench.plot_scene import SMOOTHINGS
from workbench.reward_against_kl import KEY, points_against_kl, reward_of
from workbench.run_watch import KL

CROSS_STOPS = 60
"""Steps of the crosshair from one end of what is shown to the other."""
ZOOM = 0.5
PAN = 0.25


class CurveView:
    """The look at one run. `follow` takes in what is new; the rest are a person's keys."""

    def __init__(self, curves: RunCurves) -> None:
        self._curves = curves
        self._kind = STEP
        self._axis = AxisView(STEP, curves.log)
        self._axis_log = curves.log
        self._total = 0
        self._over = False
        self._window: Window | None = None
        self.smoothing = "medium"
        self.log = False
        """A logarithmic axis of values."""
        self.following = True
        self.cross: int | None = None
        """The step of the crosshair."""
        self.paused_at: int | None = None
        """The last step when drawing was stopped."""
        self._held: _Held | None = None
        self._against = Points()
        self._against_state: object = None

    # What is shown.

    def follow(self, total_steps: int, *, over: bool) -> None:
        """Take in what is new; `over` says that the run has ended."""
        self._total, self._over = total_steps, over
        if self._curves.log is not self._axis_log:
            self._axis_log = self._curves.log
            self._axis = AxisView(self._kind, self._axis_log, episodes=episodes_a_step(self._curves.config))
            self._hold()
        self._axis.follow()
        if self._window is not None:
            whole = self._whole
            newest = self._axis.place(max(0, self.last_step))
            self._window = followed(self._window, whole, newest) if self.following else panned(self._window, whole, 0)

    @property
    def last_step(self) -> int:
        """The newest step that is shown."""
        last = self._axis_log.last_step
        return last if self.paused_at is None else min(last, self.paused_at)

    @property
    def x(self) -> XAxis:
        return self._axis.axis

    @property
    def metrics(self) -> Mapping[str, Points]:
        """Every curve over this axis, as far as it is shown, and that of the reward over the KL."""
        curves = self._axis if self._held is None else self._held
        against = self.against_kl
        return ChainMap({KEY: against}, curves) if len(against) else curves  # type: ignore[arg-type]

    @property
    def against_kl(self) -> Points:
        """The reward over the sampled KL; the same object while nothing was added."""
        metrics = self._axis_log.metrics
        reward = reward_of(metrics)
        state = [(id(points), len(points)) for name in (KL, reward) if (points := metrics.get(name)) is not None]
        if (state, reward) != self._against_state and self.paused_at is None:
            self._against_state = (state, reward)
            self._against = points_against_kl(metrics, reward)
        return self._against

    @property
    def shown(self) -> Window:
        """The part of the axis."""
        return self._window or self._whole

    @property
    def cross_place(self) -> int | None:
        """Where the crosshair is on this axis."""
        return None if self.cross is None else self._axis.place(self.cross)

    def events(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        """Events at their places on this axis."""
        if self._kind == STEP:
            return events
        return tuple(Event(self._axis.place(event.step), event.kind, event.words) for event in events)

    # Keys.

    def next_axis(self) -> str:
        """Another x axis; what it is over."""
        kinds = kinds_of(self._axis_log, self._curves.config)
        at = kinds.index(self._kind) if self._kind in kinds else 0
        self._kind = kinds[(at + 1) % len(kinds)]
        self._axis = AxisView(self._kind, self._axis_log, episodes=episodes_a_step(self._curves.config))
        self._window = None
        self._hold()
        return self._kind

    def next_smoothing(self) -> str:
        """Another strength; what it is called."""
        names = list(SMOOTHINGS)
        self.smoothing = names[(names.index(self.smoothing) + 1) % len(names)]
        return self.smoothing

    def zoom(self, inwards: bool) -> None:
        """Half as much of the axis, or twice as much, around the crosshair where there is one."""
        self._window = zoomed(self.shown, self._whole, ZOOM if inwards else 1 / ZOOM, self.cross_place)

    def pan(self, by: int) -> None:
        """A quarter of the window to the right or left; to the left it follows no more."""
        if self._window is not None:
            self._window = panned(self._window, self._whole, PAN * by)
            newest = self._axis.place(max(0, self.last_step))
            self.following = self._window.first <= newest <= self._window.last

    def whole(self) -> None:
        """All of the axis."""
        self._window = None
        self.following = True

    def go_to_newest(self) -> None:
        """Follow the newest step."""
        self.following, self.cross = True, None
        self.follow(self._total, over=self._over)

    def pause(self) -> bool:
        """Stop drawing what comes, or go on; whether it is paused now."""
        self.paused_at = None if self.paused_at is not None else max(0, self._axis_log.last_step)
        self._hold()
        return self.paused_at is not None

    def move_cross(self, by: int) -> None:
        """The crosshair by so many stops, of which there are CROSS_STOPS in what is shown; it begins at the newest."""
        steps = self._axis_log.steps
        begin = bisect_left(steps, self.shown.first, key=self._axis.place)
        end = min(bisect_right(steps, self.shown.last, key=self._axis.place), bisect_right(steps, self.last_step))
        if begin >= end:
            self.cross = None
            return
        if self.cross is None:
            self.cross = steps[end - 1]
            return
        stride = max(1, (end - begin) // CROSS_STOPS)
        at = bisect_right(steps, self.cross) - 1 + by * stride
        self.cross = steps[max(begin, min(end - 1, at))]

    def cross_words(self, events: tuple[Event, ...]) -> str:
        """Where the crosshair is on every axis, and what happened there."""
        if self.cross is None:
            return ""
        parts = [f"step {self.cross:,}"]
        for kind in (TOKENS, EPISODES, TIME):
            if kind in kinds_of(self._axis_log, self._curves.config):
                view = AxisView(kind, self._axis_log, episodes=episodes_a_step(self._curves.config))
                words = XAxis(kind).words(view.place(self.cross))
                parts.append(f"{words} of running" if kind == TIME else f"{words} {kind}")
        clock = self._clock()
        parts += [clock] if clock else []
        parts += [
            f"{event.kind}{f': {event.words}' if event.words else ''}" for event in events if event.step == self.cross
        ]
        return " · ".join(parts)

    def _hold(self) -> None:
        """While it is paused, the curves up to that step."""
        self._held = None if self.paused_at is None else _Held(self._axis, self._axis.place(self.paused_at))

    def _clock(self) -> str:
        """The clock time of the crosshair's step, where it was written down."""
        times = self._axis_log.times
        at = bisect_left(times.steps, self.cross or 0, 0, len(times))
        if at >= len(times) or times.steps[at] != self.cross:
            return ""
        try:
            return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(times.values[at]))
        except (OverflowError, ValueError, OSError):  # a clock that was far off
            return ""

    @property
    def _whole(self) -> Window:
        last = max(0, self.last_step)
        if self._kind == STEP:
            total = self._total if self.paused_at is None else 0
            return Window(*x_range(last, total, over=self._over))
        return Window(*x_range(self._axis.place(last), 0, over=self._over))


class _Held(Mapping[str, Points]):
    """Curves up to a place; what is appended to them later is not here."""

    def __init__(self, curves: Mapping[str, Points], last: int) -> None:
        self._curves = curves
        self._last = last
        self._cut: dict[str, Points] = {}

    def __getitem__(self, name: str) -> Points:
        if name not in self._cut:
            points = self._curves[name]
            end = bisect_right(points.steps, self._last, 0, len(points))
            self._cut[name] = Points(points.steps[:end], points.values[:end])
        return self._cut[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._curves)

    def __len__(self) -> int:
        return len(self._curves)
