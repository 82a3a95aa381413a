"""Deleting a dataset or a preference set: what would go, what was made of it, and the removal itself.

Owns the refusals. Invariants: a file elsewhere that a dataset only refers to is never touched, nor is any verdict: pair
sets keep their journals, and a preference set is never deleted whose pair sets are not all there with the pairs that it
was frozen from. Pair sets and runs hold copies of what they read, so they outlive it; that they could not be made again
is said, and it goes only where the person has been told. It leaves the list in one step, by a rename.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

from engine.errors import EngineError
from workbench.dataset_store import list_datasets, open_dataset
from workbench.errors import NotFound, WorkbenchError, explain_os_errors, some_of
from workbench.pair_sets import PairKind, list_pairs
from workbench.preferences import PreferenceSet, open_preference_set
from workbench.run_list import all_runs
from workbench.run_removal import bytes_in, hidden_name
from workbench.terminal_output import counted
from workbench.workspace import SINGULAR, Kind, Workspace, check_name

NAMED = 4
"""Users that a message names."""


@dataclass(frozen=True)
class DataRemoval:
    """What deleting a dataset or a preference set would free, and what it would leave."""

    workspace: Workspace
    name: str
    kind: Kind
    freed_bytes: int
    rows: int
    users: tuple[str, ...]
    """What was made of it, in words: "run ID", "pair set N", "arena N", "dataset N"."""
    stays: str
    """The file that it refers to and that stays where it is; empty where the workspace holds the only copy."""

    @property
    def what(self) -> str:
        """dataset NAME, preference set NAME."""
        return f"{SINGULAR[self.kind]} {self.name}"

    def words(self) -> str:
        """One or two sentences for a person."""
        size = f"{self.freed_bytes / 1e6:,.1f} MB, {counted(self.rows, 'row')}"
        if self.kind == "prefs":
            return f"{size}. The pair sets stay with every verdict, from which it can be frozen again."
        if self.stays:
            return f"{size}, of which the file stays where it is: {self.stays}."
        return f"{size}: the workspace's own copy goes with it."

    def used_words(self) -> str:
        """What was made of it and what that means; empty where nothing was."""
        if not self.users:
            return ""
        named = ", ".join(self.users[:NAMED]) + (
            f" and {len(self.users) - NAMED} more" if len(self.users) > NAMED else ""
        )
        return (
            f"{named} {'was' if len(self.users) == 1 else 'were'} made of it. They keep their own copies of what they "
            "read, but could not be made again"
        )


def removal_of_data(workspace: Workspace, name: str) -> DataRemoval:
    """What deleting `name` means; touches nothing. Raises NotFound, or WorkbenchError where verdicts would be lost."""
    check_name(name, "dataset")
    kind: Kind = "prefs" if name in workspace.names("prefs") else "datasets"
    if name not in workspace.names(kind):
        there = some_of([*workspace.names("datasets"), *workspace.names("prefs")])
        raise NotFound(f"no dataset or preference set named {name} in {workspace.root}. There are: {there}.")
    folder = workspace.folder(kind) / name
    rows, stays = _rows_and_file(workspace, name, kind)
    return DataRemoval(workspace, name, kind, bytes_in(folder), rows, _users_of(workspace, name), stays)


def remove_data(workspace: Workspace, name: str, *, even_if_used: bool = False) -> DataRemoval:
    """Delete it; what was freed. Raises as `removal_of_data`, ReadOnly, and WorkbenchError where something was made of
    it, unless `even_if_used`."""
    workspace.require_writable()
    removal = removal_of_data(workspace, name)
    if removal.users and not even_if_used:
        raise WorkbenchError(
            f"{removal.what} is in use: {removal.used_words()}. To delete it in spite of that: --even-if-used"
        )
    path = workspace.folder(removal.kind) / name
    with explain_os_errors(f"deleting {removal.what}", path):
        hidden = hidden_name(path)
        path.rename(hidden)
        shutil.rmtree(hidden)
    return removal


def _rows_and_file(workspace: Workspace, name: str, kind: Kind) -> tuple[int, str]:
    """Rows, and the file elsewhere. A dataset that cannot be opened any more may go, too: its rows are not known."""
    if kind == "prefs":
        made = open_preference_set(workspace, name)
        _require_verdicts_elsewhere(workspace, made)
        return made.info.counts.get("train", 0) + made.info.counts.get("eval", 0), ""
    try:
        dataset = open_dataset(workspace, name)
    except WorkbenchError:
        return 0, ""
    file = workspace.resolve(dataset.info.source.path)
    return dataset.info.rows, "" if file.is_relative_to(dataset.folder) else str(file)


def _require_verdicts_elsewhere(workspace: Workspace, made: PreferenceSet) -> None:
    """Raises where a verdict that was frozen is nowhere but in the preference set."""
    kinds: tuple[PairKind, ...] = ("pairs", "arena")
    there = {(kind, one.name): one for kind in kinds for one in list_pairs(workspace, kind)[0]}
    for source in made.info.sources:
        found = there.get((source.get("kind", "pairs"), str(source.get("name"))))
        journals = [str(journal["file"]) for journal in source.get("journals", [])]
        if (
            found is None
            or found.info.sha256 != source.get("sha256")
            or not all((found.judgments_folder / journal).is_file() for journal in journals)
        ):
            raise WorkbenchError(
                f"preference set {made.name} holds verdicts on {source.get('name')} that are nowhere else: that pair "
                f"set or a journal of it is gone. It is not deleted. Export it (workbench prefs export {made.name} "
                f"--to FILE), then remove {made.folder} by hand"
            )


def _users_of(workspace: Workspace, name: str) -> tuple[str, ...]:
    """Runs, pair sets, arenas and datasets that were made of it."""
    users = []
    for run in all_runs(workspace):
        try:
            if name in run.config().data.names:
                users.append(f"run {run.id}")
        except (EngineError, OSError):
            continue  # a torn run.toml names nothing
    kinds: tuple[PairKind, ...] = ("pairs", "arena")
    for kind in kinds:
        users += [
            f"{SINGULAR[kind]} {one.name}" for one in list_pairs(workspace, kind)[0] if _source(one.info.source) == name
        ]
    for dataset in list_datasets(workspace)[0]:
        if any(source.get("name") == name for source in dataset.info.recipe.get("sources", [])):
            users.append(f"dataset {dataset.name}")
    return tuple(users)


def _source(source: dict[str, Any]) -> str:
    """The dataset that a pair set's answers, or the prompts for them, came from."""
    prompts = source.get("prompts")
    return str(source.get("dataset") or (prompts.get("dataset", "") if isinstance(prompts, dict) else ""))
