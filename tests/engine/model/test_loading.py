"""Loading: whole, finite, safetensors only; every refusal says what to do."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import ModelError
from engine.model.loading import load_causal_lm, load_for_inference, read_adapter_config
from engine.model.model_files import check_model_folder, tensor_infos, weight_files


@pytest.fixture
def folder(tmp_path: Path, tiny_model_folder: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def load(folder: Path, dtype: Any = torch.float32) -> Any:
    return load_causal_lm(folder, dtype=dtype, device="cpu")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


class TestLoads:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_whole_model_in_the_precision_asked_for(
        self, dtype: torch.dtype, tiny_model_folder: Path, tiny_model: Any, capfd: pytest.CaptureFixture[str]
    ) -> None:
        model = load(tiny_model_folder, dtype)
        assert {p.dtype for p in model.parameters()} == {dtype}
        assert not model.training
        assert model.config._attn_implementation == "sdpa"
        expected = tiny_model.to(dtype).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
        assert capfd.readouterr() == ("", ""), "no progress bars, no warnings"

    def test_shards(self, folder: Path, tiny_model: Any) -> None:
        (folder / "model.safetensors").unlink()
        tiny_model.save_pretrained(str(folder), max_shard_size="40KB")
        assert len(weight_files(folder)) > 1
        assert torch.equal(load(folder).model.norm.weight, tiny_model.model.norm.weight)
        weight_files(folder)[-1].unlink()
        with pytest.raises(ModelError, match=r"1 of . weight files are missing"):
            load(folder)

    def test_reward_model_without_a_head(self, folder: Path, make_tiny_model: Callable[..., Path]) -> None:
        make_tiny_model(folder, tie_word_embeddings=False)
        change_weights(folder, lambda w: w.pop("lm_head.weight"))
        with pytest.raises(ModelError, match="1 weights are missing, the first is lm_head"):
            load(folder)
        config = json.loads((folder / "config.json").read_text())
        config["architectures"] = ["LlamaForSequenceClassification"]
        (folder / "config.json").write_text(json.dumps(config))
        assert load(folder).config.hidden_size == 32


class TestRefusals:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no such folder"):
            load(tmp_path / "none")

    def test_without_config(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        with pytest.raises(ModelError, match=r"no config\.json, so this is no model folder"):
            load(folder)
        (folder / "model.gguf").touch()
        with pytest.raises(ModelError, match=r"model\.gguf: name that file itself"):
            load(folder)
        (folder / "adapter_config.json").write_text("{}")
        with pytest.raises(ModelError, match="an adapter, not a whole model"):
            load(folder)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
    def test_pickles(self, name: str, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / name)
        with pytest.raises(ModelError, match="pickled"):
            load(folder)

    def test_without_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match=r"no model\.safetensors"):
            load(folder)

    def test_without_tokenizer(self, folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        with pytest.raises(ModelError, match=r"no tokenizer\.json"):
            load(folder)

    def test_vocabulary_larger_than_the_embedding(self, folder: Path, make_tiny_tokenizer: Callable[..., None]) -> None:
        make_tiny_tokenizer(folder, vocab_size=310)
        with pytest.raises(ModelError, match=r"ids up to 309.* has 300 rows"):
            load(folder)

    @pytest.mark.parametrize("value", [float("nan"), float("-inf")])
    def test_values_that_are_no_numbers(self, value: float, folder: Path) -> None:
        def spoil(weights: dict[str, torch.Tensor]) -> None:
            weights["model.layers.1.mlp.up_proj.weight"][3, 4] = value

        change_weights(folder, spoil)
        with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds 1 values that are NaN"):
            load(folder)

    def test_missing_weight(self, folder: Path) -> None:
        change_weights(folder, lambda w: w.pop("model.layers.0.self_attn.q_proj.weight"))
        with pytest.raises(
            ModelError, match=r"1 weights are missing, the first is model\.layers\.0\.self_attn\.q_proj"
        ):
            load(folder)

    def test_weights_of_another_shape(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
        with pytest.raises(ModelError, match="cannot load it"):
            load(folder)

    def test_torn_weights(self, folder: Path) -> None:
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[:-100])
        with pytest.raises(ModelError, match="not a whole safetensors file"):
            load(folder)

    def test_code_of_strangers_is_not_run(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config.update(model_type="stranger", auto_map={"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"})
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
        with pytest.raises(ModelError, match="cannot load it"):
            load(folder)
        assert not (folder / "ran").exists()

    def test_not_a_causal_language_model(self, folder: Path) -> None:
        (folder / "config.json").write_text('{"model_type": "vit"}')
        with pytest.raises(ModelError, match="as a causal language model"):
            load(folder)

    @pytest.mark.parametrize("text", ["", "[]", '{"weight_map": {"a": "../b.safetensors"}}', '{"weight_map": {}}'])
    def test_broken_index(self, text: str, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(text)
        with pytest.raises(ModelError, match=r"index\.json"):
            check_model_folder(folder)


class TestHeaders:
    def test_shapes_without_loading(self, tiny_model_folder: Path, tiny_model: Any) -> None:
        infos = tensor_infos(tiny_model_folder / "model.safetensors")
        assert infos["model.embed_tokens.weight"].shape == (300, 32)
        assert infos["model.norm.weight"].dtype == "F32"
        assert sum(info.elements for info in infos.values()) == sum(p.numel() for p in tiny_model.parameters())

    @pytest.mark.parametrize(
        "data",
        [b"", b"1234567", struct.pack("<Q", 2**40), struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 4) + b"{xx}"],
    )
    def test_torn(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "x.safetensors").write_bytes(data)
        with pytest.raises(ModelError, match="not a whole safetensors file"):
            tensor_infos(tmp_path / "x.safetensors")


class TestAdapters:
    @pytest.fixture
    def adapter(self, tmp_path: Path, tiny_model: Any) -> Path:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(tiny_model, LoraConfig(r=4, target_modules="all-linear"))
        model.save_pretrained(str(tmp_path / "adapter"))
        return tmp_path / "adapter"

    def test_fits_its_base(self, adapter: Path, tiny_model_folder: Path) -> None:
        assert read_adapter_config(adapter, tiny_model_folder)["r"] == 4

    def test_made_for_another_base(self, adapter: Path, tmp_path: Path, make_tiny_model: Callable[..., Path]) -> None:
        other = make_tiny_model(tmp_path / "other", intermediate_size=48)
        with pytest.raises(ModelError, match=r"another base model: .*is 64 wide, .* of other is 48"):
            read_adapter_config(adapter, other)

    def test_not_whole_or_of_another_kind(self, adapter: Path) -> None:
        (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
        with pytest.raises(ModelError, match=r"no adapter_model\.safetensors.*pickled adapter_model\.bin is not read"):
            read_adapter_config(adapter)
        (adapter / "adapter_model.bin").rename(adapter / "adapter_model.safetensors")
        (adapter / "adapter_config.json").write_text('{"peft_type": "IA3"}')
        with pytest.raises(ModelError, match="type IA3"):
            read_adapter_config(adapter)
        (adapter / "adapter_config.json").unlink()
        with pytest.raises(ModelError, match=r"no adapter_config\.json"):
            read_adapter_config(adapter)

    def test_inference_with_and_without_merging(self, adapter: Path, tiny_model_folder: Path) -> None:
        weights = load_file(adapter / "adapter_model.safetensors")
        torch.manual_seed(0)
        for name in weights:
            weights[name] = torch.randn_like(weights[name]) * 0.2
        save_file(weights, adapter / "adapter_model.safetensors")
        ids = torch.tensor([[5, 6, 7, 8]])
        merged = load_for_inference(tiny_model_folder, adapter, dtype=torch.float32, device="cpu")
        beside = load_for_inference(tiny_model_folder, adapter, dtype=torch.bfloat16, device="cpu")
        base = load_for_inference(tiny_model_folder, None, dtype=torch.float32, device="cpu")
        assert not any("lora" in name for name, _ in merged.named_parameters())
        assert any("lora" in name for name, _ in beside.named_parameters())
        with torch.no_grad():
            a, b, c = (model(ids).logits.float().log_softmax(-1) for model in (merged, beside, base))
        assert (a - b).abs().max() < 0.3 < (a - c).abs().max()
