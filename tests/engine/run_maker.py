"""Run folders for the tiny model, as `workbench train` would freeze them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.folder import RunFolder
from engine.run.method_names import ON_ROLLOUTS

WORDS = ("sea", "rain", "bread", "robin", "heron", "crow", "cat", "mat", "line", "colour")


MIXED: dict[str, Any] = {
    "data__names": ["near", "far"],
    "data__weights": [0.25, 0.75],
    "data__train_rows_each": [18, 6],
    "data__eval_rows_each": [3, 5],
}
"""Settings of `make_run` with its usual numbers of rows: two sources, the smaller three times as much."""


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def preference_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs whose chosen answer names the word that was asked for."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        word, other = draw.sample(WORDS, 2)
        tail = " and more" * draw.randrange(3)
        rows.append(
            {
                "id": f"p{i}",
                "prompt": user(f"Say {word}{'.' * draw.randrange(3)}"),
                "chosen": answer(f"The {word}{tail}."),
                "rejected": answer(f"The {other}{tail}."),
            }
        )
    return rows


def labelled_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Answers that name the word that was asked for and are desirable, and others that are not, in turn."""
    return [
        {
            "id": row["id"],
            "prompt": row["prompt"],
            "completion": row["rejected" if i % 2 else "chosen"],
            "label": not i % 2,
        }
        for i, row in enumerate(preference_rows(count, seed))
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_run(
    path: Path, method: str, model: Path, *, train_rows: int = 24, eval_rows: int = 8, **settings: Any
) -> RunFolder:
    """A run folder with preference rows; `settings` are dotted keys with "__" for the dot."""
    layer: dict[str, dict[str, Any]] = {
        "run": {"id": path.name},
        "model": {"path": str(model), "sha256": "0" * 64},
        "data": {"train_rows": train_rows, "eval_rows": eval_rows, "max_length": 128},
        "train": {"batch_size": 4, "threads": 1, "device": "cpu", "steps": 6},
        "adapter": {"r": 4, "alpha": 8.0},
        "optim": {"lr": 1e-2},
        "evaluation": {"every": 3},
        "checkpoint": {"every": 2},
        # A step of the tiny model costs less than a probe; a share of 1 keeps the cadence whatever the clock says.
        "probe": {"every": 3, "prompts": 6, "max_new_tokens": 8, "max_share": 1.0},
    }
    if method in ON_ROLLOUTS:
        layer[method] = {"max_new_tokens": 8}
    for key, value in settings.items():
        section, _, name = key.partition("__")
        layer.setdefault(section, {})[name] = value
    resolved = resolve(method, [("test", layer)])

    def fill(folder: RunFolder) -> None:
        rows = labelled_rows if method == "kto" else preference_rows
        write_rows(folder.data / "train.jsonl", rows(train_rows, seed=1))
        write_rows(folder.data / "eval.jsonl", rows(eval_rows, seed=2))

    return RunFolder.create(path, to_toml(resolved.config), fill)
