"""An export is whole or not there, writes over nothing, and says what it was made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import EngineError
from sample_data import ROOT
from tests.workbench.run_folders import make_adapter, make_run
from workbench import model_export
from workbench.cli import main
from workbench.errors import NameTaken, NotFound, UsageError, WorkbenchError
from workbench.model_export import export_model
from workbench.model_names import ResolvedModel
from workbench.workspace import Workspace


def adapter_of(path: Path, base: Path = ROOT / "model") -> ResolvedModel:
    return ResolvedModel("run:x@4", base, make_adapter(path), "0" * 64)


def test_an_adapter_alone(tmp_path: Path) -> None:
    model = adapter_of(tmp_path / "a")
    assert model.adapter is not None
    (model.adapter / "MANIFEST.json").write_text("{}")
    (model.adapter / "trainer").mkdir()
    (model.adapter / "trainer" / "state.json").write_text("{}")
    done = export_model(model, tmp_path / "out", adapter_alone=True)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "exported.json"}
    assert json.loads((tmp_path / "out" / "exported.json").read_text())["source"] == "run:x@4"
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        model.path
    )
    assert (done.what, done.bytes > 0) == ("adapter", True)


def test_a_base_of_the_hub_is_named_as_others_find_it(tmp_path: Path) -> None:
    base = tmp_path / "hub" / "models--org--a-b" / "snapshots" / "abc123"
    base.mkdir(parents=True)
    export_model(adapter_of(tmp_path / "a", base), tmp_path / "out", adapter_alone=True)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/a-b", "abc123")


def test_refusals_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapter_of(tmp_path / "a")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(NameTaken, match="name a new folder with --to"):
        export_model(model, tmp_path / "a")
    with pytest.raises(NotFound, match="no such folder; make it first"):
        export_model(model, tmp_path / "x" / "out")
    with pytest.raises(UsageError, match="leave --adapter out"):
        export_model(ResolvedModel("sample", ROOT / "model"), tmp_path / "out", adapter_alone=True)
    monkeypatch.setattr(model_export, "free_megabytes", lambda place: 1)
    with pytest.raises(WorkbenchError, match="1 MB are free, and the merged model needs about 2 MB"):
        export_model(model, tmp_path / "out")
    assert model.adapter is not None
    (model.adapter / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(EngineError, match="not a whole safetensors file"):
        export_model(model, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_a_child_that_fails_leaves_nothing(tmp_path: Path) -> None:
    model = adapter_of(tmp_path / "a")
    with pytest.raises(WorkbenchError, match=r"exporting run:x@4: .*made for another base model"):
        export_model(model, tmp_path / "out", quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.slow
def test_the_command_exports_a_checkpoint_that_transformers_loads(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(workspace, "1124-sft-a-k3f", model=str(ROOT / "model"), adapter_kind="full", checkpoints=(2, 4))
    for step in (2, 4):
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (folder.checkpoint_path(step) / name).write_bytes((ROOT / "model" / name).read_bytes())
    command = ["--workspace", str(workspace.root), "runs", "export", "1124-sft@2", "--to", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["model"], said["what"], said["dtype"]) == ("run:1124-sft-a-k3f@2", "whole model", "bfloat16")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in (tmp_path / "out").iterdir()}
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err
