"""Deleting data frees what it says, takes no verdict and no file elsewhere, and asks where something was made of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engine.run.config_layers import resolve
from engine.run.config_toml import to_toml
from engine.run.folder import RunFolder
from workbench.cli import main
from workbench.dataset_removal import removal_of_data, remove_data
from workbench.dataset_store import add_dataset
from workbench.errors import NotFound, WorkbenchError
from workbench.pair_sets import open_pairs, pairs_from_dataset
from workbench.preferences import freeze
from workbench.workspace import Workspace


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "better.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"q{n}", "chosen": "good", "rejected": "bad"}) + "\n" for n in range(40))
    )
    return path


@pytest.fixture
def judged(workspace: Workspace, file: Path) -> Workspace:
    """A dataset, the pair set p of it with the verdicts that came along, and the preference set f of that."""
    pairs_from_dataset(workspace, "p", add_dataset(workspace, file))
    freeze(workspace, "p", "f")
    return workspace


def a_run_on(workspace: Workspace, name: str) -> None:
    layer = {"run": {"id": "1124-dpo-x-k3f"}, "data": {"names": [name]}}
    RunFolder.create(workspace.runs / "1124-dpo-x-k3f", to_toml(resolve("dpo", [("test", layer)]).config))


class TestADataset:
    def test_a_file_that_it_refers_to_stays(self, workspace: Workspace, file: Path) -> None:
        add_dataset(workspace, file)
        removal = remove_data(workspace, "better")
        assert removal.words().endswith(f"of which the file stays where it is: {file}.")
        assert file.is_file()
        assert list(workspace.datasets.iterdir()) == []

    def test_a_copy_goes_with_it_and_its_size_is_said(self, workspace: Workspace, file: Path) -> None:
        add_dataset(workspace, file, copy=True)
        removal = removal_of_data(workspace, "better")
        assert removal.freed_bytes > file.stat().st_size
        assert "40 rows: the workspace's own copy goes with it" in removal.words()
        assert remove_data(workspace, "better").freed_bytes == removal.freed_bytes

    def test_what_was_made_of_it_is_named_and_outlives_it(self, judged: Workspace) -> None:
        a_run_on(judged, "better")
        with pytest.raises(WorkbenchError, match="run 1124-dpo-x-k3f, pair set p were made of it. .*--even-if-used"):
            remove_data(judged, "better")
        assert (judged.datasets / "better").is_dir()
        before = {path: path.read_bytes() for path in (judged.pairs / "p").rglob("*") if path.is_file()}
        remove_data(judged, "better", even_if_used=True)
        assert {path: path.read_bytes() for path in (judged.pairs / "p").rglob("*") if path.is_file()} == before
        assert open_pairs(judged, "p").status().verdicts

    def test_one_whose_description_is_damaged_can_go(self, workspace: Workspace, file: Path) -> None:
        add_dataset(workspace, file)
        (workspace.datasets / "better" / "dataset.toml").write_text("schema = [")
        remove_data(workspace, "better")
        assert workspace.names("datasets") == []

    def test_what_is_not_there(self, judged: Workspace) -> None:
        with pytest.raises(NotFound, match="There are: better, f"):
            removal_of_data(judged, "nothing")


class TestAPreferenceSet:
    def test_it_goes_and_can_be_frozen_again(self, judged: Workspace) -> None:
        was = (judged.prefs / "f" / "train.jsonl").read_bytes()
        assert "The pair sets stay with every verdict" in remove_data(judged, "f").words()
        freeze(judged, "p", "f")
        assert (judged.prefs / "f" / "train.jsonl").read_bytes() == was

    def test_a_run_on_it_is_named(self, judged: Workspace) -> None:
        a_run_on(judged, "f")
        with pytest.raises(WorkbenchError, match="preference set f is in use: run 1124-dpo-x-k3f was made of it"):
            remove_data(judged, "f")

    @pytest.mark.parametrize("gone", ["p", "p/judgments"])
    def test_verdicts_that_are_nowhere_else_are_never_deleted(self, judged: Workspace, gone: str) -> None:
        shutil.rmtree(judged.pairs / gone)
        with pytest.raises(WorkbenchError, match="holds verdicts on p that are nowhere else"):
            remove_data(judged, "f", even_if_used=True)
        assert (judged.prefs / "f" / "train.jsonl").is_file()


class TestTheCommand:
    def test_it_asks_and_says_what_it_did(
        self, judged: Workspace, capsys: pytest.CaptureFixture[str], file: Path
    ) -> None:
        def typed(*arguments: str) -> tuple[int, str, str]:
            code = main(["--workspace", str(judged.root), "data", "rm", *arguments])
            return (code, *capsys.readouterr())

        code, _, err = typed("f")
        assert (code, "add --yes to delete f" in err) == (2, True)
        code, out, err = typed("better", "--yes")
        assert (code, out) == (1, "")
        assert "pair set p was made of it" in err
        code, out, _ = typed("better", "--yes", "--even-if-used", "--json")
        told = json.loads(out)
        assert (code, told["deleted"], told["users"], told["file"]) == (0, "better", ["pair set p"], str(file))
        assert typed("f", "--yes")[0] == 0
        assert judged.names("prefs") == []
