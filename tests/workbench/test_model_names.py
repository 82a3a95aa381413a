"""What may be written after --model, in its documented order; what cannot be one says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.workbench.run_folders import held, make_model, make_run
from workbench.errors import NotFound, UsageError, WorkbenchError
from workbench.model_names import cache_folder, resolve_model
from workbench.workspace import Workspace


class TestSample:
    def test_it_is_a_whole_model(self) -> None:
        model = resolve_model(None, "sample")
        assert (model.path / "config.json").is_file()
        assert (model.source, model.adapter) == ("sample", None)
        assert len(model.sha256) == 64


class TestPaths:
    def test_a_folder(self, tmp_path: Path) -> None:
        folder = make_model(tmp_path / "m")
        model = resolve_model(None, str(folder))
        assert (model.path, model.adapter, model.is_reward_model) == (folder, None, False)
        other = make_model(tmp_path / "n", b"other weights")
        assert resolve_model(None, str(other)).sha256 != model.sha256

    def test_a_relative_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_model(tmp_path / "m")
        monkeypatch.chdir(tmp_path)
        assert resolve_model(None, "./m").path == tmp_path / "m"

    def test_an_adapter_folder_names_its_base(self, tmp_path: Path) -> None:
        base = make_model(tmp_path / "base")
        adapter = tmp_path / "adapter"
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
        (adapter / "adapter_model.safetensors").write_bytes(b"x")
        model = resolve_model(None, str(adapter))
        assert (model.path, model.adapter) == (base, adapter)
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/name"}))
        with pytest.raises(NotFound, match="base_model_name_or_path"):
            resolve_model(None, str(adapter))

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ([], "no config.json"),
            (["config.json"], "no safetensors"),
            (["config.json", "pytorch_model.bin"], "pickles are refused"),
            (["config.json", "model.safetensors"], "no tokenizer.json"),
        ],
    )
    def test_what_is_missing_is_named(self, tmp_path: Path, files: list[str], said: str) -> None:
        folder = tmp_path / "m"
        folder.mkdir()
        for name in files:
            (folder / name).write_text("{}")
        with pytest.raises(WorkbenchError, match=said):
            resolve_model(None, str(folder))

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="no such folder or file"):
            resolve_model(None, str(tmp_path / "nothing"))

    def test_a_file_that_is_no_gguf(self, tmp_path: Path) -> None:
        file = tmp_path / "model.gguf"
        file.write_bytes(b"PK\x03\x04")
        with pytest.raises(WorkbenchError, match="not a GGUF file"):
            resolve_model(None, str(file))

    def test_the_cache_is_the_users(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder() == tmp_path / "workbench" / "models"


class TestRuns:
    @pytest.fixture
    def base(self, workspace: Workspace) -> Path:
        return make_model(workspace.root / "base")

    def test_without_a_step_the_best_is_taken(self, workspace: Workspace, base: Path) -> None:
        make_run(workspace, "1124-sft-a-k3f", model="base", checkpoints=(2, 4), best=2)
        model = resolve_model(workspace, "run:1124-sft-a-k3f")
        assert model.source == "run:1124-sft-a-k3f@2"
        assert model.path == base
        assert model.adapter == workspace.runs / "1124-sft-a-k3f" / "checkpoints" / "step-000002"
        assert resolve_model(workspace, "run:a@last").source == "run:1124-sft-a-k3f@4"
        assert resolve_model(workspace, "run:-@4").sha256 == resolve_model(workspace, "run:-@last").sha256
        assert resolve_model(workspace, "run:-@4").sha256 != model.sha256

    def test_without_a_best_the_last_is_taken(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-grpo-a-k3f", adapter_kind="full", checkpoints=(2, 4))
        model = resolve_model(workspace, "run:-")
        assert (model.source, model.adapter) == ("run:1124-grpo-a-k3f@4", None)
        assert model.path.name == "step-000004"
        with pytest.raises(NotFound, match="@last"):
            resolve_model(workspace, "run:-@best")

    def test_paths_inside_the_workspace_are_written_relative(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-sft-a-k3f", adapter_kind="full", checkpoints=(4,))
        written = resolve_model(workspace, "run:-").written_in(workspace)
        assert written["path"] == "runs/1124-sft-a-k3f/checkpoints/step-000004"

    def test_a_reward_model_is_known_by_its_head(self, workspace: Workspace, base: Path) -> None:
        run = make_run(workspace, "1124-reward-a-k3f", model="base", checkpoints=(4,))
        assert not resolve_model(workspace, "run:-").is_reward_model
        (run.checkpoint_path(4) / "reward_head.safetensors").write_bytes(b"x")
        assert resolve_model(workspace, "run:-").is_reward_model

    @pytest.mark.parametrize(
        ("written", "said"), [("run:-@7", "there are: 4"), ("run:-@x", "a step, best or last"), ("run:zz", "no run")]
    )
    def test_what_is_not_there(self, workspace: Workspace, written: str, said: str) -> None:
        make_run(workspace, "1124-sft-a-k3f", checkpoints=(4,))
        with pytest.raises(WorkbenchError, match=said):
            resolve_model(workspace, written)

    def test_a_run_without_a_checkpoint(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-sft-a-k3f", phase="stopped", step=0)
        with pytest.raises(NotFound, match="no weights: stopped. Go on with it: workbench runs resume 1124-sft-a-k3f"):
            resolve_model(workspace, "run:-")
        running = make_run(workspace, "1125-sft-a-k3f", phase="running", created="2026-11-25T10:00:00+00:00")
        with held(running), pytest.raises(NotFound, match="is running and has no checkpoint yet; wait for one"):
            resolve_model(workspace, "run:-")

    def test_a_run_that_was_stopped_before_its_first_step_says_so(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-sft-a-k3f", adapter_kind="full", checkpoints=(0,))
        assert "not trained" in resolve_model(workspace, "run:-").note

    def test_a_base_that_is_gone(self, workspace: Workspace) -> None:
        make_run(workspace, "1124-sft-a-k3f", model="gone", checkpoints=(4,))
        with pytest.raises(NotFound, match="not there any more"):
            resolve_model(workspace, "run:-")


class TestBareNames:
    def test_a_run_comes_before_a_folder_and_both_are_an_error(
        self, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        make_run(workspace, "1124-sft-mine-k3f", adapter_kind="full", checkpoints=(4,))
        assert resolve_model(workspace, "mine").source == "run:1124-sft-mine-k3f@4"
        assert resolve_model(workspace, "mine@4").source == "run:1124-sft-mine-k3f@4"
        make_model(tmp_path / "mine")
        assert resolve_model(workspace, "mine").path == tmp_path / "mine"  # the run was given no name
        make_run(workspace, "1124-sft-mine-new", name="mine", adapter_kind="full", checkpoints=(4,))
        with pytest.raises(UsageError, match=r"run:1124-sft-mine-new or \./mine"):
            resolve_model(workspace, "mine")
        make_model(tmp_path / "other")
        assert resolve_model(workspace, "other").path == tmp_path / "other"

    @pytest.mark.parametrize("written", ["", "nothing", "a\x00b"])
    def test_none(self, workspace: Workspace, written: str) -> None:
        with pytest.raises(WorkbenchError, match=r"hf:ORG/NAME"):
            resolve_model(workspace, written)


class TestHub:
    """Against a cache in the Hub's own layout, offline."""

    @pytest.fixture
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        repository = tmp_path / "hf" / "hub" / "models--org--tiny"
        commit = "a" * 40
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        return make_model(repository / "snapshots" / commit)

    def test_a_cached_model_is_found_with_its_revision(self, hub: Path) -> None:
        model = resolve_model(None, "hf:org/tiny", quiet=True)
        assert model.path == hub
        assert model.source == f"hf:org/tiny@{'a' * 40}"

    def test_one_that_is_not_cached_says_so_and_what_to_do(self, hub: Path) -> None:
        with pytest.raises(WorkbenchError, match="HF_HUB_OFFLINE is set") as caught:
            resolve_model(None, "hf:org/other", quiet=True)
        assert "hf download org/other" in str(caught.value)

    def test_pickled_weights_are_refused(self, hub: Path) -> None:
        (hub / "model.safetensors").unlink()
        with pytest.raises(WorkbenchError, match="no safetensors weights"):
            resolve_model(None, "hf:org/tiny", quiet=True)

    @pytest.mark.parametrize("written", ["hf:", "hf:tiny", "hf:org/", "hf:org/tiny@", "hf:a/b/c", "hf:--x/y"])
    def test_what_is_no_hub_name(self, written: str) -> None:
        with pytest.raises(UsageError, match="hf:ORG/NAME"):
            resolve_model(None, written)
