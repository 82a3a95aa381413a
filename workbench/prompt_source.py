"""Prompts for models to answer: of a dataset, or of the held-out side of a preference set.

A preference set gives its held-out prompts only: a model that was trained on the set has not seen them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from workbench.canonical_rows import PromptRow, prompts_of
from workbench.run_examples import find_source
from workbench.workspace import Workspace


@dataclass(frozen=True)
class PromptSource:
    """Where prompts are read from."""

    name: str
    sha256: str
    """Of the file that they are read from."""
    prompts: Callable[[], Iterable[PromptRow]]
    """Reads them, each prompt once."""


def find_prompts(workspace: Workspace, name: str) -> PromptSource:
    """The prompts of `name`. Raises NotFound, which says what there is."""
    if find_source(workspace, name).kind == "dataset":
        from workbench.dataset_store import open_dataset

        dataset = open_dataset(workspace, name)
        return PromptSource(name, dataset.info.source.sha256, dataset.prompts)
    from workbench.preferences import open_preference_set

    frozen = open_preference_set(workspace, name)
    return PromptSource(name, frozen.info.files["eval.jsonl"], lambda: prompts_of(frozen.rows("eval")))
