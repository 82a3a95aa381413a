"""Checkpoints: whole or not there, verified before use, never deleted before a newer one stands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.checkpoints import MANIFEST, can_resume, fault_of, load_trainer, newest_valid, prune, save_checkpoint
from engine.errors import CheckpointError
from engine.run.folder import RunFolder


def save(checkpoints: Path, step: int, weights: bytes = b"weights") -> Path:
    checkpoints.mkdir(exist_ok=True)
    return save_checkpoint(
        checkpoints,
        step,
        write_weights=lambda folder: (folder / "model.safetensors").write_bytes(weights) and None,
        tensors={"optimizer": {"x": torch.arange(3)}},
        state={"progress": {"step": step}},
    )


def steps_in(checkpoints: Path) -> list[int]:
    return sorted(int(f.name.removeprefix("step-")) for f in checkpoints.glob("step-*"))


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    folder = save(tmp_path / "c", 7)
    assert folder.name == "step-000007"
    assert fault_of(folder) is None
    tensors, state = load_trainer(folder)
    assert tensors["optimizer"]["x"].tolist() == [0, 1, 2]
    assert state["progress"] == {"step": 7}
    assert all(file.stat().st_mode & 0o077 == 0 for file in folder.rglob("*") if file.is_file())


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut short": lambda f: (f / "model.safetensors").write_bytes(b"weight"),
    "one bit": lambda f: (f / "model.safetensors").write_bytes(b"weighus"),
    "missing": lambda f: (f / "trainer" / "state.json").unlink(),
    "no manifest": lambda f: (f / MANIFEST).unlink(),
    "torn manifest": lambda f: (f / MANIFEST).write_text('{"files": '),
    "empty": lambda f: (f / "model.safetensors").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_damage_is_seen_moved_aside_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    checkpoints = tmp_path / "c"
    save(checkpoints, 1)
    DAMAGE[damage](save(checkpoints, 2))
    told: list[tuple[str, str]] = []
    newest = newest_valid(checkpoints, lambda name, what: told.append((name, what)))
    assert newest is not None
    assert newest.name == "step-000001"
    assert told[0][0] == "step-000002"
    assert told[0][1]
    assert len(list(checkpoints.glob("bad-step-000002-*"))) == 1


def test_a_failure_leaves_nothing_behind_and_the_ones_before_stand(tmp_path: Path) -> None:
    checkpoints = tmp_path / "c"
    save(checkpoints, 1)

    def full(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=r"step-000002 .* No space left .* MB are free"):
        save_checkpoint(checkpoints, 2, write_weights=full, tensors={}, state={})
    assert [f.name for f in checkpoints.iterdir()] == ["step-000001"]


def test_a_damaged_folder_in_the_way_is_moved_and_a_whole_one_kept(tmp_path: Path) -> None:
    checkpoints = tmp_path / "c"
    first = save(checkpoints, 3, b"old")
    save(checkpoints, 3, b"new")
    assert (first / "model.safetensors").read_bytes() == b"old"
    (first / "model.safetensors").write_bytes(b"bad")
    save(checkpoints, 3, b"new")
    assert (first / "model.safetensors").read_bytes() == b"new"


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    checkpoints = tmp_path / "c"
    for step in range(1, 7):
        save(checkpoints, step)
    (checkpoints / "step-000009.tmp-dead").mkdir()
    assert prune(checkpoints, keep=2, best_step=3) == [1, 2, 4]
    assert steps_in(checkpoints) == [3, 5, 6]


def whole_in(checkpoints: Path) -> list[int]:
    return [step for step in steps_in(checkpoints) if can_resume(checkpoints / f"step-{step:06d}")]


def test_of_the_best_and_of_multiples_the_weights_alone_are_kept(tmp_path: Path) -> None:
    checkpoints = tmp_path / "c"
    for step in range(1, 8):
        save(checkpoints, step)
    assert prune(checkpoints, keep=2, best_step=1, keep_every=3) == [2, 4, 5]
    assert steps_in(checkpoints) == [1, 3, 6, 7]
    assert whole_in(checkpoints) == [6, 7]
    kept = checkpoints / "step-000001"
    assert fault_of(kept) is None
    assert (kept / "model.safetensors").read_bytes() == b"weights"
    assert not (kept / "trainer").exists()


def test_weights_that_another_run_was_made_over_are_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in range(1, 6):
        save(run.checkpoints, step)
    run.needed_path(2).touch()
    assert prune(run.checkpoints, keep=1, best_step=4) == [1, 3]
    assert steps_in(run.checkpoints) == [2, 4, 5]
    assert run.checkpoint_steps() == [2, 4, 5]


def test_a_run_goes_on_from_a_whole_checkpoint_and_never_loses_its_last_one(tmp_path: Path) -> None:
    checkpoints = tmp_path / "c"
    for step in (1, 2, 3):
        save(checkpoints, step)
    prune(checkpoints, keep=1, best_step=2)
    (checkpoints / "step-000003" / MANIFEST).unlink()
    assert newest_valid(checkpoints, lambda name, what: None) is None
    assert steps_in(checkpoints) == [2]
    save(checkpoints, 1)  # the run begins anew, behind its best
    prune(checkpoints, keep=1, best_step=2)
    assert whole_in(checkpoints) == [1]
    again = save(checkpoints, 2)
    assert can_resume(again)
    prune(checkpoints, keep=1, best_step=2)
    assert steps_in(checkpoints) == whole_in(checkpoints) == [2]
    assert [folder.name for folder in checkpoints.glob("step-*")] == ["step-000002"]


def test_a_kill_between_manifest_and_trainer_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "c"
    for step in (1, 2):
        save(checkpoints, step)
    with monkeypatch.context() as killed:
        killed.setattr("engine.checkpoints.shutil.rmtree", lambda *_, **__: None)
        prune(checkpoints, keep=1, best_step=1)
    assert (checkpoints / "step-000001" / "trainer").is_dir()
    assert fault_of(checkpoints / "step-000001") is None
    assert whole_in(checkpoints) == [2]
    prune(checkpoints, keep=1, best_step=1)
    assert not (checkpoints / "step-000001" / "trainer").exists()


def test_a_disk_with_less_than_twice_the_last_one_free_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "c"
    size = sum(f.stat().st_size for f in save(checkpoints, 1, bytes(2**20)).rglob("*") if f.is_file())
    usage = shutil.disk_usage(checkpoints)
    monkeypatch.setattr("engine.checkpoints.shutil.disk_usage", lambda _: usage._replace(free=2 * size - 1))
    with pytest.raises(CheckpointError, match=r"step-000002 was not written: 2 MB are free .* 2 MB are wanted"):
        save(checkpoints, 2)
    assert [f.name for f in checkpoints.iterdir()] == ["step-000001"]
    monkeypatch.setattr("engine.checkpoints.shutil.disk_usage", lambda _: usage._replace(free=2 * size))
    save(checkpoints, 2)


def test_nothing_is_pruned_while_the_newest_is_damaged(tmp_path: Path) -> None:
    checkpoints = tmp_path / "c"
    for step in range(1, 4):
        save(checkpoints, step)
    manifest = checkpoints / "step-000003" / MANIFEST
    content = json.loads(manifest.read_text())
    content["files"]["model.safetensors"]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(content))
    assert prune(checkpoints, keep=1, best_step=None) == []
    assert steps_in(checkpoints) == [1, 2, 3]


def test_order_is_by_step_beyond_a_million(tmp_path: Path) -> None:
    checkpoints = tmp_path / "c"
    for step in (999_999, 1_000_000):
        save(checkpoints, step)
    newest = newest_valid(checkpoints, lambda name, what: None)
    assert newest is not None
    assert newest.name == "step-1000000"


def test_the_newest_before_each_step_that_is_to_be_spared_keeps_its_weights(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step)
    assert prune(tmp_path, keep=2, best_step=None, spare_before=[1, 4, 5]) == [1, 2, 5]
    assert [folder.name for folder in sorted(tmp_path.glob("step-*"))] == [f"step-{s:06d}" for s in (3, 4, 6, 7)]
    assert not (tmp_path / "step-000003" / "trainer").exists()
