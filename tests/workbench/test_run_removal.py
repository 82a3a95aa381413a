"""Deleting a run frees what it says, never takes what is alive or needed, and leaves no half of a run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.folder import RunFolder
from engine.run.locks import HeldLock, hold
from engine.run.status import read_status, write_status
from tests.workbench.run_folders import make_run
from workbench.cli import main
from workbench.errors import WorkbenchError
from workbench.run_list import all_runs, find_run
from workbench.run_removal import HIDDEN, removal_of, remove_run
from workbench.workspace import Workspace

ID = "1124-sft-mine-k3f"


@pytest.fixture
def locked(workspace: Workspace) -> Iterator[HeldLock]:
    """A run that is alive, because this process holds its lock."""
    lock = hold(make_run(workspace, ID, phase="running").lock_path)
    assert lock is not None
    yield lock
    lock.release()


def made_over(workspace: Workspace, run_id: str, **model: str) -> RunFolder:
    layer = {"run": {"id": run_id}, "model": model}
    return RunFolder.create(workspace.runs / run_id, to_toml(resolve("dpo", [("test", layer)]).config))


class TestRemoval:
    def test_it_says_what_goes_and_then_it_is_gone(self, workspace: Workspace) -> None:
        folder = make_run(workspace, ID, checkpoints=(2, 4))
        (folder.path / "engine.log").write_bytes(b"x" * 300_000)
        removal = removal_of(find_run(workspace, ID))
        assert removal.freed_bytes > 300_000
        assert removal.words().startswith("0.3 MB: 2 checkpoints, the metrics of 4 steps")
        remove_run(find_run(workspace, ID))
        assert all_runs(workspace) == []
        assert list(workspace.runs.iterdir()) == []

    def test_a_living_run_is_refused(self, workspace: Workspace, locked: HeldLock) -> None:
        with pytest.raises(WorkbenchError, match="is running; stop it first"):
            remove_run(find_run(workspace, ID))
        assert (workspace.runs / ID / "run.toml").exists()

    def test_so_is_one_whose_worker_outlives_its_supervisor(self, workspace: Workspace) -> None:
        lock = hold(make_run(workspace, ID, phase="running").tree_lock_path)
        assert lock is not None
        with pytest.raises(WorkbenchError, match="is orphaned"):
            remove_run(find_run(workspace, ID))
        lock.release()

    def test_and_one_that_another_machine_has_just_heard_of(self, workspace: Workspace) -> None:
        folder = make_run(workspace, ID, phase="running")
        status = read_status(folder)
        assert status is not None
        write_status(folder, replace(status, host="elsewhere", boot_id="other", heartbeat=time.time()))
        with pytest.raises(WorkbenchError, match="alive on another machine"):
            remove_run(find_run(workspace, ID))

    @pytest.mark.parametrize(
        "model",
        [
            {"source": f"run:{ID}@4"},
            {"source": "sample", "adapter": f"runs/{ID}/checkpoints/step-000004"},
            {"source": "sample", "reward_source": f"run:{ID}@4"},
        ],
    )
    def test_a_run_that_others_were_trained_over_is_kept(self, workspace: Workspace, model: dict[str, str]) -> None:
        make_run(workspace, ID, checkpoints=(4,))
        made_over(workspace, "1124-dpo-mine-abc", **model)
        with pytest.raises(WorkbenchError, match="1124-dpo-mine-abc was trained over its checkpoint"):
            remove_run(find_run(workspace, ID))
        remove_run(find_run(workspace, "1124-dpo-mine-abc"))
        remove_run(find_run(workspace, ID))

    def test_an_id_that_only_begins_alike_needs_nothing(self, workspace: Workspace) -> None:
        make_run(workspace, ID)
        made_over(workspace, "1124-dpo-mine-abc", source="run:1124-sft-mine-k3fx@4")
        remove_run(find_run(workspace, ID))

    def test_what_was_made_with_it_stays_and_is_named(self, workspace: Workspace) -> None:
        make_run(workspace, ID)
        arena = workspace.arena / "a"
        arena.mkdir()
        (arena / "pairs.toml").write_text(f'models = ["run:{ID}@4"]\n')
        assert "What was made with it stays: arena a." in remove_run(find_run(workspace, ID)).words()
        assert arena.is_dir()

    def test_a_torn_run_can_be_deleted(self, workspace: Workspace) -> None:
        (make_run(workspace, ID).config_path).write_text("[ru")
        remove_run(find_run(workspace, ID))
        assert all_runs(workspace) == []

    def test_what_a_killed_removal_leaves_is_no_run_and_is_swept(self, workspace: Workspace) -> None:
        folder = make_run(workspace, ID)
        os.rename(folder.path, workspace.runs / f"{HIDDEN}{ID}-00")
        assert all_runs(workspace) == []
        with workspace.new_folder("runs", "1124-sft-next-abc"):
            pass
        assert [path.name for path in workspace.runs.iterdir()] == ["1124-sft-next-abc"]


class TestCommand:
    def type_(self, workspace: Workspace, *arguments: str) -> int:
        return main(["--workspace", str(workspace.root), "runs", "rm", *arguments])

    def test_without_a_terminal_it_wants_yes(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        make_run(workspace, ID, checkpoints=(4,))
        assert self.type_(workspace, ID) == 2
        said = capsys.readouterr().err
        assert "1 checkpoint" in said
        assert "--yes" in said
        assert len(all_runs(workspace)) == 1
        assert self.type_(workspace, ID, "--yes", "--json") == 0
        assert json.loads(capsys.readouterr().out)["run"] == ID
        assert all_runs(workspace) == []

    def test_a_refusal_is_one_line(
        self, workspace: Workspace, locked: HeldLock, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        assert self.type_(workspace, ID, "--yes") == 1
        assert "stop it first" in capsys.readouterr().err
