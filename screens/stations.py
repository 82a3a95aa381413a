"""The stations of the app, by name: which module draws each, and their order in the loop.

Owns the table alone; a station's module is imported when it is first gone to.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a station is drawn."""

    module: str
    class_name: str
    words: str
    """What one does there, for the palette."""
    beside: str = ""
    """The station of the loop that this one belongs to, where it is none of the loop itself."""


LOOP = ("home", "datasets", "pairs", "label", "launch", "runs", "curves", "compare")
"""The stations that `[` and `]` move along."""
STATIONS: dict[str, Place] = {
    "home": Place("screens.home", "Home", "the loop, what wants doing next, runs and GPUs"),
    "datasets": Place("screens.datasets", "Datasets", "datasets and preference sets; add one"),
    "inspect": Place("screens.inspect", "Inspect", "the rows of a dataset", beside="datasets"),
    "lint": Place("screens.lint", "Lint", "what is wrong in a dataset, and in which rows", beside="datasets"),
    "sql": Place("screens.sql", "Sql", "any question about data, verdicts and runs", beside="datasets"),
    "profile": Place("screens.profile", "Profile", "what is in a dataset, in numbers", beside="datasets"),
    "add": Place("screens.add_dataset", "AddDataset", "add a dataset: preview and mapping", beside="datasets"),
    "pairs": Place("screens.pairs", "Pairs", "pair sets: make, label, freeze"),
    "make": Place(
        "screens.make_pairs",
        "MakePairs",
        "make a pair set or an arena: of a dataset, or let models answer",
        beside="pairs",
    ),
    "annotators": Place(
        "screens.annotators",
        "Annotators",
        "who labels a set: how many, how fast, how alike; disagreements",
        beside="pairs",
    ),
    "label": Place("screens.label", "Label", "judge pairs, one key each"),
    "launch": Place("screens.launch", "Launch", "start a training run"),
    "runs": Place("screens.runs", "Runs", "all runs: stop, resume, clone, delete"),
    "curves": Place("screens.curves", "Curves", "watch a run's metrics, live"),
    "several": Place("screens.curves_several", "SeveralCurves", "several runs in the same panels", beside="curves"),
    "compare": Place("screens.compare", "Compare", "models side by side, blind arenas, win rates"),
}
