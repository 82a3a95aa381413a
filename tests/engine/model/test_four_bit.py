"""QLoRA's base: what transformers is asked for. The kernels need bitsandbytes and CUDA, which are not here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import ConfigError, ModelError
from engine.model import four_bit
from engine.model.loading import load_causal_lm


def test_transformers_is_asked_for_nf4_with_double_quantization(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    asked: dict[str, Any] = {}

    def from_pretrained(folder: str, **arguments: Any) -> Any:
        asked.update(arguments)
        raise RuntimeError("no kernels here")

    monkeypatch.setattr(four_bit, "find_spec", lambda name: object() if name == "bitsandbytes" else None)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with pytest.raises(ModelError, match="no kernels here"):
        load_causal_lm(tiny_model_folder, dtype=torch.bfloat16, device="cuda", four_bit=True)
    wanted = asked["quantization_config"]
    assert (wanted.load_in_4bit, wanted.bnb_4bit_quant_type, wanted.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert wanted.bnb_4bit_compute_dtype is torch.bfloat16
    assert asked["device_map"] == {"": torch.device("cuda")}


def test_without_the_package_the_remedy_is_named(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(four_bit, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'workbench\[qlora\]'"):
        load_causal_lm(tiny_model_folder, dtype=torch.bfloat16, device="cpu", four_bit=True)


def test_bytes_a_weight() -> None:
    """Section 3 of the paper: 0.5 bits a weight for scales of 32 bits become 8/64 + 32/(64 * 256) = 0.127 bits."""
    assert pytest.approx(4 + 0.127, abs=1e-3) == four_bit.BYTES_A_WEIGHT * 8
