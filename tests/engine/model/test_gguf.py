"""GGUF files: read, refused, converted once. The file here is the tiny model, written as llama.cpp writes it."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from engine.data.chat import ChatTokenizer
from engine.errors import ModelError
from engine.model import gguf
from engine.model.gguf_header import read_gguf_header
from engine.model.loading import load_causal_lm
from engine.model.model_files import tensor_infos

IDS = torch.tensor([[1, 40, 41, 42, 43, 2, 9, 8]])


def write_gguf(file: Path, source: Path, *, architecture: str = "llama", kind: str = "Q8_0") -> Path:
    """The model of folder `source` as a GGUF file with its matrices quantised, but for the embedding (F16)."""
    from gguf import GGMLQuantizationType, GGUFWriter, quants
    from safetensors.numpy import load_file

    config = json.loads((source / "config.json").read_text())
    writer = GGUFWriter(str(file), architecture)
    writer.add_name("tiny")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i < 4 else 1 for i in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(json.loads((source / "tokenizer_config.json").read_text())["chat_template"])
    for name, weight in load_file(source / "model.safetensors").items():
        stored = _llama_cpp_order(name, weight, config)
        if weight.ndim == 2 and "embed" not in name:
            quantised = quants.quantize(np.ascontiguousarray(stored), GGMLQuantizationType[kind])
            writer.add_tensor(_llama_cpp_name(name), quantised, raw_dtype=GGMLQuantizationType[kind])
        else:
            writer.add_tensor(_llama_cpp_name(name), stored.astype(np.float16 if weight.ndim == 2 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _llama_cpp_name(name: str) -> str:
    renamed = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "model.layers": "blk",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for theirs, ours in renamed.items():
        name = name.replace(theirs, ours)
    return name


def _llama_cpp_order(name: str, weight: Any, config: dict[str, Any]) -> Any:
    """llama.cpp keeps the two halves of each rotary pair side by side."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return weight
    heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf", tiny_model_folder)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test touches the cache of the person who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def converted(file: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The file's folder, made by a child process beside the ruins of an earlier attempt."""
    root = tmp_path_factory.mktemp("models")
    name = gguf._cached(file, root, lambda *_: None).name
    (root / f".{name}.partial").mkdir()
    (root / f".{name}.partial" / "model.safetensors").write_bytes(b"torn")
    told: list[tuple[int, int, str]] = []
    folder = gguf.resolve_gguf(file, root, lambda *step: told.append(step))
    return SimpleNamespace(folder=folder, root=root, told=told)


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("nothing had to be converted")


class TestConversion:
    def test_logits_are_those_of_the_file(self, converted: SimpleNamespace, file: Path) -> None:
        """Bit-equal to what transformers reads from the file itself, in the precision that is stored."""
        from transformers import AutoModelForCausalLM

        direct = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.bfloat16)
        ours = load_causal_lm(converted.folder, dtype=torch.bfloat16, device="cpu")
        with torch.no_grad():
            assert torch.equal(ours(IDS).logits, direct.eval()(IDS).logits)

    def test_logits_are_near_those_of_the_original(self, converted: SimpleNamespace, tiny_model: Any) -> None:
        ours = load_causal_lm(converted.folder, dtype=torch.float32, device="cpu")
        with torch.no_grad():
            a, b = (model(IDS).logits.log_softmax(-1) for model in (ours, tiny_model))
        assert (a - b).abs().mean() < 0.05 < b.std()

    def test_settings_survive(self, converted: SimpleNamespace, tiny_model_folder: Path) -> None:
        config = json.loads((converted.folder / "config.json").read_text())
        assert "quantization_config" not in config
        assert config["dtype"] == "bfloat16"
        infos = tensor_infos(converted.folder / "model.safetensors")
        assert {info.dtype for info in infos.values()} == {"BF16"}
        assert "lm_head.weight" not in infos, "tied to the embedding"
        generation = json.loads((converted.folder / "generation_config.json").read_text())
        for described in (config, generation):
            assert (described["bos_token_id"], described["eos_token_id"], described["pad_token_id"]) == (1, 2, 2)
        ours, original = ChatTokenizer.from_folder(converted.folder), ChatTokenizer.from_folder(tiny_model_folder)
        assert ours.chat_template == original.chat_template
        talk = [{"role": "user", "content": "Name three birds: 12, <|im_end|> ü"}]
        assert ours.prompt_ids(talk) == original.prompt_ids(talk)
        assert (ours.eos_id, ours.pad_id, ours.bos_id, ours.stop_ids) == (2, 2, 1, {2})

    def test_only_complete_folders_are_left(self, converted: SimpleNamespace) -> None:
        assert [path.name for path in converted.root.iterdir() if not path.name.endswith(".lock")] == [
            converted.folder.name
        ]
        assert converted.folder.name.startswith("gguf-")
        assert converted.folder.name.endswith("-1")

    def test_progress(self, converted: SimpleNamespace) -> None:
        assert [what for _, _, what in converted.told][-3:] == ["loading", "de-quantising", "writing"]
        assert all(done <= total for done, total, _ in converted.told)

    def test_second_time_nothing_is_done(
        self, converted: SimpleNamespace, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        """The cache goes by content: a copy elsewhere is the same model."""
        monkeypatch.setattr(gguf.subprocess, "Popen", never)
        monkeypatch.setattr(gguf, "_convert", never)
        copy = Path(shutil.copy(file, tmp_path / "renamed.gguf"))
        assert gguf.resolve_gguf(copy, converted.root) == converted.folder
        assert gguf.main([str(copy), str(converted.root)]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"folder": str(converted.folder)}

    def test_failure_leaves_nothing_behind(self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(gguf, "_convert", full)
        with pytest.raises(ModelError, match=r"cannot be written \(No space left on device\), \d+ MB free: make room"):
            gguf.convert_into_cache(file, tmp_path / "models", lambda *_: None)
        assert [path for path in (tmp_path / "models").iterdir() if not path.name.endswith(".lock")] == []

    @pytest.mark.slow
    @pytest.mark.slow
    def test_architecture_that_is_not_known(self, tmp_path: Path, tiny_model_folder: Path) -> None:
        """The reason comes out of the child as one message."""
        strange = write_gguf(tmp_path / "strange.gguf", tiny_model_folder, architecture="strangeformer")
        with pytest.raises(ModelError, match=r"cannot read this GGUF file \(architecture strangeformer\)") as raised:
            gguf.resolve_gguf(strange, tmp_path / "models")
        assert "\n" not in str(raised.value)
        assert "safetensors instead" in str(raised.value)

    def test_real_file(self, tmp_path: Path) -> None:
        named = os.environ.get("WORKBENCH_TEST_GGUF")
        if not named:
            pytest.skip("WORKBENCH_TEST_GGUF names no file")
        from transformers import AutoModelForCausalLM, AutoTokenizer

        real = Path(named)
        folder = gguf.resolve_gguf(real, tmp_path)
        direct = AutoModelForCausalLM.from_pretrained(str(real.parent), gguf_file=real.name, dtype=torch.bfloat16)
        ours = load_causal_lm(folder, dtype=torch.bfloat16, device="cpu")
        tokenizer = ChatTokenizer.from_folder(folder)
        talk = [{"role": "user", "content": "What is 12 + 345?\n\n Näme it 🐦."}]
        ids = AutoTokenizer.from_pretrained(str(real.parent), gguf_file=real.name).apply_chat_template(
            talk, add_generation_prompt=True, tokenize=True
        )["input_ids"]
        assert tokenizer.prompt_ids(talk) == ids
        with torch.no_grad():
            assert torch.equal(ours(torch.tensor([ids])).logits, direct.eval()(torch.tensor([ids])).logits)


class TestHeader:
    def test_settings_and_sizes(self, file: Path, tiny_model: Any) -> None:
        header = read_gguf_header(file)
        assert header.architecture == "llama"
        assert header.settings["llama.context_length"] == 128
        assert header.settings["tokenizer.ggml.eos_token_id"] == 2
        assert header.parameters == sum(p.numel() for p in tiny_model.parameters())
        assert header.elements["blk.0.attn_k.weight"] == 32 * 16

    def test_space_is_checked_first(self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gguf, "_convert", never)
        monkeypatch.setattr(gguf.shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * 2**20))
        with pytest.raises(ModelError, match=r"need 256 MB as bf16, and .* has 10 MB free"):
            gguf.convert_into_cache(file, tmp_path, lambda *_: None)


class TestBrokenFiles:
    @pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.9, 0.9999])
    def test_cut_short(self, share: float, file: Path, tmp_path: Path) -> None:
        whole = file.read_bytes()
        torn = tmp_path / "torn.gguf"
        torn.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ModelError, match=r"cut short: .* copy or download it again"):
            gguf.resolve_gguf(torn, tmp_path / "models")
        assert not (tmp_path / "models").exists()

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "it is empty"),
            (b"PK\x03\x04 a zip", "begins with b'PK"),
            (b"GGUF", "cut short"),
            (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
            (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
            (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60), "cut short"),
            (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62), "cut short"),
            (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sI8x", 1, b"a", 99), "unknown kind 99"),
            (
                b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q1sIQIQ", 1, b"t", 1, 32, 250, 0) + b" " * 64,
                "not known here .type 250",
            ),
            (
                b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q1sI", 1, b"t", 9) + b" " * 64,
                "has 9 dimensions",
            ),
            (
                b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q11sIH", 11, b"split.count", 2, 3),
                "one of 3 parts",
            ),
        ],
    )
    def test_of_another_kind(self, data: bytes, reason: str, tmp_path: Path) -> None:
        (tmp_path / "x.gguf").write_bytes(data)
        with pytest.raises(ModelError, match=reason):
            read_gguf_header(tmp_path / "x.gguf")

    def test_missing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert gguf.main([str(tmp_path / "none\x07.gguf"), str(tmp_path)]) == 1
        complaint = capsys.readouterr().err
        assert "cannot be read (No such file or directory)" in complaint
        assert "\x07" not in complaint
        assert gguf.main([]) == 2


def test_nothing_heavy_is_imported_for_a_file_that_is_cached(
    converted: SimpleNamespace, file: Path, run_isolated: Callable[[str], str]
) -> None:
    code = (
        "import sys, pathlib; from engine.model.gguf import resolve_gguf; "
        f"resolve_gguf(pathlib.Path({str(file)!r}), pathlib.Path({str(converted.root)!r})); "
        "print(sorted({'torch', 'transformers', 'safetensors'} & set(sys.modules)))"
    )
    assert run_isolated(code) == "[]"
