"""A reward model trained on shuffled verdicts knows nothing: mean held-out accuracy 0.50 +- 0.05 over five shuffles.

A shuffle flips exactly half of the verdicts of each kind of error, at random, so that the labels carry no information
about any component, not even by accident. The recipe, the model and the number of steps are the demo's.
"""

from __future__ import annotations

import json
import random
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from engine import train
from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.folder import RunFolder
from engine.run.metrics_log import read_metrics
from sample_data import ROOT, files

pytestmark = pytest.mark.slow
SHUFFLES = 5


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files()[name].read_text().splitlines()]


def shuffled(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Half of the rows of each kind of error with chosen and rejected exchanged."""
    draw = random.Random(seed)
    by_error: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        by_error[row["error"]].append(index)
    flipped: set[int] = set()
    for indices in by_error.values():
        half = len(indices) // 2 + (len(indices) % 2) * draw.randrange(2)
        flipped.update(draw.sample(indices, half))
    return [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if i in flipped else row
        for i, row in enumerate(rows)
    ]


def frozen(row: dict[str, Any]) -> str:
    def turn(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    return json.dumps(
        {
            "id": row["id"],
            "prompt": turn("user", row["prompt"]),
            "chosen": turn("assistant", row["chosen"]),
            "rejected": turn("assistant", row["rejected"]),
        }
    )


def held_out_accuracy(path: Path, train_rows: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> float:
    """Train a reward model as the demo does; its accuracy on the held-out pairs at the end."""
    recipe = tomllib.loads((ROOT / "recipes" / "reward.toml").read_text())
    found: dict[str, Any] = {
        "run": {"id": path.name},
        "model": {"path": str(files()["model"])},
        "data": {"train_rows": len(train_rows), "eval_rows": len(held_out)},
        "train": {"device": "cpu", "steps": 0, "epochs": 1.0},
        "evaluation": {"every": 10_000, "at_start": False, "max_rows": 0},
    }

    def fill(folder: RunFolder) -> None:
        for name, rows in (("train", train_rows), ("eval", held_out)):
            (folder.data / f"{name}.jsonl").write_text("".join(frozen(row) + "\n" for row in rows))

    config = resolve("reward", [("recipe", recipe), ("test", found)]).config
    folder = RunFolder.create(path, to_toml(config), fill)
    assert train.main([str(path)]) == 0
    return read_metrics(folder.metrics_path)[-1].metrics["eval_accuracy"]


def test_shuffled_verdicts_teach_nothing(tmp_path: Path) -> None:
    held_out = rows_of("heldout_pairs")
    rows = rows_of("preferences")[:1600]
    true = held_out_accuracy(tmp_path / "true", rows, held_out)
    accuracies = [
        held_out_accuracy(tmp_path / f"shuffle{seed}", shuffled(rows, seed), held_out) for seed in range(SHUFFLES)
    ]
    mean = sum(accuracies) / SHUFFLES
    print(f"true verdicts {true:.3f}; shuffled {', '.join(f'{a:.3f}' for a in accuracies)}; mean {mean:.3f}")
    assert true > 0.80
    assert abs(mean - 0.5) <= 0.05
