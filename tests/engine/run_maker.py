"""Run folders for the tiny model, as `workbench train` would freeze them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.folder import RunFolder

WORDS = ("sea", "rain", "bread", "robin", "heron", "crow", "cat", "mat", "line", "colour")


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
        "probe": {"every": 3, "prompts": 6, "max_new_tokens": 8},
    }
    if method == "ppo":
        layer["ppo"] = {"max_new_tokens": 8}
    for key, value in settings.items():
        section, _, name = key.partition("__")
        layer.setdefault(section, {})[name] = value
    resolved = resolve(method, [("test", layer)])

    def fill(folder: RunFolder) -> None:
        write_rows(folder.data / "train.jsonl", preference_rows(train_rows, seed=1))
        write_rows(folder.data / "eval.jsonl", preference_rows(eval_rows, seed=2))

    return RunFolder.create(path, to_toml(resolved.config), fill)
