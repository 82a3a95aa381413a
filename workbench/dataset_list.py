"""What a list says of each dataset and preference set: one namespace, one list.

Owns the words of that list. A dataset that cannot be opened is a problem with a message and hides nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.dataset_store import Dataset, list_datasets, open_dataset
from workbench.preferences import PreferenceSet, list_preference_sets, open_preference_set
from workbench.steps import Progress
from workbench.terminal_output import counted, local_time
from workbench.workspace import Workspace


@dataclass(frozen=True)
class Listed:
    """One dataset or preference set."""

    name: str
    frozen: bool
    """A preference set."""
    kind: str
    """The shape of a dataset; "preferences, frozen" for a preference set."""
    rows: int
    rejected: str
    """How many rows cannot be used; empty for none."""
    origin: str
    details: tuple[tuple[str, str], ...]
    """(name, value), for a person."""

    def verify(self, workspace: Workspace, progress: Progress | None = None) -> None:
        """Hash the files again; raises where they are not what was recorded. `progress` counts bytes of a file."""
        found = open_preference_set(workspace, self.name) if self.frozen else open_dataset(workspace, self.name)
        found.verify(progress)


def list_data(workspace: Workspace) -> tuple[tuple[Listed, ...], tuple[str, ...]]:
    """Everything a run can be trained on, the newest first, and a message for each thing that cannot be opened."""
    datasets, problems = list_datasets(workspace)
    sets, more = list_preference_sets(workspace)
    listed = [(one.info.created, _of_dataset(one)) for one in datasets] + [(s.info.created, _of_set(s)) for s in sets]
    listed.sort(key=lambda pair: (pair[0], pair[1].name), reverse=True)
    return tuple(one for _, one in listed), (*problems, *more)


def _of_dataset(dataset: Dataset) -> Listed:
    info = dataset.info
    rejected = sum(info.rejected.values())
    reasons = ", ".join(f"{counted(count, 'row')}: {reason}" for reason, count in info.rejected.items())
    details = {
        "from": info.source.origin,
        "shape": dataset.shape,
        "columns": ", ".join(f"{name} ({'/'.join(kinds)})" for name, kinds in info.columns.items()),
        "rejected": reasons,
        "added": local_time(info.created),
        "note": info.note,
    }
    filled = tuple((name, value) for name, value in details.items() if value)
    return Listed(
        dataset.name, False, dataset.shape, info.rows, f"{rejected:,}" if rejected else "", info.source.origin, filled
    )


def _of_set(made: PreferenceSet) -> Listed:
    info = made.info
    sources = ", ".join(str(source.get("name", "")) for source in info.sources)
    synthetic = {"rule": "rule (synthetic)"}
    details = {
        "from": f"pair sets {sources}",
        "rows": f"{info.counts.get('train', 0):,} to train on, {info.counts.get('eval', 0):,} held out",
        "verdicts": ", ".join(f"{synthetic.get(name, name)} {count:,}" for name, count in info.origins.items()),
        "frozen": local_time(info.created),
        "note": info.note,
    }
    filled = tuple((name, value) for name, value in details.items() if value)
    rows = info.counts.get("train", 0) + info.counts.get("eval", 0)
    return Listed(made.name, True, "preferences, frozen", rows, "", f"labels of {sources}", filled)
