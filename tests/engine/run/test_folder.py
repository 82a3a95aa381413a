"""A run folder is made whole or not at all, and private."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.errors import RunFolderError
from engine.run.folder import RunFolder
from engine.run.status import describe


def seal(folder: RunFolder, step: int) -> None:
    folder.checkpoint_path(step).mkdir()
    (folder.checkpoint_path(step) / "MANIFEST.json").write_text("{}")


def test_a_new_run_has_its_folders_and_is_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        folder = RunFolder.create(
            tmp_path / "r1", "[run]\n", lambda f: (f.data / "train.jsonl").write_text("") and None
        )
    finally:
        os.umask(old)
    assert folder.id == "r1"
    assert {p.name for p in folder.path.iterdir()} == {"run.toml", "control", "checkpoints", "data"}
    assert all(p.stat().st_mode & 0o777 == 0o700 for p in [folder.path, *folder.path.iterdir()] if p.is_dir())
    assert folder.config_path.stat().st_mode & 0o777 == 0o600


def test_an_occupied_name_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "r1").mkdir()
    (tmp_path / "r1" / "mine").write_text("mine")
    with pytest.raises(RunFolderError, match="never takes an occupied name"):
        RunFolder.create(tmp_path / "r1", "[run]\n")
    assert (tmp_path / "r1" / "mine").read_text() == "mine"


def test_a_fault_while_it_is_filled_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: RunFolder) -> None:
        (folder.data / "train.jsonl").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunFolderError, match="no space left"):
        RunFolder.create(tmp_path / "r1", "[run]\n", fail)
    assert os.listdir(tmp_path) == []


def test_run_toml_comes_last(tmp_path: Path) -> None:
    def look(folder: RunFolder) -> None:
        assert not folder.config_path.exists()
        assert describe(folder).state == "damaged"

    RunFolder.create(tmp_path / "r1", "[run]\n", look)


def test_only_sealed_checkpoints_exist(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "r1", "[run]\n")
    assert folder.checkpoint_steps() == []
    for step in (200, 20, 1_000_000):
        seal(folder, step)
    (folder.checkpoints / "step-000300").mkdir()
    for name in ("step-000400.tmp-ab", "bad-step-000500-1", "step-x", "step-12"):
        (folder.checkpoints / name).mkdir()
        (folder.checkpoints / name / "MANIFEST.json").write_text("{}")
    assert folder.checkpoint_steps() == [20, 200, 1_000_000]
    assert folder.checkpoint_path(20).name == "step-000020"
    assert RunFolder(tmp_path / "none").checkpoint_steps() == []


def test_the_best_is_forgotten_with_its_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "r1", "[run]\n")
    assert folder.best() is None
    folder.write_best({"step": 20, "metric": "eval_loss", "value": 1.5})
    assert folder.best() is None
    seal(folder, 20)
    assert folder.best() == {"step": 20, "metric": "eval_loss", "value": 1.5}
    folder.best_path.write_text(json.dumps({"step": "x"}))
    assert folder.best() is None
