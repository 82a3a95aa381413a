"""Frozen examples are one file for the runs that share them; what no run uses is collected, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.run.blobs import note_blobs
from engine.run.folder import RunFolder
from engine.run.locks import hold
from tests.workbench.run_folders import make_run
from workbench.blob_collection import FROZEN, LOG_PROBS, REST, STORE, Unused, collect, unused_blobs, words_of
from workbench.cli import main
from workbench.dataset_store import add_dataset
from workbench.run_launch import LaunchRequest, create_run, plan_run
from workbench.run_list import find_run
from workbench.run_removal import removal_of, remove_run
from workbench.workspace import Workspace

ID = "1124-dpo-mine-k3f"
A, B, C = (letter * 64 for letter in "abc")


@pytest.fixture
def folder(workspace: Workspace) -> RunFolder:
    return make_run(workspace, ID)


def store(workspace: Workspace, name: str, size: int = 1000) -> Path:
    path = workspace.blobs / name
    path.mkdir()
    (path / "ids.values.npy").write_bytes(b"x" * size)
    return path


def file(workspace: Workspace, name: str, age_s: float = 0.0) -> Path:
    path = workspace.blobs / name
    path.write_bytes(b"x" * 500)
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))
    return path


class TestWhatIsUnused:
    def test_what_a_run_has_noted_stays(self, workspace: Workspace, folder: RunFolder) -> None:
        for name in (A, B):
            store(workspace, name)
            file(workspace, f"{name}.safetensors")
        note_blobs(folder, {"train": A, "reference_train": f"{A}.safetensors"})
        assert unused_blobs(workspace) == [Unused(B, STORE, 1000), Unused(f"{B}.safetensors", LOG_PROBS, 500)]
        collect(workspace, unused_blobs(workspace))
        assert {path.name for path in workspace.blobs.iterdir()} == {
            A, f"{A}.safetensors", f".{B}.lock", f".{B}.safetensors.lock",
        }  # fmt: skip

    def test_frozen_examples_stay_as_long_as_a_run_links_to_them(self, workspace: Workspace, folder: RunFolder) -> None:
        os.link(file(workspace, A), folder.data / "train.jsonl")
        file(workspace, B)
        assert unused_blobs(workspace) == [Unused(B, FROZEN, 500)]

    def test_answers_locks_and_strangers_are_left_alone(self, workspace: Workspace) -> None:
        names = ("answers-1.json", "compare.json", f".{A}.lock", "notes.txt", f".{A}.77.new")
        for name in names:
            file(workspace, name)
        store(workspace, "mine")
        (workspace.blobs / B).symlink_to(workspace.blobs / "mine")
        assert unused_blobs(workspace) == []

    def test_rests_of_killed_processes_are_taken(self, workspace: Workspace) -> None:
        store(workspace, f".{A}.new")
        store(workspace, f".{B}.gone")
        file(workspace, f".{A}.77.new", age_s=7200)
        file(workspace, f".{A}.safetensors.tmp-7-0a", age_s=7200)
        found = unused_blobs(workspace)
        assert [blob.kind for blob in found] == [REST] * 4
        assert words_of(found) == "0.0 MB: 4 rests of processes that were killed."
        assert collect(workspace, found) == found
        assert unused_blobs(workspace) == []


class TestAgainstARunThatStarts:
    def test_a_store_that_was_noted_in_the_meantime_stays(self, workspace: Workspace, folder: RunFolder) -> None:
        store(workspace, A)
        found = unused_blobs(workspace)
        note_blobs(folder, {"train": A})
        assert collect(workspace, found) == []
        assert (workspace.blobs / A / "ids.values.npy").exists()

    @pytest.mark.parametrize("name", [A, f".{A}.new"])
    def test_a_store_that_is_being_made_stays(self, workspace: Workspace, name: str) -> None:
        store(workspace, name)
        lock = hold(workspace.blobs / f".{A}.lock")
        assert lock is not None
        assert collect(workspace, unused_blobs(workspace)) == []
        lock.release()
        assert [blob.name for blob in collect(workspace, unused_blobs(workspace))] == [name]


class TestFrozenExamples:
    def test_runs_on_the_same_rows_share_them_until_the_last_is_gone(
        self, workspace: Workspace, tmp_path: Path
    ) -> None:
        rows = [{"prompt": f"q{n}", "chosen": "good", "rejected": "bad"} for n in range(40)]
        (tmp_path / "better.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        add_dataset(workspace, tmp_path / "better.jsonl")
        runs = [create_run(plan_run(workspace, LaunchRequest("dpo", "sample", ("better",), device="cpu"), quiet=True))
                for _ in range(2)]  # fmt: skip
        files = [run.folder.data / "train.jsonl" for run in runs]
        assert files[0].stat().st_ino == files[1].stat().st_ino
        assert files[0].stat().st_mode & 0o777 == 0o600
        blob = workspace.blobs / runs[0].config().data.train_sha256
        assert blob.read_bytes() == files[1].read_bytes()
        size = files[1].stat().st_size
        assert removal_of(runs[0]).freed_bytes < size
        remove_run(runs[0])
        assert unused_blobs(workspace) == []
        assert files[1].stat().st_size == size
        remove_run(find_run(workspace, runs[1].id))
        assert {blob.kind for blob in unused_blobs(workspace)} == {FROZEN}


class TestCommand:
    def type_(self, workspace: Workspace, *arguments: str) -> int:
        return main(["--workspace", str(workspace.root), "runs", "prune", *arguments])

    def test_it_says_what_would_go_and_asks(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.type_(workspace) == 0
        assert "runs use all of it" in capsys.readouterr().err
        store(workspace, A, 2_000_000)
        file(workspace, B)
        assert self.type_(workspace, "--dry-run") == 0
        assert "Would delete 2.0 MB: 1 tokenised file, 1 file of frozen examples." in capsys.readouterr().err
        assert self.type_(workspace) == 2
        assert "--yes" in capsys.readouterr().err
        assert self.type_(workspace, "--dry-run", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["deleted"], told["bytes"], [blob["name"] for blob in told["blobs"]]) == (False, 2_000_500, [A, B])
        assert (workspace.blobs / A).is_dir()
        assert self.type_(workspace, "--yes") == 0
        assert "Deleted 2.0 MB" in capsys.readouterr().err
        assert unused_blobs(workspace) == []
