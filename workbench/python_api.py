"""What a program of one's own finds in `import workbench`: an open workspace, and the things in it by name.

Owns the names of that face and nothing behind them: each part is imported when it is first asked for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.dataset_store import Dataset
    from workbench.pair_sets import PairSet
    from workbench.preferences import PreferenceSet
    from workbench.run_list import Run
    from workbench.workspace import Workspace as WorkspaceFiles


@dataclass(frozen=True)
class Workspace:
    """An open workspace, for programs; the things in it by name."""

    files: WorkspaceFiles
    """Where everything lies, and whether it may be written."""

    def datasets(self) -> list[Dataset]:
        """All datasets that can be opened."""
        from workbench.dataset_store import list_datasets

        return list_datasets(self.files)[0]

    def dataset(self, name: str) -> Dataset:
        """One dataset."""
        from workbench.dataset_store import open_dataset

        return open_dataset(self.files, name)

    def add_dataset(self, source: str | os.PathLike[str], name: str | None = None, **options: Any) -> Dataset:
        """Adds a file, a Hub dataset or a saved folder; options as for dataset_store.add_dataset."""
        from workbench.dataset_store import add_dataset

        return add_dataset(self.files, source, name, **options)

    def pair_sets(self) -> list[PairSet]:
        """All pair sets that can be opened."""
        from workbench.pair_sets import list_pairs

        return list_pairs(self.files)[0]

    def pairs(self, name: str) -> PairSet:
        """One pair set."""
        from workbench.pair_sets import open_pairs

        return open_pairs(self.files, name)

    def preference_sets(self) -> list[PreferenceSet]:
        """All preference sets that can be opened."""
        from workbench.preferences import list_preference_sets

        return list_preference_sets(self.files)[0]

    def prefs(self, name: str) -> PreferenceSet:
        """One preference set."""
        from workbench.preferences import open_preference_set

        return open_preference_set(self.files, name)

    def runs(self) -> list[Run]:
        """All runs, in the order of their ids."""
        from workbench.run_list import all_runs

        return all_runs(self.files)

    def run(self, reference: str) -> Run:
        """One run by its id, a unique beginning of it, its name, or "-" for the latest."""
        from workbench.run_list import find_run

        return find_run(self.files, reference)


def open(path: str | os.PathLike[str] | None = None) -> Workspace:
    """Opens the workspace at `path`, else $WORKBENCH_WORKSPACE, else the first one upward from the current folder."""
    from workbench.workspace import open_workspace

    return Workspace(open_workspace(os.path.expanduser(path) if path is not None else None))
