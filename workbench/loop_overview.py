"""The loop at a glance: what is at each station of a workspace, and what wants doing next.

Owns the counts behind `home` and the order of what is suggested. Invariants: it only reads, and what did not change
since the last look is not read again (a `LoopReader` keeps what it found by the files' sizes and times); a damaged
thing is counted as damaged and hides nothing else. No pair file is opened: counts come from the descriptions and the
journals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from workbench.errors import WorkbenchError
from workbench.file_signatures import Signature, signature_of
from workbench.judgments import Fold, read_judgments
from workbench.labeling_subject import subject_of
from workbench.pair_sets import IMPORTED, PairKind, PairSet, open_pairs
from workbench.preferences import PreferenceSet, open_preference_set
from workbench.run_list import ALIVE, Run, RunSummary, all_runs, summarise
from workbench.terminal_output import counted
from workbench.workspace import Workspace

T = TypeVar("T")
LABELERS_NAMED = 3
TUNED = ("sft", "dpo", "simpo", "cpo", "orpo", "kto", "ppo", "grpo", "rloo")
"""Methods whose runs end in a model that answers, and can be compared."""


@dataclass(frozen=True)
class Stop:
    """One station of the loop: its name, what is in it in a few characters, and where its screen is."""

    name: str
    holds: str
    station: str


@dataclass(frozen=True)
class NextStep:
    """Something that wants doing."""

    words: str
    station: str
    subject: str = ""
    urgent: bool = False
    """Something went wrong; it is named first."""


@dataclass(frozen=True)
class Judged:
    """How far one pair set or arena is judged, by its journals alone."""

    name: str
    kind: PairKind
    pairs: int
    judged: int
    """Pairs with a standing verdict of anyone; a skip is none."""
    skipped: int
    """Pairs that somebody skipped and nobody judged."""
    by_annotator: tuple[tuple[str, int], ...]
    """The most diligent first."""
    lines: int
    """Journal lines that were used: more of them than a preference set was frozen from means that it is out of date."""
    models: tuple[str, ...] = ()
    """Of an arena."""

    @property
    def open(self) -> int:
        """Pairs that nobody judged or skipped."""
        return max(0, self.pairs - self.judged - self.skipped)


@dataclass(frozen=True)
class Overview:
    """The loop as it is now."""

    stops: tuple[Stop, ...]
    steps: tuple[NextStep, ...]
    """What wants doing, the most urgent first."""
    runs: tuple[RunSummary, ...]
    """The newest first."""
    damaged: tuple[str, ...] = ()
    """A message for each thing that cannot be opened."""


class LoopReader:
    """Looks at a workspace again and again; what has not changed is not read twice."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._kept: dict[str, tuple[Signature, Any]] = {}

    def look(self) -> Overview:
        """What is at each station now."""
        damaged: list[str] = []
        pairs = self._each("pairs", lambda name: self._judged(name, "pairs"), damaged)
        arenas = self._each("arena", lambda name: self._judged(name, "arena"), damaged)
        prefs = self._each("prefs", self._preference_set, damaged)
        runs = [self._summary(run) for run in all_runs(self.workspace)]
        datasets = self.workspace.names("datasets")
        return Overview(
            stops=_stops(datasets, pairs, arenas, prefs, runs),
            steps=tuple(_steps(self.workspace, datasets, pairs, arenas, prefs, runs)),
            runs=tuple(reversed(runs)),
            damaged=tuple(damaged),
        )

    def _each(self, kind: Literal["pairs", "arena", "prefs"], read: Callable[[str], T], damaged: list[str]) -> list[T]:
        found = []
        for name in self.workspace.names(kind):
            try:
                found.append(read(name))
            except WorkbenchError as error:
                damaged.append(str(error))
        return found

    def _judged(self, name: str, kind: PairKind) -> Judged:
        folder = self.workspace.folder(kind) / name
        files = [folder / "pairs.toml", *sorted((folder / "judgments").glob("*.jsonl"))]
        return self._unless_kept(f"{kind}/{name}", files, lambda: judged_so_far(open_pairs(self.workspace, name, kind)))

    def _preference_set(self, name: str) -> PreferenceSet:
        file = self.workspace.prefs / name / "prefs.toml"
        return self._unless_kept(f"prefs/{name}", [file], lambda: open_preference_set(self.workspace, name))

    def _summary(self, run: Run) -> RunSummary:
        """A run that is over changes only with its status file; one that goes on is looked at each time."""
        key, signature = f"runs/{run.id}", signature_of([run.folder.status_path, run.folder.config_path])
        kept = self._kept.get(key)
        if kept is not None and kept[0] == signature and kept[1].state in ("done", "stopped", "failed"):
            summary: RunSummary = kept[1]
            return summary
        summary = summarise(run)
        self._kept[key] = (signature, summary)
        return summary

    def _unless_kept(self, key: str, files: Iterable[Path], read: Callable[[], T]) -> T:
        signature = signature_of(files)
        kept = self._kept.get(key)
        if kept is None or kept[0] != signature:
            kept = self._kept[key] = (signature, read())
        found: T = kept[1]
        return found


def judged_so_far(pair_set: PairSet, said: Fold | None = None) -> Judged:
    """How far a pair set is judged, without opening its pairs."""
    said = said or read_judgments(pair_set.judgments_folder)
    by = Counter(one.annotator for one in said.first if one.verdict != "skip")
    models = pair_set.info.source.get("models") or []
    return Judged(
        name=pair_set.name,
        kind=pair_set.kind,
        pairs=pair_set.info.rows,
        judged=len(said.judged_pairs),
        skipped=len(said.skipped_pairs),
        by_annotator=tuple(by.most_common()),
        lines=sum(used for _, used in said.journals.values()),
        models=tuple(str(model.get("source", "")) for model in models if isinstance(model, dict)),
    )


def _stops(
    datasets: Sequence[str],
    pairs: Sequence[Judged],
    arenas: Sequence[Judged],
    prefs: Sequence[PreferenceSet],
    runs: Sequence[RunSummary],
) -> tuple[Stop, ...]:
    live = sum(run.state in ALIVE for run in runs)
    judged, total = sum(one.judged for one in pairs), sum(one.pairs for one in pairs)
    at = next((f"step {run.step}" for run in reversed(runs) if run.step), "–")
    return (
        Stop("data", _count(datasets), "datasets"),
        Stop("pairs", _count(pairs), "pairs"),
        Stop("labels", f"{_short(judged)}/{_short(total)}" if total else "–", "label"),
        Stop("prefs", _count(prefs), "datasets"),
        Stop("run", f"{live} live" if live else _count(runs), "runs" if runs else "launch"),
        Stop("curves", at, "curves"),
        Stop("compare", _count(arenas), "compare"),
    )


def _short(count: int) -> str:
    """At most four characters up to a million: 412, 4.9k, 51k."""
    if count < 1000:
        return str(count)
    thousands = count / 1000
    return f"{thousands:.1f}".removesuffix(".0") + "k" if thousands < 10 else f"{thousands:.0f}k"


def _count(things: Sequence[object]) -> str:
    return f"{len(things):,}" if things else "–"


def _steps(
    workspace: Workspace,
    datasets: Sequence[str],
    pairs: Sequence[Judged],
    arenas: Sequence[Judged],
    prefs: Sequence[PreferenceSet],
    runs: Sequence[RunSummary],
) -> Iterable[NextStep]:
    yield from (step for run in reversed(runs) if (step := _mishap(run, runs)))
    for run in reversed(runs):
        if run.state in ALIVE:
            at = f": step {run.step:,} of {run.total_steps:,}" if run.total_steps else f": {run.state}"
            yield NextStep(f"watch {run.id}{at}", "curves", run.id)
    for one in arenas:
        if one.open:
            yield NextStep(
                f"judge {counted(one.open, 'pair')} of the arena {one.name}, blind",
                "label",
                subject_of("arena", one.name),
            )
    for one in pairs:
        if one.open:
            yield NextStep(f"label {counted(one.open, 'pair')} of {one.name}{_labelers(one)}", "label", one.name)
    for one in pairs:
        if one.judged and not _frozen(one, prefs):
            words = f"freeze {counted(one.judged, 'judged pair')} of {one.name} into a preference set"
            yield NextStep(words, "pairs", f"freeze:{one.name}")
    trained_on = _data_of(workspace, runs)
    for made in prefs:
        if made.name not in trained_on:
            yield NextStep(f"train on the preferences {made.name}", "launch", made.name)
    for run in reversed(runs):
        if run.state == "done" and run.method in TUNED and not any(run.id in " ".join(one.models) for one in arenas):
            yield NextStep(f"compare {run.id} with what you had", "compare", run.id)
    if not datasets:
        yield NextStep("add a dataset", "add")
    elif not pairs and not runs:
        yield NextStep(f"look into {datasets[0]}", "inspect", datasets[0])
        yield NextStep("make pairs of a dataset, to label them", "pairs")
        yield NextStep("start a run", "launch")


def _mishap(run: RunSummary, runs: Sequence[RunSummary]) -> NextStep | None:
    """A run that ended badly, unless a later one of the same name and method ended well."""
    if run.state not in ("failed", "interrupted", "damaged", "orphaned"):
        return None
    later = runs[runs.index(run) + 1 :]
    if any(one.name == run.name and one.method == run.method and one.state == "done" for one in later):
        return None
    return NextStep(f"{run.id} {run.state}{f': {run.reason}' if run.reason else ''}", "runs", run.id, urgent=True)


def _labelers(one: Judged) -> str:
    named = [f"{name} {count:,}" for name, count in one.by_annotator if name != IMPORTED][:LABELERS_NAMED]
    return f" ({', '.join(named)})" if named else ""


def _frozen(one: Judged, prefs: Sequence[PreferenceSet]) -> bool:
    """Whether some preference set holds every verdict that was given."""
    for made in prefs:
        for source in made.info.sources:
            lines = sum(int(journal.get("lines", 0)) for journal in source.get("journals", []))
            if source.get("name") == one.name and source.get("kind", "pairs") == one.kind and lines >= one.lines:
                return True
    return False


def _data_of(workspace: Workspace, runs: Sequence[RunSummary]) -> set[str]:
    """Names of the data that some run was started on."""
    from engine.errors import EngineError
    from engine.run.folder import RunFolder

    names: set[str] = set()
    for summary in runs:
        try:
            names.update(Run(RunFolder(workspace.runs / summary.id), workspace).config().data.names)
        except (EngineError, OSError):
            continue
    return names
