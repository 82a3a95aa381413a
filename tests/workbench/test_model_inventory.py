"""`workbench models`: each stored model once, with its size and the runs that use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sample_data import ROOT
from tests.workbench.run_folders import make_checkpoint, make_model, make_run
from workbench.cli import main
from workbench.model_inventory import StoredModel, hub_cache, stored_models
from workbench.workspace import Workspace


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of this program and of the Hub."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def listed(workspace: Workspace | None) -> dict[str, StoredModel]:
    found = stored_models(workspace)
    assert len({model.path for model in found}) == len(found), "each once"
    return {model.name: model for model in found}


def test_without_a_workspace_there_is_the_sample_model() -> None:
    [sample] = listed(None).values()
    assert (sample.kind, sample.used_by) == ("sample", ())
    assert sample.bytes >= (ROOT / "model" / "model.safetensors").stat().st_size


def test_bases_checkpoints_and_adapters(workspace: Workspace, tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", b"x" * 1000)
    make_run(workspace, "1124-sft-a-k3f", source=str(base), model=str(base), checkpoints=(2, 4), best=2)
    start = workspace.runs / "1124-sft-a-k3f" / "checkpoints" / "step-000002"
    later = "2026-11-24T11:00:00+00:00"
    make_run(
        workspace, "1124-dpo-b-k3f", created=later, source="run:1124-sft-a-k3f@2", model=str(base), adapter=str(start)
    )
    models = listed(workspace)
    assert set(models) == {"sample", str(base), "run:1124-sft-a-k3f"}, "a run without a checkpoint is no model"
    assert models[str(base)].used_by == ("1124-sft-a-k3f", "1124-dpo-b-k3f")
    assert models[str(base)].bytes == sum(file.stat().st_size for file in base.iterdir())
    run = models["run:1124-sft-a-k3f"]
    assert (run.what, run.used_by) == ("sft, adapter, best step 2, last 4", ("1124-dpo-b-k3f",))
    assert run.bytes == sum(file.stat().st_size for file in Path(run.path).rglob("*") if file.is_file())


def test_a_base_that_is_gone_says_so(workspace: Workspace, tmp_path: Path) -> None:
    make_run(workspace, "1124-sft-a-k3f", source="./gone", model=str(tmp_path / "gone"))
    assert listed(workspace)["./gone"].what == "base, which is not there any more"


def test_conversions_and_the_cache_of_the_hub(
    workspace: Workspace, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversion = make_model(caches / "workbench" / "models" / "gguf-abc-1", b"x" * 50)
    repository = caches / "huggingface" / "hub" / "models--org--tiny"
    for revision in ("a" * 40, "b" * 40):
        make_model(repository / "snapshots" / revision)
    (repository / "snapshots" / ("c" * 40)).mkdir()  # a download that was cut short
    blob = repository / "blobs" / "1"
    blob.parent.mkdir()
    blob.write_bytes(b"w" * 500)
    weights = repository / "snapshots" / ("b" * 40) / "model.safetensors"
    weights.unlink()
    weights.symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40)
    models = listed(workspace)
    assert set(models) == {"sample", str(conversion), "hf:org/tiny", f"hf:org/tiny@{'a' * 40}"}
    assert models["hf:org/tiny"].bytes >= 500
    make_run(workspace, "1124-sft-a-k3f", source="./x.gguf", model=str(conversion))
    assert "./x.gguf" in listed(workspace)
    assert str(conversion) not in listed(workspace), "listed as the base that it is"
    monkeypatch.setenv("HF_HOME", str(caches / "elsewhere"))
    assert hub_cache() == caches / "elsewhere" / "hub"
    assert "hf:org/tiny" not in listed(workspace)
    monkeypatch.setenv("HF_HUB_CACHE", str(caches / "huggingface" / "hub"))
    assert "hf:org/tiny" in listed(workspace)


def test_the_command(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(workspace, "1124-sft-a-k3f", model=str(ROOT / "model"))
    make_checkpoint(folder, 4, "lora")
    assert main(["--workspace", str(workspace.root), "models", "--json"]) == 0
    said = {model["name"]: model for model in json.loads(capsys.readouterr().out)["models"]}
    assert said["sample"]["used_by"] == ["1124-sft-a-k3f"]
    assert said["run:1124-sft-a-k3f"]["bytes"] > 0
    assert main(["--workspace", str(workspace.root), "models"]) == 0
    assert "used by" in capsys.readouterr().out
