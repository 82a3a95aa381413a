"""A reward model trained on shuffled verdicts knows nothing: mean held-out accuracy 0.50 +- 0.05 over five shuffles.

A shuffle flips exactly half of the verdicts of each kind of error, at random, so that the labels carry no information
about any component, not even by accident. A single such model can still be far from 0.50 on either side: the sample
model has few strong features, and chance decides the sign that each gets. The seeds are the first five, not chosen.
The recipe and the model are the demo's.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine import train
from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.folder import RunFolder
from engine.run.metrics_log import read_metrics
from sample_data import ROOT, files
from sample_data.controls import shuffled_verdicts

pytestmark = pytest.mark.slow
SHUFFLES = 5


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in files()[name].read_text().splitlines()]


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
        held_out_accuracy(tmp_path / f"shuffle{seed}", shuffled_verdicts(rows, seed=seed), held_out)
        for seed in range(SHUFFLES)
    ]
    mean = sum(accuracies) / SHUFFLES
    print(f"true verdicts {true:.3f}; shuffled {', '.join(f'{a:.3f}' for a in accuracies)}; mean {mean:.3f}")
    assert true > 0.80
    assert abs(mean - 0.5) <= 0.05
