"""Several runs under watch at once: which they are, their curves, and what is compared of them.

Owns the choice of runs and their reading. Invariants: the baseline is first; runs that a pattern finds come and go with
the workspace, those named one by one stay; nothing is written, and a damaged run is one that has no curves. A choice is
IDs separated by commas, and may end with a slash and a pattern over IDs, names, tags and settings.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import EngineError
from workbench.curves import Glance, RunCurves
from workbench.run_comparison import Comparison, RunFacts, compare, facts_of, settings_as_typed
from workbench.run_comparison_choice import SEED, finds, pattern_of, seed_groups, texts_of
from workbench.run_list import Run, all_runs, find_run
from workbench.run_tags import tags_of
from workbench.workspace import Workspace

MOST_RUNS = 40
"""Runs that are looked at together; of a pattern that finds more the newest."""
FACTS_EVERY_S = 5.0
"""Best and last values of a run that goes on are worked out no more often."""
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Seen:
    """The runs at one moment; two are equal where nothing has changed."""

    runs: tuple[RunCurves, ...]
    glances: tuple[Glance, ...]
    facts: tuple[RunFacts, ...]
    comparison: Comparison | None
    """None where there is no run."""
    marks: tuple[int, ...]
    """For each run the number of its letter, colour and line, which stay whichever run is the baseline."""
    groups: tuple[tuple[int, ...], ...]
    """Places of the runs that differ by their seed alone."""
    left_out: int
    """Runs that were found beyond MOST_RUNS."""

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Seen)
            and self.runs == other.runs
            and self.facts == other.facts
            and self.glances == other.glances
        )

    def __hash__(self) -> int:
        return hash((self.runs, self.glances))


class SeveralRuns:
    """The runs of one choice. `look` is called from one thread; what it gave may be read from another."""

    def __init__(self, workspace: Workspace, choice: str, baseline: str = "") -> None:
        """Raises UsageError for a pattern that is none, NotFound for an ID that is none."""
        self.workspace = workspace
        self.choice = choice
        self.baseline = baseline
        """The ID of the run that is held first; the first of the choice where empty."""
        named, _, pattern = choice.partition("/")
        names = [name for name in named.split(",") if name]
        self._named = tuple(dict.fromkeys(find_run(workspace, name).id for name in names))
        self._pattern = pattern_of(pattern) if "/" in choice else None
        self._known: dict[str, RunCurves] = {}
        self._facts: dict[str, tuple[int, float, RunFacts]] = {}
        self._texts: dict[str, list[str]] = {}

    def look(self) -> Seen:
        """Read what is new. Raises OSError where a file is there and cannot be read."""
        found, left_out = self._found()
        order = sorted(range(len(found)), key=lambda place: found[place].id != self.baseline)
        runs = [self._known.setdefault(run.id, RunCurves(run)) for run in (found[place] for place in order)]
        glances = []
        for run in runs:
            while (glance := run.look()).more:
                pass
            glances.append(glance)
        facts = [self._facts_of(run, glance) for run, glance in zip(runs, glances, strict=True)]
        return Seen(
            tuple(runs),
            tuple(glances),
            tuple(facts),
            compare(facts) if facts else None,
            tuple(order),
            seed_groups(facts),
            left_out,
        )

    def next_baseline(self, seen: Seen) -> str:
        """The run after the baseline becomes it; its ID."""
        ids = sorted(run.run.id for run in seen.runs)
        if ids:
            at = ids.index(self.baseline) if self.baseline in ids else ids.index(seen.runs[0].run.id)
            self.baseline = ids[(at + 1) % len(ids)]
        return self.baseline

    def _found(self) -> tuple[list[Run], int]:
        there = {run.id: run for run in all_runs(self.workspace)}
        found = [there[name] for name in self._named if name in there]
        if self._pattern is not None:
            pattern = self._pattern
            found += [run for run in there.values() if run.id not in self._named and finds(pattern, self._words(run))]
        left_out = max(0, len(found) - MOST_RUNS)
        if left_out:
            found = found[: len(self._named)][:MOST_RUNS] + found[len(self._named) :][left_out:]
        return found, left_out

    def _words(self, run: Run) -> list[str]:
        if run.id not in self._texts:
            try:
                settings = settings_as_typed(run.config())
            except (EngineError, OSError, ValueError):
                settings = {}
            self._texts[run.id] = texts_of(run.id, run.given_name, settings)
        return [*self._texts[run.id], *(f"tag={tag}" for tag in tags_of(run.folder))]

    def _facts_of(self, run: RunCurves, glance: Glance) -> RunFacts:
        known = self._facts.get(run.run.id)
        now = time.monotonic()
        if known is None or (known[0] != glance.revision and now - known[1] >= FACTS_EVERY_S):
            known = self._facts[run.run.id] = (glance.revision, now, facts_of(run.run, run.log, run.config))
        return known[2]


def letter_of(mark: int) -> str:
    """What stands on the curve of a run, by its number."""
    return LETTERS[mark % len(LETTERS)]


def what_differs(comparison: Comparison, group: Sequence[int], most: int = 4) -> str:
    """The settings by which runs of one curve differ from others, in short: lr=1e-5 seed=2; hashes last.

    Of several runs the seed is none of them: they differ by it among themselves.
    """
    place = group[0]
    known = [row for row in comparison.settings if len(group) == 1 or row.key != SEED]
    rows = sorted(known, key=lambda row: row.key.endswith("sha256"))
    parts = [f"{row.key.rpartition('.')[2]}={row.values[place]}" for row in rows]
    return " ".join(parts[:most]) + (f" +{len(parts) - most}" if len(parts) > most else "")


def table_lines(
    comparison: Comparison, letters: Sequence[str], shown: Sequence[int], width: int
) -> list[tuple[str, str]]:
    """(line, style) of the table: settings that differ, then best and last of every metric; `shown` are the columns.

    * is the best of those that can be compared, ≠ what cannot be held against the baseline, which is the first run.
    """
    name_width = max(16, min(44, width - 20 * len(shown)))
    cell = max(8, (width - name_width) // max(1, len(shown)) - 2)

    def laid_out(name: str, cells: Sequence[str]) -> str:
        return f"{_cut(name, name_width):<{name_width}}" + "".join(f"  {_cut(text, cell):>{cell}}" for text in cells)

    ids = [f"{letters[place]} {comparison.runs[place]}" for place in shown]
    lines = [(laid_out("settings that differ", ids), "title")]
    lines += [(laid_out(row.key, [row.values[place] for place in shown]), "plain") for row in comparison.settings]
    if not comparison.settings:
        lines.append(("none", "faint"))
    lines += [("", "plain"), (laid_out("best, else last", ids), "title")]
    for metric in comparison.metrics:
        cells = []
        for place in shown:
            value = metric.values[place]
            if value is None:
                cells.append("–")
                continue
            best = value.last if value.best is None else value.best
            step = value.last_step if value.best_step is None else value.best_step
            mark = "≠ " if metric.why_not[place] else "* " if place in metric.winners else ""
            cells.append(f"{mark}{best:.4g} @{step:,}")
        unit = f", {metric.unit}" if metric.unit else ""
        lines.append((laid_out(metric.name + unit, cells), "plain"))
    return lines


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
