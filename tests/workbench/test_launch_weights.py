"""Which weights train: what a launch refuses, and what run.toml says of an adapter that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.model.four_bit import four_bit_fault
from engine.run.config import AdapterConfig
from engine.run.reference_policy import reference_words
from sample_data import ROOT
from tests.workbench.run_folders import make_adapter
from workbench.dataset_store import add_dataset
from workbench.errors import UsageError
from workbench.launch_weights import adapter_words, matrix_names
from workbench.run_launch import LaunchRequest, Plan, plan_run
from workbench.workspace import Workspace


@pytest.fixture(autouse=True)
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def data(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Demonstrations and preferences."""
    demos = [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(20)]
    prefs = [{"prompt": f"q{n}", "chosen": "good", "rejected": "bad"} for n in range(20)]
    for name, rows in (("demos", demos), ("prefs", prefs)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        add_dataset(workspace, tmp_path / f"{name}.jsonl")
    return workspace


def plan(workspace: Workspace, method: str, *names: str, **options: Any) -> Plan:
    return plan_run(workspace, LaunchRequest(method, options.pop("model", "sample"), names, **options), quiet=True)


class TestRefusals:
    def test_four_bits_on_a_cpu(self, data: Workspace) -> None:
        with pytest.raises(UsageError, match=r"needs an NVIDIA device.*Set adapter\.kind=lora"):
            plan(data, "sft", "demos", settings=("adapter.kind=qlora",))

    def test_four_bits_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("engine.model.four_bit.find_spec", lambda name: None)
        assert "pip install 'workbench[qlora]'" in (four_bit_fault("cuda") or "")
        monkeypatch.setattr("engine.model.four_bit.find_spec", lambda name: object())
        assert four_bit_fault("cuda") is None

    def test_layers_that_are_not_there_are_refused_before_anything_is_written(self, data: Workspace) -> None:
        with pytest.raises(UsageError, match=r"sample has no layer qproj. It has: down_proj, gate_proj, k_proj"):
            plan(data, "sft", "demos", settings=("adapter.targets=v_proj,qproj",))
        kept = plan(data, "sft", "demos", settings=("adapter.targets=v_proj, q_proj", "adapter.rslora=true"))
        assert kept.resolved.config.adapter.rslora
        assert list(data.runs.iterdir()) == []


def test_the_names_are_of_matrices_in_layers() -> None:
    names = matrix_names(ROOT / "model")
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


class TestGoingOnWithAnAdapter:
    def test_run_toml_says_its_shape_and_names_what_it_overrules(self, data: Workspace, tmp_path: Path) -> None:
        targets = ["x.0.q_proj", "v_proj"]
        folder = make_adapter(tmp_path / "a", r=4, lora_alpha=6, use_rslora=True, target_modules=targets)
        made = plan(data, "dpo", "prefs", model=str(folder), settings=("adapter.r=64", "adapter.alpha=6"))
        adapter = made.resolved.config.adapter
        assert (adapter.r, adapter.alpha, adapter.rslora, adapter.dora) == (4, 6.0, True, False)
        assert adapter.targets == "q_proj,v_proj"
        assert made.resolved.origins["adapter.r"] == "this run"
        assert [note for note in made.notes if "adapter.r = 64 is not used" in note and "rank 4" in note]
        assert not [note for note in made.notes if "alpha" in note]
        assert reference_words(made.resolved.config).startswith(f"the adapter of {folder}, frozen")

    def test_full_fine_tuning_merges_it(self, data: Workspace, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "a", r=4)
        made = plan(data, "dpo", "prefs", model=str(folder), settings=("adapter.kind=full",))
        assert made.resolved.config.adapter.r == 16
        assert "its adapter merged" in reference_words(made.resolved.config)

    def test_an_adapter_that_names_no_layers(self, data: Workspace, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "a", r=4)
        written = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(written | {"target_modules": None}))
        with pytest.raises(EngineError, match="target_modules = None"):
            plan(data, "dpo", "prefs", model=str(folder))


def test_references_in_words(data: Workspace) -> None:
    assert reference_words(plan(data, "dpo", "prefs").resolved.config).startswith("sample itself, without the adapter")
    full = plan(data, "sft", "demos", settings=("adapter.kind=full",)).resolved.config
    assert reference_words(full) == "a frozen copy of all weights of sample, as they were before the first step"
    assert reference_words(plan(data, "reward", "prefs").resolved.config) == ""


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (AdapterConfig(), "LoRA, rank 16"),
        (AdapterConfig(kind="full", dora=True), "all weights"),
        (AdapterConfig(kind="qlora", r=8), "QLoRA, rank 8"),
        (AdapterConfig(dora=True, rslora=True, targets="q_proj"), "rank-stabilised DoRA, rank 16, on q_proj"),
    ],
)
def test_weights_in_words(adapter: AdapterConfig, words: str) -> None:
    assert adapter_words(adapter) == words


def test_an_adapter_of_another_base_is_refused_before_anything_is_written(data: Workspace, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", base_model_name_or_path=str(ROOT / "model"))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    header = json.dumps({name: {"dtype": "F32", "shape": [4, 48], "data_offsets": [0, 768]}}).encode()
    (folder / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 768)
    with pytest.raises(EngineError, match=r"made for another base model: .*q_proj.* is 48 wide.* is 128"):
        plan(data, "dpo", "prefs", model=str(folder))
    assert list(data.runs.iterdir()) == []
