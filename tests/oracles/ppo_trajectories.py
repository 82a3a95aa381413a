"""The small world in which TRL's PPO was recorded: weights, prompts and completions that both sides rebuild.

Owns every number that the recording does not hold. Weights are drawn by Python's own generator, whose draws are the
same on every machine and in every version, from (SEED, name); `fingerprint` says in one number whether they are. Knows
neither TRL nor the engine.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import torch

RECORDING = Path(__file__).with_name("ppo_trl_1_12_0.json")
SEED = 11
PAD, EOS = 0, 1
VOCABULARY = 40
MODEL = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32, "tie_word_embeddings": True,
    "bos_token_id": None, "eos_token_id": EOS, "pad_token_id": PAD,
}  # fmt: skip
LORA = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.0}
RESPONSE_LENGTH = 6
TEMPERATURE = 0.7
LEARNING_RATE = 0.05
PROMPTS = [[5, 9, 14], [21, 6, 30, 11, 8], [17, 25, 12, 33], [7, 39]]
COMPLETIONS = [[10, 22, EOS], [31, 4, 18, 26, EOS], [13, 35, 20, 2, 28, 16], [23, EOS]]
"""Three end by themselves, the third is cut off at the response length."""
LONGEST_ENDS = [[10, 22, EOS], [31, 4, 18, 26, EOS], [13, 20, EOS], [23, EOS]]
"""All end, so the longest fills the width of the batch."""

SETTINGS: dict[str, dict[str, Any]] = {
    "k1": {"kl_coef": 0.1, "kl_estimator": "k1", "gamma": 1.0, "lam": 0.95, "vf_coef": 0.1, "missing_eos_penalty": 1.0},
    "k3": {"kl_coef": 0.3, "kl_estimator": "k3", "gamma": 0.9, "lam": 0.8, "vf_coef": 0.5, "missing_eos_penalty": None},
}
"""By name of a recording: what is passed to TRL; clipping is 0.2 for both."""


def drawn(name: str, shape: torch.Size | tuple[int, ...], scale: float) -> torch.Tensor:
    """Normal numbers that depend on SEED, `name` and `shape` alone."""
    draw = random.Random(f"{SEED}/{name}")
    count = torch.Size(shape).numel()
    return torch.tensor([draw.gauss(0.0, scale) for _ in range(count)]).reshape(shape)


def fill_base(model: torch.nn.Module) -> None:
    """Give a causal model's decoder (and tied head) its weights; a norm's are around 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            plain = name.removeprefix("model.").replace(".base_layer.", ".")
            if "lora_" in plain or plain.startswith("score"):
                continue
            noise = drawn(plain, parameter.shape, 0.1 if parameter.ndim == 1 else 0.4)
            parameter.copy_(noise + (parameter.ndim == 1))


def fill_adapter(model: torch.nn.Module, adapter: str, role: str) -> None:
    """Give the LoRA weights of `adapter` the values of `role`: "policy" or "reward"."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f".lora_A.{adapter}." in name or f".lora_B.{adapter}." in name:
                parameter.copy_(drawn(f"{role}/{place(name)}", parameter.shape, 0.3))


def place(name: str) -> str:
    """A LoRA weight's place without prefixes and the adapter's name: layers.0.self_attn.q_proj.lora_A."""
    return name[name.index("layers.") :].rsplit(".", 2)[0]


def head_weight() -> torch.Tensor:
    """(1, H) of the reward head, which is also where the value's begins."""
    return drawn("head", (1, MODEL["hidden_size"]), 0.5)


def fingerprint(model: torch.nn.Module) -> str:
    """Of a causal model's filled weights, in a form that does not feel how they are held."""
    words = [f"{name} {float(p.detach().double().sum()):.6e}" for name, p in sorted(model.named_parameters())]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
