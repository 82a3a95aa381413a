"""The curves of several runs in the same panels, and how a person looks at them.

Owns which panels there are, which colour, line and letter a run has, and the part of the axis. Invariants: a run keeps
its letter while the choice of runs is the same; no two of up to 28 runs have the same colour and line, and letters tell
them apart where there is no colour; a mean is of runs that differ by their seed alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from workbench.curve_axes import KINDS, STEP, AxisView, XAxis, episodes_a_step, kinds_of
from workbench.curve_panels import Panel, Trace, panels_of
from workbench.curve_window import Window, panned, zoomed
from workbench.curves import Points, RunCurves
from workbench.panel_limits import with_limits
from workbench.plot_canvas import RUNS
from workbench.plot_scene import SMOOTHINGS, Scene
from workbench.reward_against_kl import KEY, panel_against_kl, points_against_kl, reward_of, scene_against_kl
from workbench.run_comparison import why_not_comparable
from workbench.run_comparison_choice import GroupCurve, mean_curve
from workbench.run_watch import KL
from workbench.several_runs import Seen, letter_of

STYLES = ("line", "dashes", "dots", "long-dashes")
CROSS_STOPS = 60


class _Curves(Mapping[str, Points]):
    """Curves by their name, each made when it is asked for: of many panels few are shown."""

    def __init__(self) -> None:
        self._made: dict[str, Callable[[], Points]] = {}

    def name(self, name: str, made: Callable[[], Points]) -> None:
        """Call a curve so, whoever makes it."""
        self._made[name] = made

    def __getitem__(self, name: str) -> Points:
        return self._made[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


@dataclass(frozen=True)
class _Drawn:
    """What is drawn, whatever part of it is looked at."""

    grouped: bool
    panels: tuple[Panel, ...]
    against: Panel | None
    curves: _Curves


def trace_of_run(metric: str, mark: int) -> Trace:
    """A curve with the letter, line and colour of the run of this number."""
    return Trace(metric, "", STYLES[mark % len(STYLES)], True, ink=mark % len(RUNS), letter=letter_of(mark))


class OverlayView:
    """The look at several runs. `take` takes in what was seen; the rest are a person's keys."""

    def __init__(self) -> None:
        self.kind = STEP
        self.grouped = True
        """Runs that differ by their seed alone are one curve, their mean with its standard error."""
        self.log = False
        self.smoothing = "medium"
        self.cross: int | None = None
        """Where the crosshair is, on this axis."""
        self._seen: Seen | None = None
        self._along: dict[tuple[RunCurves, str], AxisView] = {}
        """Each run along each axis that was looked along."""
        self._means: dict[tuple[str, tuple[int, ...]], tuple[tuple[object, ...], GroupCurve]] = {}
        self._window: Window | None = None
        self._drawn: _Drawn | None = None
        """What a key that does not choose other curves finds made."""
        self._against: dict[int, tuple[tuple[object, ...], Points]] = {}

    def take(self, seen: Seen) -> None:
        """What there is now."""
        self._seen, self._drawn = seen, None
        self._along = {key: view for key, view in self._along.items() if key[0] in seen.runs}
        self._look_along()

    def _look_along(self) -> None:
        """See every run along the axis; one that was seen so before is only followed."""
        assert self._seen is not None
        for run in self._seen.runs:
            view = self._along.get((run, self.kind))
            if view is None or not view.of(run.log):
                view = self._along[run, self.kind] = AxisView(self.kind, run.log, episodes=episodes_a_step(run.config))
            view.follow()

    def _view(self, run: RunCurves) -> AxisView:
        return self._along[run, self.kind]

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Places of the runs of each curve."""
        if self._seen is None:
            return ()
        return self._seen.groups if self.grouped else tuple((place,) for place in range(len(self._seen.runs)))

    @property
    def has_groups(self) -> bool:
        return self._seen is not None and any(len(group) > 1 for group in self._seen.groups)

    @property
    def shown(self) -> Window:
        return self._window or self._whole

    def next_axis(self) -> str:
        """Another x axis, of those that every run has."""
        if self._seen is None:
            return self.kind
        there = [set(kinds_of(run.log, run.config)) for run in self._seen.runs]
        kinds = [kind for kind in KINDS if all(kind in some for some in there)]
        self.kind = kinds[(kinds.index(self.kind) + 1) % len(kinds)] if self.kind in kinds else STEP
        self._window = self.cross = None
        self._look_along()
        return self.kind

    def next_smoothing(self) -> str:
        names = list(SMOOTHINGS)
        self.smoothing = names[(names.index(self.smoothing) + 1) % len(names)]
        return self.smoothing

    def zoom(self, inwards: bool) -> None:
        self._window = zoomed(self.shown, self._whole, 0.5 if inwards else 2.0, self.cross)

    def pan(self, by: int) -> None:
        if self._window is not None:
            self._window = panned(self._window, self._whole, 0.25 * by)

    def whole(self) -> None:
        self._window = None

    def move_cross(self, by: int) -> None:
        """The crosshair by so many stops; it begins at the right end."""
        shown = self.shown
        at = shown.last if self.cross is None else self.cross + by * max(1, shown.span // CROSS_STOPS)
        self.cross = max(shown.first, min(shown.last, at))

    def cross_words(self) -> str:
        return "" if self.cross is None else f"{self.kind} {XAxis(self.kind).words(self.cross)}"

    def drawn(self) -> tuple[list[Scene], Mapping[str, Points]]:
        """The scenes, and the curves that they name."""
        if self._seen is None or not self._seen.runs:
            return [], {}
        made = self._made()
        shown, axis = self.shown, XAxis(self.kind)
        scenes = [
            Scene(panel, shown.first, shown.last, (), "no values", self.log, SMOOTHINGS[self.smoothing], axis,
                  self.cross)
            for panel in made.panels
        ]  # fmt: skip
        if made.against is not None:
            points = [made.curves[trace.metric] for trace in made.against.traces]
            scenes.insert(min(2, len(scenes)), scene_against_kl(made.against, points, log=self.log))
        return scenes, made.curves

    def _made(self) -> _Drawn:
        """Panels and curves of what was seen, made once for each look."""
        if self._drawn is None or self._drawn.grouped != self.grouped:
            curves = _Curves()
            panels = tuple(
                replace(panel, traces=tuple(self._traces(panel.traces[0].metric, curves)), by_name=False)
                for panel in self._panels()
            )
            self._drawn = _Drawn(self.grouped, panels, self._against_kl(curves), curves)
        return self._drawn

    def _against_kl(self, curves: _Curves) -> Panel | None:
        """The reward of each run over its sampled KL; None where no run has both."""
        assert self._seen is not None
        rewards = {place: name for place, run in enumerate(self._seen.runs) if (name := reward_of(run.log.metrics))}
        if not rewards:
            return None
        traces = []
        for place in rewards:
            key = f"{place}/{KEY}"
            curves.name(key, partial(self._points_against_kl, place, rewards[place]))
            of_run = trace_of_run(key, self._seen.marks[place])
            traces.append(replace(of_run, label=self._caution(KL, place), smooth=False))
        return panel_against_kl("/".join(dict.fromkeys(rewards.values())), tuple(traces))

    def _points_against_kl(self, place: int, reward: str) -> Points:
        """Other points only where there are new ones, so that the panel is not drawn for nothing."""
        assert self._seen is not None
        metrics = self._seen.runs[place].log.metrics
        state = tuple((metrics[name], len(metrics[name])) for name in (KL, reward))
        if place not in self._against or self._against[place][0] != state:
            self._against[place] = (state, points_against_kl(metrics, reward))
        return self._against[place][1]

    # One panel for each metric, held-out ones before those of training.

    def _panels(self) -> list[Panel]:
        assert self._seen is not None
        first = self._seen.runs[0]
        names = list(dict.fromkeys(name for run in self._seen.runs for name in list(run.log.metrics)))
        panels = with_limits(panels_of(self._seen.glances[0].summary.method, names, first.config), first.config)
        found = []
        for panel in panels:
            for trace in sorted(panel.traces, key=lambda trace: trace.kind != "points"):
                if trace.metric in names:
                    alone = len(panel.traces) == 1 or trace.metric == panel.title
                    title = panel.title if alone or "KL" in panel.title else trace.metric
                    found.append(
                        Panel(title, (trace,), panel.unit, panel.short_title if alone else "", panel.references,
                              panel.share, panel.scale)
                    )  # fmt: skip
        return found

    def _traces(self, metric: str, curves: _Curves) -> list[Trace]:
        assert self._seen is not None
        found = []
        for group in self.groups:
            there = [place for place in group if self._seen.runs[place].log.metrics.get(metric)]
            if not there:
                continue
            place = there[0]
            name, error = f"{place}/{metric}", ""
            if len(there) > 1:
                error = f"{name}±"
                curves.name(name, partial(self._mean_points, metric, there))
                curves.name(error, partial(self._mean_error, metric, there))
            else:
                curves.name(name, partial(self._points, place, metric))
            of_run = trace_of_run(name, self._seen.marks[place])
            found.append(replace(of_run, label=self._caution(metric, place), error=error))
        return found

    def _points(self, place: int, metric: str) -> Points:
        assert self._seen is not None
        return self._view(self._seen.runs[place])[metric]

    def _mean_points(self, metric: str, places: Sequence[int]) -> Points:
        return self._mean(metric, places).mean

    def _mean_error(self, metric: str, places: Sequence[int]) -> Points:
        return self._mean(metric, places).error

    def _mean(self, metric: str, places: Sequence[int]) -> GroupCurve:
        assert self._seen is not None
        runs = [self._seen.runs[place] for place in places]
        some = [run.log.metrics[metric] for run in runs]
        state = (self.kind, *((id(points), len(points)) for points in some))
        key = (metric, tuple(places))
        if key not in self._means or self._means[key][0] != state:
            # Over steps, which seeds share; then where the first of them had its steps.
            found, view = mean_curve(some), self._view(runs[0])
            if self.kind != STEP:
                for points in (found.mean, found.error):
                    points.steps = array("q", map(view.place, points.steps))
            self._means[key] = (state, found)
        return self._means[key][1]

    def _caution(self, metric: str, place: int) -> str:
        """≠ for a curve that cannot be held against the baseline's."""
        assert self._seen is not None
        comparison = self._seen.comparison
        if comparison is None or place == 0:
            return ""
        facts = self._seen.facts
        return "≠" if why_not_comparable(metric, facts[place], facts[0]) else ""

    @property
    def _whole(self) -> Window:
        if self._seen is None:
            return Window(0, 1)
        ends = [self._view(run).place(max(0, run.log.last_step)) for run in self._seen.runs]
        return Window(0, max(1, max(ends, default=1)))
