"""The answers that annotators wrote, as a dataset for SFT.

Owns the rows it writes. Invariant: they come from the training side of a frozen preference set, so that what is held
out there is not learnt here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import orjson

from workbench.dataset_store import Dataset, add_dataset
from workbench.errors import UsageError
from workbench.preferences import WRITTEN, PreferenceSet
from workbench.workspace import Workspace, check_name


def require_free(workspace: Workspace, name: str) -> None:
    """Raises before anything is frozen where the dataset cannot be called so."""
    check_name(name, "dataset")
    workspace.require_free("datasets", name)


def add_written(preferences: PreferenceSet, name: str) -> Dataset:
    """The dataset `name`: each prompt of the training side with each answer that was written to it, once."""
    rows: dict[bytes, None] = {}
    for row in preferences.rows("train"):
        if row["tags"].get(WRITTEN) is True:
            tags = {key: value for key, value in row["tags"].items() if key != WRITTEN}
            rows[orjson.dumps({**tags, "prompt": row["prompt"], "completion": row["chosen"]}) + b"\n"] = None
    if not rows:
        raise UsageError(
            f"{preferences.name} is frozen, but no dataset was made of it: no row to train on has a written answer. "
            "On the label screen e writes one."
        )
    with tempfile.TemporaryDirectory(prefix="workbench-written-") as scratch:
        file = Path(scratch) / f"{name}.jsonl"
        file.write_bytes(b"".join(rows))
        return add_dataset(
            preferences.workspace,
            file,
            name,
            copy=True,
            origin=f"workbench prefs freeze --to {preferences.name} --sft {name}",
            note=f"answers that annotators of {preferences.name} wrote",
        )
