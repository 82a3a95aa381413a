"""A model's answers as a dataset: what `workbench generate` keeps.

Owns the rows it writes. Invariant: every answer carries the model, the sample's number and whether it ended by itself;
the dataset's origin says model and sampling.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from workbench.canonical_rows import completion_for
from workbench.dataset_store import Dataset, add_dataset
from workbench.pair_generation import Answered
from workbench.workspace import Workspace


def add_answers(workspace: Workspace, name: str, answered: Answered) -> Dataset:
    """Keep the answers of the (only) model as a dataset of shape prompt-completion."""
    model, settings = answered.models[0], answered.sampling.recorded()
    told = ", ".join(f"{key} {value}" for key, value in settings.items())
    with tempfile.TemporaryDirectory(prefix="workbench-answers-") as scratch:
        file = Path(scratch) / f"{name}.jsonl"
        file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in _rows(answered)))
        return add_dataset(
            workspace,
            file,
            name,
            copy=True,
            origin=f"workbench generate --model {model.source} --prompts {answered.source['dataset']}",
            note=f"answers of {model.source} to {answered.source['dataset']} ({told})",
        )


def _rows(answered: Answered) -> Iterator[dict[str, Any]]:
    each = answered.sampling.samples
    for number, answer in enumerate(answered.answers[0]):
        prompt = answered.prompts[number // each]
        yield {
            **prompt["tags"],
            "prompt": prompt["prompt"],
            "completion": completion_for(prompt["prompt"], answer.completion),
            "model": answered.models[0].source,
            "sample": answer.sample,
            "stopped": answer.stopped,
        }
